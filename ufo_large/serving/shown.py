"""A result for the web page: what each kind draws and says, as JSON values with pictures as data URLs."""

import base64
from typing import Any

import numpy as np

from ufo_large.kinds import kind_of
from ufo_large.media.drawing import fit
from ufo_large.media.pictures import encode_jpeg
from ufo_large.serving.result import JPEG_QUALITY, Result

COLUMNS = 2


def files_of(result: Result) -> dict[str, dict[str, str]]:
    """Return the tasks' files (masks, depth maps): their ending, and their content as base64."""
    return {
        task: {"ending": ending, "base64": base64.b64encode(data).decode()}
        for task, (ending, data) in result.files_by_task().items()
    }


def drawn_of(result: Result) -> dict[str, Any]:
    """Return the plain picture, and per task the kind's drawing with its words.

    `layered`: the drawing has the plain picture's size, so that a page can blend the two.
    """
    examples = result.examples(COLUMNS)
    plain, _ = fit(examples[0].image_HW3, examples[0].long_side)
    found = {}
    for example in examples:
        ((card, picture),) = kind_of(example.info).draw([example])
        found[card.task] = {
            "kind": card.kind,
            "headline": card.headline,
            "bars": card.bars,
            "legend": card.legend,
            "details": card.details,
            "layered": picture.shape == plain.shape and not np.array_equal(picture, plain),
            "picture": _data_url(picture),
        }
    return {"picture": _data_url(plain), "tasks": found}


def _data_url(picture_HW3: np.ndarray) -> str:
    data = encode_jpeg(picture_HW3, JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
