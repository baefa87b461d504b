"""Pair pictures with their masks by name; never by position."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ufo_large.data.datasets.base import list_images
from ufo_large.kinds.masks import MaskCoding, MaskFile
from ufo_large.structures import FIX_REMEDY, Example, Findings, Reporter, SourceTask, numbered_info

Files = dict[str, Path]


def pair_masks(
    images: Files,
    masks: Files | None,
    coding: MaskCoding,
    report: Reporter,
) -> list[Example]:
    """Return one example per picture; see `paired_examples`."""
    truth = lambda stem: MaskFile(path=masks[stem], coding=coding)
    return paired_examples(images, masks, truth, "mask", report)


def paired_examples(
    images: Files, maps: Files | None, truth: Callable[[str], Any], what: str, report: Reporter
) -> list[Example]:
    """Return one example per picture, sorted as `images`; both dicts map a pairing stem to a file.

    `truth(stem)` is the annotation of a pair. `maps` None means a split without ground truth. A picture
    without its map (`what` it is called), or a map without picture, is reported and left out.
    """
    wanted = images if maps is None else {stem: p for stem, p in images.items() if stem in maps}
    for stem, path in images.items():
        if stem not in wanted:
            report.add("missing", f"{path}: no {what} named {stem}; add it, or {FIX_REMEDY}", path)
    for stem, path in (maps or {}).items():
        if stem not in images:
            told = f"{path}: no picture named {stem}; add it, or {FIX_REMEDY}"
            report.add("missing", told, path, keeps_images=True)
    return [
        Example(
            image=path,
            file_name=path.name,
            image_id=number,
            where=str(path),
            truth=None if maps is None else truth(stem),
        )
        for number, (stem, path) in enumerate(wanted.items(), 1)
    ]


def masked_source(
    task: str,
    names: dict[int, str],
    coding: MaskCoding,
    pairs: dict[str, tuple[Files, Files | None]],
    findings: Findings,
) -> SourceTask:
    """Build a segmentation source from each split's (pictures, masks) by pairing stem."""
    splits = {
        split: pair_masks(images, masks, coding, findings.at(task, split))
        for split, (images, masks) in pairs.items()
    }
    return SourceTask(numbered_info(task, "segmentation", names), splits)


def by_stem(folder: Path, report: Reporter, ending: str = "") -> Files:
    """List a folder's pictures by stem; those that end in `ending`, cut off. Two of one stem are reported."""
    found: Files = {}
    for path in list_images(folder).values():
        if not path.stem.endswith(ending):
            continue
        stem = path.stem.removesuffix(ending)
        if found.setdefault(stem, path) != path:
            report.add("duplicate", f"{path}: {found[stem].name} has the same stem; keep one", path)
    return found


def by_frame(folder: Path, ending: str, suffix: str = "png") -> Files:
    """Map Cityscapes' <city>_<sequence>_<frame> to its file; cities are subfolders."""
    return {p.stem.removesuffix(ending): p for p in sorted(folder.glob(f"*/*{ending}.{suffix}"))}
