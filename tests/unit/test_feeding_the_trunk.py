"""Loaders are made for the trunk they feed, and what does not fit is said before anything is built."""

import dataclasses
import itertools

import pytest
import torch

from ufo_large.config import apply_overrides
from ufo_large.data.batching import BATCH_SHAPES
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import RunFolder
from ufo_large.testing.models import tiny_trunk
from ufo_large.train.run import build, prepare


def demo(*assignments: str, **trunk):
    config = load_recipe("demo")
    model = dataclasses.replace(config.model, trunk=tiny_trunk(**trunk))
    workers = [f"tasks.{kind}.loader.workers=0" for kind in config.tasks]
    return apply_overrides(dataclasses.replace(config, model=model, ds="none"), [*workers, *assignments])


@pytest.mark.parametrize("shapes", sorted(set(BATCH_SHAPES) - {"fixed"}))
def test_canvases_are_whole_patches_of_the_runs_trunk(tiny_shards, tmp_path, shapes):
    """Patches of 14 pixels, as ViT-g has them, in what docs/data.md proposes."""
    config = demo(
        f"tasks.detection.loader.shapes={shapes}",
        "tasks.detection.loader.image_size=[112,154]",
        patch_size=14,
        img_size=56,
    )
    _, tasks, readers, _ = prepare(config, str(tiny_shards), RunFolder(tmp_path), None, "none")
    trainer = build(config, tasks, readers, None, torch.device("cpu"))
    batches = itertools.islice(trainer.runner.feeds["dec"].loader, 8)
    canvases = {tuple(batch.images_BCHW.shape[-2:]) for batch in batches}
    assert all(height % 14 == width % 14 == 0 for height, width in canvases)


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (
            [
                "tasks.detection.loader.shapes=multi_scale",
                "tasks.detection.loader.shapes.scales=[3.0]",
                "tasks.segmentation.loader.transform=detection",
            ],
            "(?s)task 'dec': one image of .* raise micro_batch.*task 'seg' is segmentation",
        ),
        (["tasks.classification.loader.tiles.rows=2"], "in classification an image is shown whole"),
        (["model.trunk.name=resnet50"], "cannot be the trunk"),
        (
            ["model.trunk.router=task", "model.trunk.router.blocks=1,7"],
            r"names \[7\], but the trunk has blocks 0 to \d; set model.trunk.router.blocks=none",
        ),
        (
            [
                "tasks.classification.loader.keep_aspect=true",
                "tasks.classification.loader.transform.mixup=0.2",
            ],
            "task 'cls': mixup and cutmix mix whole inputs, and with loader.keep_aspect a part",
        ),
        (
            [
                "model.trunk.router=learned",
                "tasks.segmentation.micro_batches=0",
                "steps=100",
                "tasks.segmentation.micro_batches_from.50=1",
            ],
            "task 'seg' rests until step 50, and the router fixes its choice from step 50 on",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_the_model_is_built(tiny_shards, tmp_path, assignments, said):
    with pytest.raises(ValueError, match=said):
        prepare(demo(*assignments), str(tiny_shards), RunFolder(tmp_path), None, "none")
