"""Segmentation in the contest's layout: seg/images/<split>/ with seg/label/<split>/, paired by stem."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ufo_large.data.datasets.base import joined
from ufo_large.data.datasets.pairs import Files, by_stem, pair_masks
from ufo_large.data.shard_index import SPLITS
from ufo_large.kinds import kind_of
from ufo_large.kinds.contest_classes import SEGMENTATION_NAMES
from ufo_large.kinds.masks import MaskCoding
from ufo_large.media.pictures import inspect_file, mask_facts
from ufo_large.structures import (
    IGNORE_INDEX,
    Example,
    Findings,
    Reporter,
    SourceTask,
    TaskInfo,
    numbered_info,
)

SKY = SEGMENTATION_NAMES.index("sky")
CONTEST_CLASSES = numbered_info("seg", "segmentation", dict(enumerate(SEGMENTATION_NAMES)))


def read_contest_seg(
    folders: list[Path],
    task: str,
    findings: Findings,
    names: Mapping[int, str] | None,
    known: TaskInfo | None,
) -> SourceTask:
    """Read the seg/ folders of all roots. Classes: `known`, else `names`, else what the masks hold."""
    found: list[tuple[str, Files, Files | None]] = []
    for folder in folders:
        for split in SPLITS:
            images, masks = folder / "images" / split, folder / "label" / split
            if images.is_dir():
                report = findings.at(task, split)
                labels = by_stem(masks, report) if masks.is_dir() or split != "test" else None
                found.append((split, by_stem(images, report), labels))
    if known is None and names is None:
        names = _names_in_masks(found, folders[0], findings.at(task))
    info = known or numbered_info(task, "segmentation", dict(names))
    coding = MaskCoding.from_values({number: label for label, number in enumerate(info.class_ids)})
    splits: dict[str, list[Example]] = {}
    for split, images, labels in found:
        examples = pair_masks(images, labels, coding, findings.at(task, split))
        splits[split] = joined(splits.get(split, []), examples, kind_of(info).answer_name)
    return SourceTask(info, splits)


def _names_in_masks(
    found: list[tuple[str, Files, Files | None]], folder: Path, report: Reporter
) -> dict[int, str]:
    """Return the classes that the masks of train use, or those of every split where train has none.

    0..K-1 without a gap are K classes of the user's own numbering. Ids with a gap are part of a longer list:
    the contest's 19, if they lie within it and reach sky (10), as street scenes do. Anything else is
    reported. Without any mask the list is the contest's.
    """
    masks = [(split, file) for split, _, labels in found for file in (labels or {}).values()]
    in_train = [file for split, file in masks if split == "train"]
    values = _values_of(in_train or [file for _, file in masks])
    contest, own = set(range(len(SEGMENTATION_NAMES))), set(range(len(values)))
    if values == own != contest and len(values) > 1:
        return {value: str(value) for value in sorted(values)}
    if not values <= contest or (values and max(values) < SKY):
        shown = ", ".join(map(str, sorted(values)[:10])) + (", ..." if len(values) > 10 else "")
        remedy = f'write {folder / "classes.txt"}, "<value> <name>" a line, or give --classes {report.task}=N'
        report.add(
            "classes", f"{folder}: its masks hold {shown}, and nothing says what it means; {remedy}", folder
        )
        return {value: str(value) for value in sorted(values)}
    return dict(enumerate(SEGMENTATION_NAMES))


def _values_of(masks: Iterable[Path]) -> set[int]:
    """Return the values that occur, ignore left out; unreadable files are reported when all are checked."""
    values: set[int] = set()
    for file in masks:
        values.update(inspect_file(file, mask_facts).values.keys() - {IGNORE_INDEX})
        if values == set(range(len(SEGMENTATION_NAMES))):
            break  # the contest's list; a value beyond it is reported by its file
    return values
