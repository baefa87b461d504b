"""A plan in words and tables."""

from collections.abc import Iterable, Sequence

from ufo_large.planning.memory import GIB
from ufo_large.planning.plan import Plan, Planner
from ufo_large.tracking.plan_check import COMPILED

HOW = {
    "traced": "",
    "run": "losses run for real on random outputs",
    "guessed": "losses not known, one float32 copy of the outputs taken for them",
}


def plan_text(planner: Planner, plan: Plan, budget: float | None = None) -> str:
    """Return everything about one plan; `budget` in hours."""
    cluster, memory = planner.cluster, plan.memory
    room = f"{memory.needed / GIB:.1f} of {cluster.gpu.memory / GIB:.1f} GiB"
    verdict = f"fits: {room}" if plan.fits else f"does not fit: {room}"
    if plan.fits and memory.retries:
        verdict += "; only by giving cached memory back, which makes steps slower"
    return "\n".join(
        [
            f"{planner.config.name} on {cluster}: {plan.sharding}, checkpointing "
            f"{plan.choice.checkpointing}; {plan.parameters / 1e9:.2f} B parameters",
            f"{planner.sizes.source}; GPU: {cluster.gpu.source}",
            verdict,
            "",
            *memory_table(plan),
            "",
            *time_table(plan),
            *([COMPILED] if planner.compiles else []),
            "",
            *cost_lines(plan, budget),
        ]
    )


def memory_table(plan: Plan) -> list[str]:
    """Return the parts of a rank's memory, as Markdown."""
    memory = plan.memory
    rows = [(name, size) for name, size in memory.states.items()]
    if memory.gathered:
        rows.append(("gathered weights of one task", memory.gathered))
    rows += [
        ("activations, heads, losses, gradients", memory.passing),
        ("live at most", memory.live),
        ("reserved by torch", memory.reserved),
        ("outside of torch, assumed", memory.outside),
    ]
    rows += [(f"{name}, host", size) for name, size in memory.on_host.items()]
    body = [(name, f"{size / GIB:.2f}") for name, size in rows]
    by_task = ", ".join(f"{task} {size / GIB:.2f}" for task, size in memory.by_task.items())
    told = [f"{task}: {HOW[how]}" for task, how in plan.losses.items() if HOW[how]]
    return [*table(("memory of a rank", "GiB"), body), f"Activations by task: {by_task}.", *told]


def time_table(plan: Plan) -> list[str]:
    """Return the parts of a step's time, as Markdown."""
    head = ("task", "micro-batches", "images", "products", "attention", "convolutions", "elementwise")
    head += ("waits", "GPU", "host", "exposed", "seconds")
    body = []
    for task, time in plan.time.tasks.items():
        gpu = time.gpu
        waits = time.gaps + time.copies + time.reducing
        parts = (gpu.matrix, gpu.attention, gpu.convolution, gpu.elementwise, waits, time.computing)
        parts += (time.host, time.exposed, time.seconds)
        body.append((task, f"{time.micro_batches:g}", str(time.images), *(f"{p:.3f}" for p in parts)))
    return [
        *table(head, body),
        f"Optimizer, balancing and average: {plan.time.optimizer:.3f} s. A step: {plan.time.seconds:.3f} s, "
        "without waiting for data.",
    ]


def cost_lines(plan: Plan, budget: float | None) -> list[str]:
    """Return hours, energy and price of all steps, and what a budget of hours allows."""
    parts = [f"{plan.hours:.1f} hours", f"{plan.hours * plan.gpus:,.0f} GPU-hours"]
    if plan.energy is not None:
        parts.append(f"{plan.energy:,.0f} kWh at full power")
    if plan.price is not None:
        parts.append(f"{plan.price:,.2f} at the given rate")
    lines = [f"{plan.steps:,} steps: {', '.join(parts)}; without validation."]
    if budget is not None:
        steps = int(budget * 3600 / plan.time.seconds)
        within = "all steps end in it" if steps >= plan.steps else f"--set steps={steps} ends in it"
        lines.append(f"Budget of {budget:g} hours: {within}.")
    return lines


def alternatives_text(plans: Iterable[Plan]) -> str:
    """Return other ways to train, one a line."""
    rows = [
        (
            plan.sharding,
            plan.choice.checkpointing,
            "yes" if plan.fits else "no",
            f"{plan.memory.needed / GIB:.1f}",
            f"{plan.time.seconds:.3f}",
            f"{plan.hours:.1f}",
            f"`{' '.join(plan.settings)}`",
        )
        for plan in plans
    ]
    head = ("alternative", "checkpointing", "fits", "GiB", "s a step", "hours", "by")
    return "\n".join(table(head, rows))


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Return Markdown lines."""
    rows = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(row) + " |" for row in rows]
