"""Pair pictures with their masks by name; never by position."""

from pathlib import Path

from ufo_large.data.datasets.base import FIX_REMEDY, Example, MaskCoding, Reporter, list_images


def pair_masks(
    images: dict[str, Path],
    masks: dict[str, Path] | None,
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
            report.add("missing", f"{path}: no picture named {stem}; add it, or {FIX_REMEDY}", path)
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


def by_stem(folder: Path, report: Reporter, endings: tuple[str, ...] = ()) -> dict[str, Path]:
    """List a folder's pictures by stem, with one of `endings` cut off; two of one stem are reported."""
    found: dict[str, Path] = {}
    for path in list_images(folder).values():
        stem = next((path.stem.removesuffix(e) for e in endings if path.stem.endswith(e)), path.stem)
        if found.setdefault(stem, path) != path:
            report.add("duplicate", f"{path}: {found[stem].name} has the same stem; keep one", path)
    return found
