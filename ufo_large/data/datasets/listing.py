"""Text lists of images, a file name (and perhaps a class id) a line."""

from pathlib import Path

from ufo_large.data.datasets.base import list_images, numbered_lines
from ufo_large.structures import FIX_REMEDY, Example, Reporter


def read_image_list(file: Path, folder: Path, report: Reporter, with_labels: bool) -> list[Example]:
    """Read "<name>" or "<name> <class id>" lines; labels stay the user's ids.

    A line that does not parse, or names a missing image or one twice, is reported and left out. The
    image_id is the position in the list, 1-based.
    """
    present = list_images(folder)
    examples: dict[str, Example] = {}
    for position, (line, text) in enumerate(numbered_lines(file, report), 1):
        name, label = split_label(text) if with_labels else (text, None)
        where = f"{file}:{line}"
        if not name or (with_labels and label is None):
            report.add("label", f'{where}: cannot read {text!r}; write "<image name> <class id>"', file)
        elif name in examples:
            report.add("duplicate", f"{where}: {name} stands twice; {FIX_REMEDY}", folder / name)
        elif name not in present:
            report.add(
                "missing", f"{where}: {name} is not in {folder}; copy it or {FIX_REMEDY}", folder / name
            )
        else:
            examples[name] = Example(
                image=present[name], file_name=name, image_id=position, where=where, truth=label
            )
    return list(examples.values())


def split_label(text: str) -> tuple[str, int | None]:
    """Split "<name> <class id>" at its last blank; the class is None where there is no number."""
    name, _, label = text.replace("\t", " ").rpartition(" ")
    return name.strip(), int(label) if label.isdecimal() else None
