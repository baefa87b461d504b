"""Which settings train a recipe on a cluster: the best besides those asked, the fastest, the nearest."""

import itertools
from collections.abc import Iterator

from ufo_large.models.checkpointing import Checkpointing
from ufo_large.planning.plan import Choice, Plan, Planner

MODES: tuple[Checkpointing, ...] = ("none", "selective", "full")
"""From much memory to little. `offload` comes last of all, since it waits for the host's memory."""


def shardings(planner: Planner) -> list[str]:
    """Return the DeepSpeed JSONs to choose from: the recipe's own first, then those of its dtype."""
    names = (name.format(planner.asked_dtype) for name in planner.shardings)
    return list(dict.fromkeys((planner.asked.ds, *names)))


def alternatives(planner: Planner, count: int = 3) -> list[Plan]:
    """Return the best ways besides the one that was asked: what fits first, then by time.

    Where that fits, those with as much checkpointing or less; where not, with as much or more, and where
    nothing fits then, the nearest with smaller micro-batches.
    """
    asked = planner.asked
    place = MODES.index(asked.checkpointing) if asked.checkpointing in MODES else len(MODES) - 1
    fits = planner.plan(asked).fits
    modes = MODES[: place + 1] if fits else MODES[place:]
    choices = [
        Choice(mode, ds) for mode in dict.fromkeys((asked.checkpointing, *modes)) for ds in shardings(planner)
    ]
    others = [planner.plan(choice) for choice in choices if choice != asked]
    if not fits and not any(plan.fits for plan in others):
        others += itertools.islice(_smaller(planner), 1)
    return sorted(others, key=_rank)[:count]


def fastest(planner: Planner) -> Plan:
    """Return the fastest way that fits, without giving memory back in each step where there is one.

    More checkpointing is slower, so none is tried beyond the first that needs no help of the host's memory.
    Raises ValueError where nothing fits.
    """
    plans: list[Plan] = []
    for mode in MODES:
        found = [planner.plan(Choice(mode, ds)) for ds in shardings(planner)]
        plans += found
        if any(plan.fits and not plan.memory.retries and not plan.memory.on_host for plan in found):
            break
    best = min(plans, key=_rank)
    if best.fits:
        return best
    for plan in _smaller(planner):
        return plan
    raise ValueError(_nothing_fits(planner))


def nearest(planner: Planner) -> Plan:
    """Return what fits and changes least: checkpointing first, then sharding, then micro-batches.

    Raises ValueError where nothing fits.
    """
    asked = planner.asked
    modes = dict.fromkeys((asked.checkpointing, *MODES))
    for ds in shardings(planner):
        for mode in modes:
            plan = planner.plan(Choice(mode, ds))
            if plan.fits:
                return plan
    for plan in _smaller(planner):
        return plan
    raise ValueError(_nothing_fits(planner))


def _smaller(planner: Planner) -> Iterator[Plan]:
    """Yield ways that fit with smaller micro-batches, the largest of them first."""
    largest = max(planner.config.task(task).loader.micro_batch for task in planner.sizes.tasks)
    divided = 1
    modes: list[Checkpointing] = ["full", "offload"] if planner.may_offload else ["full"]
    possible = [ds for ds in shardings(planner) if planner.can_hold(ds)]
    while divided < 2 * largest:
        for mode in modes:
            for ds in possible:
                plan = planner.plan(Choice(mode, ds, divided))
                if plan.fits:
                    yield plan
        divided *= 2


def _rank(plan: Plan) -> tuple[bool, bool, float]:
    return not plan.fits, plan.memory.retries > 0, plan.time.seconds if plan.fits else plan.memory.needed


def _nothing_fits(planner: Planner) -> str:
    cluster = planner.cluster
    return (
        f"nothing fits {cluster}: the recipe does not train there with full checkpointing, the optimizer in "
        "host memory and one image at a time; give more --gpus, larger ones, or smaller inputs with --set "
        "tasks.<task>.loader.image_size=H,W"
    )
