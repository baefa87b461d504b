"""Draw docs/transforms.jpg: what each option of the augmentation does to a picture, its boxes and its mask.

    python docs/draw_transforms.py

Everything passes through a recipe's own options, as `--set` gives them, on shards of a painted world.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from ufo_large.config import apply_overrides
from ufo_large.data.collate import collate
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.shards import ShardSet
from ufo_large.data.synthetic import WorldSizes, write_world
from ufo_large.data.transforms import hermetic
from ufo_large.media.drawing import class_color
from ufo_large.recipes import load_recipe
from ufo_large.structures import BoxTargets, MaskTargets

OUT = Path(__file__).parent / "transforms.jpg"
CANVAS = (144, 216)
BARE = {
    "classification": ("scale=[1.0, 1.0]", "ratio=[1.4, 1.4]", "flip=0", "colour=0", "mixup=0"),
    "detection": ("scale=[1.0, 1.0]", "focus=0", "colour=0"),
    "segmentation": ("scale=[1.0, 1.0]", "flip=0", "colour=0"),
}
ROWS = {
    "classification": ("", "scale=[0.35, 0.5]", "rand_augment=20", "erasing=1", "mixup=1", "cutmix=1"),
    "detection": ("", "scale=[1.6, 1.6]", "focus=1 scale=[2.5, 2.5]", "flip=1", "mosaic=1", "copy_paste=6"),
    "segmentation": (
        "",
        "scale=[0.6, 0.6]",
        "scale=[1.8, 1.8]",
        "scale=[1.8, 1.8] max_share=0.5",
        "flip=1",
        "colour=0.6",
    ),
}


def augmented(shards: ShardSet, kind: str, options: str, seed: int):
    """Return a batch of two made with the recipe `mini` and these options of its transform."""
    prefix = f"tasks.{kind}.loader"
    wanted = [*BARE[kind], *options.replace(", ", ",").split()]
    sets = [f"{prefix}.keep_aspect=true", *(f"{prefix}.transform.{option}" for option in wanted)]
    loader = apply_overrides(load_recipe("mini"), sets).tasks[kind].loader
    info = next(task for task in shards.tasks if task.kind == kind)
    reader = shards.split(info.name, "train")
    transform = loader.transform.build(reader, info, loader.keep_aspect)
    with hermetic(seed):
        raws = [reader.read(index) for index in (3, 4)]
        examples = [transform(raw, CANVAS) for raw in raws]
        return transform.mix(collate(info, examples, [raw.sample for raw in raws], CANVAS))


def drawn(batch) -> np.ndarray:
    """Return the first image, RGB, with its boxes or its mask."""
    picture = np.ascontiguousarray(batch.images_BCHW[0].permute(1, 2, 0).numpy()).repeat(2, 0).repeat(2, 1)
    if isinstance(batch.targets, BoxTargets):
        mine = batch.targets.image_index_N == 0
        boxes, labels = batch.targets.boxes_xyxy_N4[mine], batch.targets.labels_N[mine]
        for box, label in zip(boxes, labels, strict=True):
            x0, y0, x1, y1 = (2 * box).round().int().tolist()
            cv2.rectangle(picture, (x0, y0), (x1, y1), class_color(int(label)), 2)
    if isinstance(batch.targets, MaskTargets):
        mask = batch.targets.masks_BHW[0].numpy().repeat(2, 0).repeat(2, 1)
        colours = np.array([class_color(i) for i in range(255)] + [(255, 255, 255)], np.uint8)[mask]
        picture = cv2.addWeighted(picture, 0.5, colours, 0.5, 0)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the picture (%(default)s)")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        sizes = WorldSizes(cls=(16, 8, 1), dec=(12, 1, 1), seg=(8, 1, 1))
        write_world(Path(folder) / "world", 3, sizes)
        make_shards([Path(folder) / "world"], Path(folder) / "shards", ShardingOptions())
        shards = ShardSet.open(Path(folder) / "shards")
        figure, axes = plt.subplots(len(ROWS), 6, figsize=(15, 6.2), layout="constrained")
        for row, (kind, columns) in zip(axes, ROWS.items(), strict=True):
            for place, options in zip(row, columns, strict=True):
                place.imshow(drawn(augmented(shards, kind, options, seed=1)))
                place.set_title(options or f"{kind}: as it is", fontsize=9)
                place.axis("off")
        figure.savefig(out, dpi=90, pil_kwargs={"quality": 80, "optimize": True})
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
