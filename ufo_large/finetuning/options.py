"""What the command line of finetuning says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """`init`: a run, a file, `hub` or `none`; None chooses. `hours`: for everything, evaluation included.

    `gpus`: how many to use, None for all. `val_share`: held out of train where there is no val split.
    `assignments`: changes of what is chosen, as `--set` takes them.
    """

    data: Sequence[str]
    workdir: Path
    init: str | None = None
    gpus: int | None = None
    hours: float = 1.0
    recipe: str | None = None
    lora: bool = False
    freeze: bool = False
    classes: Sequence[str] = ()
    val_share: float = 0.15
    seed: int = 0
    assignments: Sequence[str] = ()

    def __post_init__(self):
        if self.hours <= 0:
            raise ValueError(f"--hours {self.hours}: give more than 0")
        if self.lora and self.freeze:
            raise ValueError("--lora trains adapters on the trunk, --freeze nothing of it: give one of them")
