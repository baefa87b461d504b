"""The contest's submission file: one JSON that answers for every test image.

    {"cls": [{"<image>": <class id>}, ...],
     "dec": [{"image_id": 1, "category_id": 37, "bbox": [x, y, w, h], "score": s}, ...],
     "seg": [{"<stem>.png": {"<class id>": [[[x, y], ...], ...], ...}}, ...]}

This is the form that the official scorer reads. `image_id` is the 1-based line in dec/test.txt (without
that file: the place in dec/test.json). A class of a mask is a flat list of rings, outer ones and holes, in
pixels of the image. The keys are the names of the tasks; the form is that of a task's kind (`Kind.entries`).
Tasks of a kind without a form are not in the file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ufo_large.config import write_whole


def write_submission(file: str | Path, entries: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write the file whole or not at all. Raises ValueError for a number that JSON does not have (nan)."""
    with write_whole(Path(file)) as unfinished, unfinished.open("w", encoding="utf-8") as stream:
        json.dump(entries, stream, separators=(",", ":"), allow_nan=False)
