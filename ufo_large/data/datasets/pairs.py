"""Pair pictures with their masks by name; never by position."""

from pathlib import Path

from ufo_large.data.datasets.base import (
    FIX_REMEDY,
    Example,
    Findings,
    MaskCoding,
    Reporter,
    SourceTask,
    list_images,
    numbered_info,
)

Files = dict[str, Path]


def pair_masks(
    images: Files,
    masks: Files | None,
    coding: MaskCoding,
    report: Reporter,
) -> list[Example]:
    """Return one example a picture, sorted as `images`; both dicts map a pairing stem to a file.

    `masks` None means a split without ground truth. A picture without mask, or a mask without picture, is
    reported and left out.
    """
    wanted = images if masks is None else {stem: p for stem, p in images.items() if stem in masks}
    for stem, path in images.items():
        if stem not in wanted:
            report.add("missing", f"{path}: no mask named {stem}; add it, or {FIX_REMEDY}", path)
    for stem, path in (masks or {}).items():
        if stem not in images:
            told = f"{path}: no picture named {stem}; add it, or {FIX_REMEDY}"
            report.add("missing", told, path, keeps_images=True)
    return [
        Example(
            image=path,
            file_name=path.name,
            image_id=number,
            where=str(path),
            mask=None if masks is None else masks[stem],
            mask_coding=None if masks is None else coding,
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
