"""What launchers/compare_tasks.py does, once its words are read."""

import dataclasses
from pathlib import Path
from typing import Any

from ufo_large.comparing.comparison import Comparison
from ufo_large.comparing.options import Options
from ufo_large.comparing.places import places
from ufo_large.comparing.plan import Plan, scored_splits
from ufo_large.comparing.records import Records
from ufo_large.comparing.report import PAGE, rows_of, write_comparison
from ufo_large.comparing.trainings import Workshop
from ufo_large.config import require_writable
from ufo_large.finetuning.machine import this_machine
from ufo_large.train.lock import training_alone


def compare(options: Options, records: Path, root: Path, hours_only: bool = False) -> list[str]:
    """Train what is missing; return what failed. `root` holds launchers/ and eval/.

    `hours_only`: only print how long that would take. Raises ValueError, before anything is trained, for what
    does not fit together, and Interrupted where a signal ended it.
    """
    require_writable(options.out, "--out")
    plan, machine = Plan(options), this_machine()
    ranks = options.ranks or max(1, machine.gpus // options.jobs)
    sharded = plan.config.ds != "none"
    if not sharded and ranks > 1:
        raise ValueError(f"--ranks {ranks}: ds=none trains in one process; give --set ds=zero3_fp32")
    workshop = Workshop(
        root=root,
        out=options.out,
        machine=machine,
        ranks=ranks,
        sharded=sharded,
        splits=scored_splits(options.data),
    )
    spots = places(machine, options.jobs, ranks, options.cores)
    comparison = Comparison(plan, workshop, spots, Records(records))
    comparison.check()
    if hours_only:
        print(f"about {comparison.hours(measure=True):.2f} hours are left, {options.jobs} at a time")
        return []
    with training_alone(options.out, "--out"):
        return comparison.run()


def show(out: Path, records: Path, split: str | None = None, over: str | None = None) -> list[dict[str, Any]]:
    """Write and print what the records say; return the rows as JSON values.

    `split`: whose figures count, test unless given. `over`: see `write_comparison`. Raises ValueError where
    there are no records, or no figures of that split.
    """
    found = Records(records).rows
    if not found:
        raise ValueError(f"{records}: no finished run is recorded there yet")
    if split is not None:
        found = [record.of_split(split) for record in found]
    print(write_comparison(out, found, over))
    print(f"\npage: {out / PAGE}")
    return [_plain(row) for row in rows_of(found)]


def _plain(row: Any) -> dict[str, Any]:
    fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.name != "records"}
    plain = {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in fields.items()}
    return plain | {"seeds": row.seeds}
