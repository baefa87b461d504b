"""A file with one JSON line per finished run: all that tables and plots need of it.

With it a comparison goes on without the runs' folders, on another day or machine.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ufo_large.comparing.plan import Run, data_hash
from ufo_large.config import held, parse_json, write_text_whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A finished run.

    `scores`: split -> metric -> figure, with `tasks` (each one's own). `traits`: what its steps say of the
    tasks' gradients. `parameters`: in all; `active`: those that a token of each task meets. `images`: seen
    per task. `seconds`: of its steps. `wall_s`: from its start to its last score; None where it was
    interrupted. `data` is a hash of the shards' index. Lines of older files lack the fields with a default.
    """

    label: str
    plan: Mapping[str, Any]
    ranks: int
    data: str
    scores: Mapping[str, Mapping[str, Any]]
    traits: Mapping[str, Any]
    recorded: str
    commit: str | None
    processor: str
    torch: str
    settings: list[str] = field(default_factory=list)
    parameters: int | None = None
    active: Mapping[str, int] = field(default_factory=dict)
    images: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    wall_s: float | None = None
    gpu: str | None = None

    @property
    def seed(self) -> int:
        return self.plan["seed"]

    @property
    def name(self) -> tuple[str, int]:
        return self.label, self.seed

    @property
    def split(self) -> str:
        """The split whose figures count: test where it is scored, else val."""
        return "test" if "test" in self.scores else "val"

    def of_split(self, split: str) -> "Record":
        """Return the record with that split's figures alone; ValueError where it has none."""
        if split not in self.scores:
            own = ", ".join(self.scores)
            raise ValueError(f"--split {split}: {self.label!r}, seed {self.seed}, has {own}")
        return replace(self, scores={split: self.scores[split]})

    @property
    def figures(self) -> Mapping[str, Any]:
        return self.scores[self.split]


class Records:
    """The records of one comparison. They share the recipe, the settings of all rows and the ranks.

    Reading raises ValueError that names the line where one does not, or is damaged.
    """

    def __init__(self, file: Path):
        self.file = file
        self.rows: list[Record] = []
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = _parse(parse_json(line, "the line", "write it again"))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{file}, line {number}: no record of a run ({error}); remove it") from None
            self._require_one_comparison(row, f"{file}, line {number}")
            self.rows.append(row)

    def find(self, run: Run, ranks: int) -> Record | None:
        """Return the record of a run, None where there is none; ValueError where it is another run's."""
        found = next((row for row in self.rows if row.name == (run.label, run.seed)), None)
        wanted = {"plan": run.plan, "ranks": ranks, "data": data_hash(run.data)}
        for key, value in wanted.items():
            if found is not None and getattr(found, key) != value:
                raise ValueError(
                    f"{self.file}: {run.label!r}, seed {run.seed}, has {key} {getattr(found, key)}, and this "
                    f"comparison {value}; give another --records or --out"
                )
        return found

    def add(self, row: Record) -> None:
        """Keep a record, at once in the file, which is written whole, with what others added meanwhile."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with held(self.file.with_name(f"{self.file.name}.lock"), strict=False):
            self.rows = Records(self.file).rows
            if any((row.name, row.plan, row.data) == (o.name, o.plan, o.data) for o in self.rows):
                return  # another command trained it too
            self._require_one_comparison(row, row.label)
            self.rows.append(row)
            write_text_whole(self.file, "".join(f"{json.dumps(asdict(row))}\n" for row in self.rows))

    def _require_one_comparison(self, row: Record, place: str) -> None:
        if any(row.name == other.name for other in self.rows):
            raise ValueError(f"{place}: {row.label!r}, seed {row.seed}, is there already; keep one of both")
        for other in self.rows[:1]:
            for key, get in SHARED_BY_ALL.items():
                if get(row) != get(other):
                    raise ValueError(
                        f"{place}: {key} {get(row)}, in the first record of {self.file} {get(other)}: they "
                        "are of two comparisons; give another --records or --out"
                    )


SHARED_BY_ALL = {
    "recipe": lambda row: row.plan["recipe"],
    "settings of all rows": lambda row: row.settings,
    "ranks": lambda row: row.ranks,
    "split": lambda row: row.split,
}


def _parse(body: Any) -> Record:
    known = {f.name for f in fields(Record)}
    if not isinstance(body, dict) or not isinstance(body.get("plan"), dict):
        raise ValueError("an object with a plan is wanted")
    if unknown := sorted(body.keys() - known):
        raise ValueError(f"unknown fields {', '.join(unknown)}")
    return Record(**body)
