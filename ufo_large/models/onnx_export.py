"""One task of the model as an ONNX graph: uint8 images in, probabilities or a label map out.

Legend: B images, C channels, H W pixels, K classes.
"""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.positions import move_to_grid
from ufo_large.structures import TaskBatch
from ufo_large.tasks import TaskHead
from ufo_large.tasks.classification_linear import LinearClassifier
from ufo_large.tasks.pyramid_fusion import enlarge
from ufo_large.tasks.segmentation_dense import DenseSegmenter


@torch.no_grad()  # else checkpointing would wrap the blocks
def export_onnx(model: MultitaskModel, task: str, size: tuple[int, int], path: Path) -> None:
    """Write `task` for RGB images of (height, width) `size`; the number of images stays free.

    Input `images`: uint8 [B, 3, H, W]. Output `probabilities`, float32 [B, K], for a classifier;
    `labels`, int64 [B, H, W], for segmentation. Raises ValueError for a head or routing that has no fixed
    graph, or a size below one pixel.
    """
    if min(size) < 1:
        raise ValueError(f"--size {size[0]} {size[1]}: give a height and a width of at least one pixel")
    network = OnnxNetwork(model, task, size).eval()
    example = torch.zeros(2, 3, *size, dtype=torch.uint8)
    program = torch.onnx.export(
        network,
        (example,),
        input_names=["images"],
        output_names=[network.output],
        dynamic_shapes={"images_BCHW": {0: torch.export.Dim("batch")}},
        dynamo=True,
        verbose=False,
    )
    _clear_metadata(program)
    program.save(str(path), external_data=False)


def _clear_metadata(program: torch.onnx.ONNXProgram) -> None:
    """Drop what the exporter notes on nodes and values: this machine's paths, all tasks' parameter names."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(program.model)
    graph = program.model.graph
    made = [value for node in graph.all_nodes() for value in node.outputs]
    for value in [*graph.inputs, *graph.initializers.values(), *made]:
        value.metadata_props.clear()


class OnnxNetwork(nn.Module):
    """The task's path through a copy of the model, for one input size, normalisation included."""

    def __init__(self, model: MultitaskModel, task: str, size: tuple[int, int]):
        super().__init__()
        self.output = _output(model.heads[task])
        self.task, self.size = task, size
        self.model = copy.deepcopy(model).float()
        stride = self.model.trunk.stride
        vit = self.model.trunk.vit
        for place, bank in self.model.trunk.banks().items():
            vit.set_submodule(place, bank.path(task))
        grid = tuple(-(-side // stride) for side in size)
        move_to_grid(vit, grid, self.model.trunk.config.is_antialiased)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        height, width = self.size
        sizes_B2 = torch.tensor([self.size]).expand(images_BCHW.shape[0], 2)
        batch = TaskBatch(self.task, images_BCHW, sizes_B2, None, ())
        outputs = self.model.outputs(batch)
        if self.output == "probabilities":
            return outputs["logits_BK"].softmax(-1)
        stride = self.model.heads[self.task].strides[0]
        return enlarge(outputs["logits_BKHW"], stride)[..., :height, :width].argmax(1)


def _output(head: TaskHead) -> str:
    if isinstance(head, LinearClassifier):
        return "probabilities"
    if isinstance(head, DenseSegmenter):
        return "labels"
    raise ValueError(
        f"task {head.info.name!r}: {type(head).__name__} cannot become ONNX, only LinearClassifier and "
        "DenseSegmenter can; use --to timm for its trunk or --to safetensors for everything"
    )


def check_onnx(model: MultitaskModel, task: str, path: Path) -> float:
    """Return how far onnxruntime is from torch on random images: in probability, or in share of pixels.

    Raises ValueError beyond 1e-3.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    size = tuple(session.get_inputs()[0].shape[2:])
    images = torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8)
    (theirs,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        ours = OnnxNetwork(model, task, size).eval()(images).numpy()
    difference = float(abs(theirs - ours).max() if ours.dtype.kind == "f" else (theirs != ours).mean())
    if not difference <= 1e-3:
        raise ValueError(f"{path}: onnxruntime differs from torch by {difference:.1e}; do not use this file")
    return difference
