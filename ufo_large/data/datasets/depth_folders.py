"""Depth estimation by folders: images/ beside depth/ with depth.json, and Cityscapes' disparities.

images/<split>/* with depth/<split>/*.png of 16 bit, paired by stem; depth.json says {"units_per_metre": u}:
value / u is metres, 0 = missing (NYUv2: 1000, KITTI: 256), and perhaps "max_metres", beyond which depth
counts as missing. Without split folders all is train.

Cityscapes: leftImg8bit/<split>/<city>/ with disparity/ and camera/ of the same form, where there is no
gtFine/ or a depth.json asks for it.
"""

import math
from pathlib import Path
from typing import Any

from ufo_large.config import read_json
from ufo_large.data.datasets.pairs import by_frame, by_stem, paired_examples
from ufo_large.data.datasets.split_names import report_unread, split_folders, splits_among, subfolders
from ufo_large.kinds.depth import CITYSCAPES_UNITS, DepthFile
from ufo_large.structures import FIX_REMEDY, Example, Findings, Reporter, SourceTask, TaskInfo

MARKER = "depth.json"
KEYS = {"units_per_metre", "max_metres"}
PICTURE, DISPARITY, CAMERA = "_leftImg8bit", "_disparity", "_camera"


def is_depth_folder(root: Path) -> bool:
    if (root / MARKER).is_file():
        return True
    return (
        (root / "leftImg8bit").is_dir() and (root / "disparity").is_dir() and not (root / "gtFine").is_dir()
    )


def read_depth_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Read a folder of pictures and depth maps. Raises ValueError where depth.json is not as above."""
    options = _read_marker(root / MARKER)
    info = TaskInfo(name=task, kind="depth")
    if (root / "disparity").is_dir():
        return SourceTask(info, _cityscapes_splits(root, options, findings, task))
    if "units_per_metre" not in options:
        told = f"{root / MARKER}: says no units_per_metre; write 1000 for millimetres, 256 as in KITTI"
        raise ValueError(told)
    folders = subfolders(root / "images")
    splits = splits_among((folder.name, folder) for folder in folders)
    if splits:
        report_unread(folders, splits.values(), findings.at(task))
    places = {split: (folder, root / "depth" / folder.name) for split, folder in splits.items()}
    places = places or {"train": (root / "images", root / "depth")}
    return SourceTask(
        info, {s: _read_split(*place, options, findings.at(task, s)) for s, place in places.items()}
    )


def _read_split(images: Path, depths: Path, options: dict[str, Any], report: Reporter) -> list[Example]:
    unlabeled = report.split == "test" and not depths.is_dir()
    files = None if unlabeled else by_stem(depths, report)
    truth = lambda stem: DepthFile(path=files[stem], **options)
    return paired_examples(by_stem(images, report), files, truth, "depth map", report)


def _cityscapes_splits(
    root: Path, options: dict[str, Any], findings: Findings, task: str
) -> dict[str, list[Example]]:
    splits = split_folders(root / "leftImg8bit")
    found = {}
    for split, folder in splits.items():
        report = findings.at(task, split)
        depths = by_frame(root / "disparity" / folder.name, DISPARITY, "png")
        cameras = by_frame(root / "camera" / folder.name, CAMERA, "json")
        scales = {stem: _focal_baseline(cameras.get(stem), path, report) for stem, path in depths.items()}
        files = {stem: path for stem, path in depths.items() if scales[stem] is not None}
        limit = options.get("max_metres")
        truth = lambda stem, files=files, scales=scales, limit=limit: DepthFile(
            path=files[stem],
            units_per_metre=CITYSCAPES_UNITS,
            max_metres=limit,
            focal_baseline=scales[stem],
        )
        unlabeled = split == "test" and not depths
        pictures = by_frame(folder, PICTURE, "png")
        found[split] = paired_examples(pictures, None if unlabeled else files, truth, "disparity", report)
    return found


def _focal_baseline(camera: Path | None, disparity: Path, report: Reporter) -> float | None:
    """Return focal length (px) x baseline (m) of a camera file; None, and reported, where it has none."""
    try:
        content = read_json(camera, "copy it again") if camera else {}
        scale = float(content["intrinsic"]["fx"]) * float(content["extrinsic"]["baseline"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        where = camera or disparity
        told = "no intrinsic.fx and extrinsic.baseline" if camera else "no camera file of this frame"
        report.add("camera", f"{where}: {told} ({error!r}); {FIX_REMEDY}", where)
        return None
    if not 0 < scale < math.inf:
        report.add("camera", f"{camera}: fx x baseline is {scale}; both must be above 0", camera)
        return None
    return scale


def _read_marker(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    options = read_json(file, 'write {"units_per_metre": 1000}')
    known = isinstance(options, dict) and options.keys() <= KEYS
    numbers = known and all(isinstance(v, int | float) and 0 < v < math.inf for v in options.values())
    if not numbers or any(isinstance(v, bool) for v in options.values()):
        raise ValueError(f"{file}: {options!r}; write positive numbers for {' and '.join(sorted(KEYS))}")
    return options
