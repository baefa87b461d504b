"""Classification by folders: ROOT/<split>/<class>/*.jpg, or ROOT/<class>/*.jpg for train alone."""

from pathlib import Path

from ufo_large.data.datasets.base import IMAGE_SUFFIXES, list_images
from ufo_large.data.datasets.split_names import report_unread, split_folders, subfolders
from ufo_large.structures import Example, Findings, Reporter, SourceTask, numbered_info

UNREAD_SUFFIXES = (".jfif", ".jpe", ".gif", ".heic", ".heif", ".avif", ".jp2", ".tga", ".pgm")


def is_image_folder(root: Path) -> bool:
    """True where folders of pictures lie under split folders, or directly under ROOT."""
    splits = split_folders(root)
    parents = list(splits.values()) if splits else [root]
    return any(list_images(child) for parent in parents for child in subfolders(parent))


def read_image_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Read an image folder; classes are the folder names of train in alphabetical order.

    A test folder with pictures but no class folders is a split without ground truth.
    """
    folders = split_folders(root)
    if folders:
        report_unread(subfolders(root), folders.values(), findings.at(task))
    folders = folders or {"train": root}
    first = folders.get("train") or next(iter(folders.values()))
    names = [folder.name for folder in subfolders(first)]
    for folder in (f for f in subfolders(first) if not list_images(f)):
        told = "no picture in it, so it is no class; add some, or move it out"
        findings.at(task).add("classes", f"{folder}: {told}", folder)
    info = numbered_info(task, "classification", dict(enumerate(names)))
    splits = {
        split: _read_split(folder, names, findings.at(task, split)) for split, folder in folders.items()
    }
    return SourceTask(info, splits)


def _report_passed_over(folder: Path, report: Reporter) -> None:
    """Report folders and pictures of other formats in a class folder: they would be lost without a word."""
    unread = [p for p in folder.iterdir() if p.is_dir() or p.suffix.lower() in UNREAD_SUFFIXES]
    names = sorted(p.name for p in unread if not p.name.startswith("."))
    if names:
        told = f"{folder}: {len(names)} folders or pictures in it are not read: {', '.join(names[:5])}"
        remedy = f"put pictures directly into it, as {', '.join(IMAGE_SUFFIXES)}, and move the rest out"
        report.add("unread", f"{told}; {remedy}", folder)


def _read_split(folder: Path, names: list[str], report: Reporter) -> list[Example]:
    found: list[tuple[str, Path, int | None]] = []
    for child in subfolders(folder):
        if child.name not in names:
            told = f"{child}: class folder {child.name!r} does not exist in train"
            report.add("label", f"{told}; rename it, or add pictures of it to train", child)
            continue
        _report_passed_over(child, report)
        label = names.index(child.name)
        found += [(f"{child.name}/{name}", path, label) for name, path in list_images(child).items()]
    if not found and report.split == "test":
        found = [(name, path, None) for name, path in list_images(folder).items()]
    else:
        _report_loose(folder, names, bool(found), report)
    return [
        Example(image=path, file_name=name, image_id=i, where=str(path), truth=label)
        for i, (name, path, label) in enumerate(found, 1)
    ]


def _report_loose(folder: Path, names: list[str], beside_classes: bool, report: Reporter) -> None:
    """Report pictures that lie in no class folder: they would be lost without a word."""
    if not (loose := list(list_images(folder))):
        return
    if beside_classes:
        told = f"{len(loose)} pictures lie beside the class folders: {', '.join(loose[:5])}"
        remedy = "move them into one, or out"
    else:
        told = "no class folders, so its pictures have no label"
        remedy = f"put them into {', '.join(names[:5])}"
    report.add("unread", f"{folder}: {told}; {remedy}", folder)
