"""Cityscapes: leftImg8bit/<split>/<city>/*_leftImg8bit.png with gtFine/<split>/<city>/*_gtFine_label*.png."""

from pathlib import Path

from ufo_large.data.datasets.contest_seg import SEGMENTATION_NAMES
from ufo_large.data.datasets.pairs import Files, by_frame, masked_source
from ufo_large.data.shard_index import SPLITS
from ufo_large.kinds.masks import MaskCoding
from ufo_large.structures import IGNORE_INDEX, Findings, SourceTask

# the label id of each train id 0..18; the other ids up to 33 are ignored in training
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
MAX_LABEL_ID = 33
PICTURE, TRAIN_IDS, IDS = "_leftImg8bit", "_gtFine_labelTrainIds", "_gtFine_labelIds"


def is_cityscapes_folder(root: Path) -> bool:
    return (root / "leftImg8bit").is_dir()


def read_cityscapes_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Read Cityscapes with its 19 train ids, from labelTrainIds files where there are any, else labelIds."""
    mask_root = root / "gtFine"
    ending = TRAIN_IDS if any(mask_root.glob(f"*/*/*{TRAIN_IDS}.png")) else IDS
    if ending == TRAIN_IDS:
        coding = MaskCoding.identity(len(LABEL_IDS))
    else:
        ignored = dict.fromkeys(range(MAX_LABEL_ID + 1), IGNORE_INDEX)
        coding = MaskCoding.from_values({**ignored, **{v: i for i, v in enumerate(LABEL_IDS)}})
    pairs: dict[str, tuple[Files, Files | None]] = {}
    for split in SPLITS:
        if (root / "leftImg8bit" / split).is_dir():
            masks = by_frame(mask_root / split, ending) if (mask_root / split).is_dir() else {}
            unlabeled = split == "test" and not masks
            pairs[split] = (by_frame(root / "leftImg8bit" / split, PICTURE), None if unlabeled else masks)
    return masked_source(task, dict(enumerate(SEGMENTATION_NAMES)), coding, pairs, findings)
