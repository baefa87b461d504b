"""The weights of the best validation so far, and whether a run still gets better."""

import shutil
from pathlib import Path

from ufo_large.config import read_json, write_json
from ufo_large.distributed import comm
from ufo_large.distributed.checkpoint import save_weights
from ufo_large.distributed.engine import Engine

FILE = "best.json"


class Best:
    """Keeps the weights of the validation with the highest score in a folder.

    FOLDER/best.json, written last, says of which step they are, so a resumed run knows; of a step after
    `resumed`, which was left, they count for nothing. `patience`: validations without a better score after
    which the run is over; 0 for never. Every rank calls every method.
    """

    def __init__(self, folder: Path, every: int, patience: int, resumed: int = 0):
        self.folder, self.every, self.patience = folder, every, patience
        self.step, self.score = comm.all_gather_objects(_read(folder, resumed))[0]

    def offer(self, step: int, score: float | None, engine: Engine) -> None:
        """Keep the engine's weights where `score` is the highest so far; None where nothing was scored."""
        if score is None or (self.score is not None and score <= self.score):
            return
        self.step, self.score = step, score
        save_weights(self.folder, engine)
        if comm.is_main():
            write_json(self.folder / FILE, {"step": step, "score": score})

    def is_over(self, step: int) -> bool:
        """Whether the best validation lies so far back that later ones are not waited for."""
        waited = step - self.step
        return self.score is not None and bool(self.patience) and waited >= self.patience * self.every

    def copy_to(self, weights: Path) -> bool:
        """Make these a run's `weights/`; False where no validation had a score. The folder itself stays."""
        if self.score is None:
            return False
        if comm.is_main():
            partial = weights.with_name(weights.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(self.folder, partial, ignore=shutil.ignore_patterns(FILE))
            shutil.rmtree(weights, ignore_errors=True)
            partial.rename(weights)
            print(f"weights of step {self.step}, the best validation (score {self.score:.4g}): {weights}")
        comm.barrier()
        return True


def _read(folder: Path, resumed: int) -> tuple[int, float | None]:
    if not (folder / FILE).is_file():
        return 0, None
    held = read_json(folder / FILE, f"remove {folder}", finite=False)
    return (held["step"], held["score"]) if held["step"] <= resumed else (0, None)
