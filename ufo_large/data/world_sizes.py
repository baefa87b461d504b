"""How many images the synthetic world has."""

from dataclasses import asdict, dataclass

CONTEST_TASKS = ("cls", "dec", "seg")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldSizes:
    """Images of each task for train, val and test."""

    cls: tuple[int, int, int] = (800, 64, 200)
    dec: tuple[int, int, int] = (300, 40, 100)
    seg: tuple[int, int, int] = (300, 40, 100)
    depth: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self):
        for task, counts in asdict(self).items():
            if min(counts) < 0:
                raise ValueError(f"sizes of {task} {counts}: no negative counts")

    def scaled(self, factor: float) -> "WorldSizes":
        """Multiply every count, keeping at least one image where there was one."""
        if factor <= 0:
            raise ValueError(f"--scale {factor}: give a factor above 0")
        return WorldSizes(
            **{
                task: tuple(max(min(1, n), round(n * factor)) for n in counts)
                for task, counts in asdict(self).items()
            }
        )

    def marked(self) -> dict[str, tuple[int, int, int]]:
        """Return the counts as the marker file has them; older worlds know no depth, so none is left out."""
        return {task: counts for task, counts in asdict(self).items() if task in CONTEST_TASKS or any(counts)}
