"""Words for `--set` that make the demo recipe a matter of seconds."""

_KINDS = ("classification", "detection", "segmentation")

SMALL_MODEL = (
    *("model.trunk.depth=2", "model.trunk.embed_dim=32", "model.trunk.num_heads=2"),
    "model.pyramid_width=32",
)
TWO_IMAGES_EACH = tuple(f"tasks.{kind}.loader.micro_batch=2" for kind in _KINDS)
IN_THE_PROCESS = tuple(f"tasks.{kind}.loader.workers=0" for kind in _KINDS)
"""Loads without worker processes."""
NO_WANDB = "tracking.wandb=disabled"
