"""One task of the model as an ONNX graph: uint8 images in, what its head answers out.

Legend: B images, C channels, H W pixels, K classes, N boxes, M boxes that stay.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.positions import move_to_grid
from ufo_large.structures import TaskBatch, TaskInfo
from ufo_large.tasks import TaskHead

IMAGES, SIZES = "images", "sizes"


def require_graph(head: type[TaskHead], info: TaskInfo) -> None:
    """Raise ValueError for a head that does not say what a graph of it would answer."""
    if head.graph_outputs is TaskHead.graph_outputs:
        raise ValueError(
            f"task {info.name!r}: {head.__name__} cannot become ONNX, because it has no graph_outputs; use "
            "--to timm for its trunk or --to safetensors for everything"
        )


@torch.no_grad()  # else checkpointing would wrap the blocks
def export_onnx(
    model: MultitaskModel,
    task: str,
    size: tuple[int, int],
    path: Path,
    about: Mapping[str, str] | None = None,
    is_padded: bool = False,
) -> None:
    """Write `task` for RGB images of (height, width) `size`; the number of images stays free.

    Input `images`: uint8 [B, 3, H, W]; with `is_padded` also `sizes`: int64 [B, 2], the (height, width) of
    the part of each that is not padding. Outputs: what the head's `graph_outputs` names. `about`: the
    metadata of the file. Raises ValueError for a head or routing that has no fixed graph, or a size below one
    pixel.
    """
    if min(size) < 1:
        raise ValueError(f"--size {size[0]} {size[1]}: give a height and a width of at least one pixel")
    require_graph(type(model.heads[task]), model.tasks[task])
    network = OnnxNetwork(model, task, size).eval()
    example = (torch.zeros(2, 3, *size, dtype=torch.uint8),)
    if is_padded:
        example += (torch.tensor([size, size]),)
    batch = torch.export.Dim("batch")
    names = (IMAGES, SIZES)[: len(example)]
    program = torch.onnx.export(
        network,
        example,
        input_names=list(names),
        output_names=list(network(*example)),
        dynamic_shapes=dict.fromkeys(("images_BCHW", "sizes_B2")[: len(example)], {0: batch}),
        dynamo=True,
        verbose=False,
        custom_translation_table={torch.ops.ufo.without_doubles.default: _non_max_suppression},
    )
    if isinstance(program.model.graph.inputs[0].shape[0], int):
        raise ValueError(f"task {task!r}: the exporter has fixed the number of images to that of its example")
    _clear_metadata(program)
    program.model.metadata_props.clear()
    program.model.metadata_props.update(about or {})
    program.save(str(path), external_data=False)


def _clear_metadata(program: torch.onnx.ONNXProgram) -> None:
    """Drop what the exporter notes on nodes and values: this machine's paths, all tasks' parameter names."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(program.model)
    graph = program.model.graph
    made = [value for node in graph.all_nodes() for value in node.outputs]
    for value in [*graph.inputs, *graph.initializers.values(), *made]:
        value.metadata_props.clear()


def _non_max_suppression(boxes_BN4: Any, scores_BKN: Any, threshold: float, most: int) -> Any:
    """Say `without_doubles` in ONNX, whose suppression lists (image, class, box) of what stays, [M, 3]."""
    from onnxscript import opset18 as onnx

    most_1, threshold_1 = onnx.Constant(value_ints=[most]), onnx.Constant(value_floats=[threshold])
    index_M3 = onnx.NonMaxSuppression(
        boxes_BN4, scores_BKN, most_1, threshold_1, onnx.Constant(value_floats=[0.0])
    )
    zero = onnx.Constant(value_int=0)
    true_M = onnx.GreaterOrEqual(onnx.Gather(index_M3, zero, axis=1), zero)
    none_BKN = onnx.Less(scores_BKN, onnx.Constant(value_float=0.0))
    return onnx.ScatterND(none_BKN, index_M3, true_M)


class OnnxNetwork(nn.Module):
    """The task's path through a copy of the model, for one input size, normalisation included."""

    def __init__(self, model: MultitaskModel, task: str, size: tuple[int, int]):
        super().__init__()
        self.task, self.size = task, size
        self.model = copy.deepcopy(model).float()
        stride = self.model.trunk.stride
        vit = self.model.trunk.vit
        for place, bank in self.model.trunk.banks().items():
            vit.set_submodule(place, bank.path(task))
        grid = tuple(-(-side // stride) for side in size)
        move_to_grid(vit, grid, self.model.trunk.config.is_antialiased)

    def forward(self, images_BCHW: Tensor, sizes_B2: Tensor | None = None) -> dict[str, Tensor]:
        if sizes_B2 is None:
            sizes_B2 = torch.tensor([self.size]).expand(images_BCHW.shape[0], 2)
        batch = TaskBatch(self.task, images_BCHW, sizes_B2, None, ())
        return self.model.heads[self.task].graph_outputs(self.model.outputs(batch), batch)
