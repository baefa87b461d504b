"""How long a comparison takes: from its records, or before there are any from a few measured steps."""

import statistics
from collections.abc import Mapping, Sequence

from ufo_large.comparing.places import Place
from ufo_large.comparing.plan import FIXED, SHARED, SINGLE, SUM, Plan, Run, is_single
from ufo_large.comparing.records import Record
from ufo_large.comparing.trainings import Workshop
from ufo_large.config import read_json, to_dict, write_json
from ufo_large.data.shards import ShardSet
from ufo_large.finetuning.pace import PACE_FILE

JOINT = "joint"


def group(label: str) -> str:
    """Return what takes about the same time: a single task's runs; all joint ones."""
    return label if is_single(label) else JOINT


def recorded_times(records: Sequence[Record]) -> dict[str, float]:
    """Return group -> typical seconds of a run, of those that were not interrupted."""
    found: dict[str, list[float]] = {}
    for record in records:
        if record.wall_s is not None:
            found.setdefault(group(record.label), []).append(record.wall_s)
    return {name: statistics.median(times) for name, times in found.items()}


def hours_left(runs: Sequence[Run], later: int, times: Mapping[str, float], jobs: int) -> float | None:
    """Return the hours for `runs` and `later` joint ones, None where a group's time is not known."""
    groups = [*(group(run.label) for run in runs), *([JOINT] * later)]
    if not times.keys() >= set(groups):
        return None
    return sum(times[name] for name in groups) / jobs / 3600


def measured_times(plan: Plan, workshop: Workshop, place: Place) -> dict[str, float]:
    """Train a few steps of the plain sum, predict a few images, and return group -> seconds of a run.

    Steps, validations and scoring count, the start of programs does not. A single task takes its part of the
    joint run, in proportion to the time of predicting its images. RuntimeError where the measurement fails.
    """
    folder = workshop.out / "measured"
    folder.mkdir(parents=True, exist_ok=True)
    config = plan.config_of(plan.joint(SUM, SHARED, FIXED)[0])
    write_json(folder / "config.json", {"config": to_dict(config)})
    words = ("--measure", str(folder / "config.json"), "--data", plan.options.data)
    command = workshop.command(place, "launchers/finetune.py", *words, "--workdir", str(folder))
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        code = workshop.start(command, log, place).wait()
    if code:
        raise RuntimeError(f"measuring a few steps failed; see {folder / 'log.txt'}")
    pace = read_json(folder / PACE_FILE, "measure again")
    shards, steps = ShardSet.open(plan.options.data), config.steps * pace["step_s"]
    trained = {t.name: config.task(t).loader.micro_batch * config.task(t).micro_batches for t in plan.tasks}
    weight = {name: trained[name] * pace["image_s"][name] for name in trained}
    validations = -(-config.steps // config.evaluate_every) if config.evaluate_every else 0
    times = {JOINT: steps}
    for name in trained:
        counts = {
            split: len(shards.split(name, split))
            for split in {"val", *workshop.splits}
            if shards.has_split(name, split)
        }
        images = validations * counts.get(config.evaluate_split, 0) + sum(counts[s] for s in workshop.splits)
        looking = images * pace["image_s"][name]
        times[JOINT] += looking
        times[f"{SINGLE}{name}"] = steps * weight[name] / sum(weight.values()) + looking
    return times
