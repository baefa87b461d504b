"""What launchers/replay_balancers.py writes and prints."""

from collections.abc import Sequence
from pathlib import Path

from ufo_large.balancing import METHODS, method
from ufo_large.comparing.heatmap import draw
from ufo_large.comparing.replaying import SUM, Replayed, replay, signals_of
from ufo_large.comparing.table import markdown
from ufo_large.config import require_writable, write_text_whole
from ufo_large.tracking.jsonl import FILE_NAME, read_metrics

NOTE, PICTURE = "balancers.md", "balancers.svg"


def replay_run(run: Path, names: Sequence[str] | None, alike: float, out: Path | None) -> str:
    """Replay the methods on a run's log, write note and picture into `out` (None: the run); return the note.

    Raises ValueError for a folder without a log, a log without gradients, or a name or cosine that is none.
    """
    if not 0 < alike <= 1:
        raise ValueError(f"--alike {alike}: a cosine above 0, at most 1")
    for name in names or ():
        method(name)
    log, out = run / FILE_NAME, out or run
    if not log.is_file():
        raise ValueError(f"--workdir {run}: no {FILE_NAME} there; give the folder of a run that has trained")
    require_writable(out, "--out")
    try:
        steps = signals_of(read_metrics(log))
    except ValueError as error:
        raise ValueError(f"{log}: {error}") from error
    found = replay(steps, tuple(names or METHODS), alike)
    text = "\n".join(note(found, alike))
    out.mkdir(parents=True, exist_ok=True)
    write_text_whole(out / NOTE, f"{text}\n")
    write_text_whole(out / PICTURE, draw(found))
    return text


def note(found: Replayed, alike: float) -> list[str]:
    """Return the lines: groups, then a method a line, the most alike beside one another."""
    pairs = [f"{a} and {b} {mean:.3f} ± {sd:.3f}" for (a, b), (mean, sd) in found.pairs.items()]
    lines = [
        "# Balancing methods on the gradients of one run",
        "",
        f"{found.steps} steps of {', '.join(found.tasks)}, {len(found.methods)} methods. In a group all "
        f"combined gradients have a cosine of {alike:g} or more, mean over the steps:",
        "",
        *(f"- {', '.join(f'`{name}`' for name in group)}" for group in found.groups),
        "",
        f"Cosines of the tasks' gradients, mean and standard deviation over the steps: {', '.join(pairs)}.",
        "",
        "Share: a task's part of the squared length of the combined gradient, per cent, mean over the steps.",
        "",
    ]
    plain = found.methods.index(SUM)
    body = [
        [
            f"`{name}`",
            f"{found.cosines_NN[index, plain]:.3f}",
            *(f"{100 * found.shares[name].get(task, 0.0):.0f}" for task in found.tasks),
        ]
        for index, name in enumerate(found.methods)
    ]
    head = ["method", "cosine to the plain sum", *(f"share, {task}" for task in found.tasks)]
    lines += markdown((head, body))
    return [*lines, *(f"\nleft out: `{name}`: {why}" for name, why in found.refused.items())]
