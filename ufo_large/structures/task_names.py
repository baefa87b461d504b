"""Names that a task cannot have, because its modules, metrics and settings are found by them."""

from torch import nn

# as in train/lr, val/cls/top1, balance/cosine/cls-dec, cls/top1/<class>
METRICS = (
    *("train", "val", "balance", "routing", "examples"),
    *("cosine", "conflict_rate", "top1", "ap50", "iou"),
)
# `MultitaskModel.add_task` knows a task's modules by its name in theirs
MODULES = ("trunk", "vit", "blocks", "heads", "pyramids", "experts")
# a ModuleDict refuses modules with the names of its own methods: keys, forward
METHODS = frozenset(dir(nn.ModuleDict()))


def require_free_name(name: str) -> None:
    """Raise ValueError for a reserved name, with the remedy."""
    if name in METRICS:
        why = "metrics are logged under that word"
    elif name in MODULES or name.isdecimal():
        why = "modules of the model are named so"
    elif name in METHODS:
        why = "torch's ModuleDict, where its head would be kept, has a method of that name"
    else:
        return
    raise ValueError(f"task {name!r}: {why}; choose another, for instance with --data NAME=DIR")
