"""What an ONNX file says of itself: JSON texts in its `metadata_props`."""

import json

from ufo_large.models.multitask import MultitaskModel
from ufo_large.runs.folder import SavedRun
from ufo_large.serving.model_card import preprocessing_of_task
from ufo_large.structures import TaskInfo

FORMAT = "ufo-large-onnx/1"


def onnx_metadata(
    model: MultitaskModel, saved: SavedRun, info: TaskInfo, size: tuple[int, int]
) -> dict[str, str]:
    """Return the metadata of the graph of a task for inputs of (height, width) `size`.

    `preprocessing`: how the run's evaluation prepares a picture, at the graph's own size; mean and deviation,
    of values from 0 to 1, are those that the graph itself applies.
    """
    own = model.trunk.vit.pretrained_cfg
    preprocessing = preprocessing_of_task(saved, info) | {
        "height": size[0],
        "width": size[1],
        "colour_order": "RGB",
        "layout": "NCHW",
        "dtype": "uint8",
        "range": [0, 255],
        "mean": list(own["mean"]),
        "std": list(own["std"]),
        "normalised_by": "the graph",
    }
    facts = {
        "format": FORMAT,
        "task": info.name,
        "kind": info.kind,
        "class_names": list(info.class_names),
        "class_ids": list(info.class_ids),
        "preprocessing": preprocessing,
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}
