"""ONNX graphs of each head, run by onnxruntime, against the model's own predictions of pictures."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torchvision.ops import box_iou

import ufo_large
from ufo_large.models.checkpointing import CHECKPOINTING
from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.onnx_check import check_onnx
from ufo_large.models.onnx_export import OnnxNetwork, export_onnx, require_graph
from ufo_large.structures import TaskBatch
from ufo_large.tasks import HEADS, TaskHead, head_class
from ufo_large.tasks.query_segmenter import QuerySegmenter
from ufo_large.testing.models import TINY_INFOS, TINY_TASKS, tiny_model
from ufo_large.testing.streets import street_batch

onnxruntime = pytest.importorskip("onnxruntime")
SIZE = (52, 76)  # no multiple of the patch
STORED = ((120, 170), (90, 61))
HEAD_OPTIONS = {
    "fcos": {"strides": (4, 8), "nms_threshold": 0.3},
    "detr": {"strides": (4, 8), "width": 32, "layers": 2, "heads": 4, "num_queries": 20, "feedforward": 32},
    "rf_detr": {"width": 32, "layers": 2, "heads": 4, "cross_heads": 4, "num_queries": 20, "feedforward": 32},
    "dense": {"strides": (4, 8)},
    "mask2former": {"strides": (4, 8, 16), "width": 16, "layers": 3, "heads": 2, "num_queries": 6},
    "eomt": {"blocks": 2, "num_queries": 6, "enlargements": 1},
    "dense_depth": {"strides": (4, 8)},
}
SLOW = [
    (kind, head)
    for kind, heads in HEADS.items()
    for head in heads
    if head not in ("linear", "fcos", "dense", "mask2former")
]


def model_of(kind: str, head: str) -> MultitaskModel:
    """Return a tiny model whose weights are far from their initial ones."""
    torch.manual_seed(0)
    base = tiny_model("task, all parts" if kind == "classification" else "task")
    heads = {**base.heads, kind: HEADS[kind][head].Config(**HEAD_OPTIONS.get(head, {}))}
    info = TINY_INFOS[kind]
    tasks = [*(other for other in TINY_TASKS if other.kind != kind), info]
    model = dataclasses.replace(base, heads=heads).build(tuple(tasks)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if isinstance(model.heads[info.name], QuerySegmenter):  # else all its queries say one class
            for matrix in (p for p in model.heads[info.name].parameters() if p.ndim > 1):
                matrix.mul_(8)
    return model


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def answers(path: Path, batch: TaskBatch) -> dict[str, torch.Tensor]:
    """Return what onnxruntime finds in a batch."""
    session = session_of(path)
    given = {"images": batch.images_BCHW.numpy(), "sizes": batch.sizes_B2.numpy()}
    given = {put.name: given[put.name] for put in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(torch.from_numpy, session.run(names, given)), strict=True))


def assert_same_boxes(found: dict[str, torch.Tensor], model: MultitaskModel, batch: TaskBatch) -> list[int]:
    """Return how many boxes each picture has. Measured: 2e-5 pixels of the picture, 4e-7 in score."""
    counts = []
    for i, wanted in enumerate(model.predict(batch)):
        height, width = batch.sizes_B2[i].tolist()
        scale = torch.tensor([wanted.sample.width / width, wanted.sample.height / height]).repeat(2)
        there = found["scores"][i] > 0
        boxes_N4 = found["boxes"][i][there] * scale
        torch.testing.assert_close(boxes_N4, wanted.boxes_xyxy_N4, atol=1e-3, rtol=0)
        torch.testing.assert_close(found["scores"][i][there], wanted.scores_N, atol=1e-5, rtol=0)
        assert torch.equal(found["labels"][i][there], wanted.labels_N)
        counts.append(len(boxes_N4))
    return counts


def assert_same(found: dict[str, torch.Tensor], model: MultitaskModel, batch: TaskBatch) -> None:
    """Compare with the predictions of pictures that are stored at the size that is shown."""
    for i, wanted in enumerate(model.predict(batch)):
        if "probabilities" in found:
            torch.testing.assert_close(found["probabilities"][i], wanted.scores_K, atol=1e-5, rtol=0)
        elif "labels" in found:
            assert (found["labels"][i] != wanted.mask_HW).float().mean() < 1e-3
            assert len(wanted.mask_HW.unique()) > 1
        else:
            torch.testing.assert_close(found["depth"][i], wanted.depth_HW, atol=1e-4, rtol=1e-4)


def test_fcos_and_its_suppression(tmp_path):
    """One graph for any number of pictures, also one in which nothing is found."""
    model, info, path = model_of("detection", "fcos"), TINY_INFOS["detection"], tmp_path / "dec.onnx"
    batch, fcos = street_batch(info, STORED, SIZE), model.heads["dec"].fcos
    with torch.no_grad():
        fcos.head.classification_head.cls_logits.weight.mul_(3)
    fcos.score_thresh = float(model.predict(batch)[-1].scores_N.max()) + 1e-3  # too much for a black picture
    export_onnx(model, "dec", SIZE, path)
    assert check_onnx(model, "dec", path).unit == "boxes"
    found = answers(path, batch)
    *counts, of_black = assert_same_boxes(found, model, batch)
    assert min(counts) > 3 and of_black == 0
    for boxes_N4, scores_N, labels_N in zip(*found.values(), strict=True):
        for label in range(info.num_classes):
            own = boxes_N4[(labels_N == label) & (scores_N > 0)]
            assert (box_iou(own, own) > 0.3).sum() == len(own)
    fcos.score_thresh = 0.01  # the model behind the file is another one now
    with pytest.raises(ValueError, match="differs from torch by .* boxes compared"):
        check_onnx(model, "dec", path)


@pytest.mark.parametrize("kind,head", [("classification", "linear"), ("segmentation", "dense")])
def test_a_graph_predicts_as_the_model_does(kind, head, tmp_path):
    """Nor does it hold anything of the machine that wrote it, or of the other tasks."""
    onnx = pytest.importorskip("onnx")
    model, info = model_of(kind, head), TINY_INFOS[kind]
    path = tmp_path / f"{info.name}.onnx"
    export_onnx(model, info.name, SIZE, path, {"task": '"x"'})
    assert check_onnx(model, info.name, path).difference < 1e-4
    batch = street_batch(info, [SIZE, SIZE], SIZE)
    assert_same(answers(path, batch), model, batch)
    written = path.read_bytes()
    assert str(Path(ufo_large.__file__).parent).encode() not in written and b"heads.dec" not in written
    file = onnx.load(path)
    parts = [file.graph, *file.graph.node, *file.graph.input, *file.graph.output]
    assert not any(part.metadata_props for part in parts)
    assert [(entry.key, entry.value) for entry in file.metadata_props] == [("task", '"x"')]
    with torch.no_grad():  # the model behind the file is another one now
        last = model.heads[info.name].linear if kind == "classification" else model.heads[info.name].classify
        last.weight.neg_()
    with pytest.raises(ValueError, match="differs from torch by .* do not use this file"):
        check_onnx(model, info.name, path)


@pytest.mark.slow
@pytest.mark.parametrize("kind,head", SLOW)
def test_every_other_head(kind, head, tmp_path):
    model, info = model_of(kind, head), TINY_INFOS[kind]
    path = tmp_path / f"{info.name}.onnx"
    export_onnx(model, info.name, SIZE, path)
    assert check_onnx(model, info.name, path).count
    if kind == "detection":
        batch = street_batch(info, STORED, SIZE)
        assert min(assert_same_boxes(answers(path, batch), model, batch)) > 3
    else:
        batch = street_batch(info, [SIZE, SIZE], SIZE)
        assert_same(answers(path, batch), model, batch)


@pytest.mark.slow
@pytest.mark.parametrize("kind,head", [("classification", "linear"), ("detection", "fcos")])
def test_padded_pictures_tell_their_sizes(kind, head, tmp_path):
    """As a run with keep_aspect shows them: the graph has a second input, and clips boxes to it."""
    model, info = model_of(kind, head), TINY_INFOS[kind]
    path = tmp_path / f"{info.name}.onnx"
    export_onnx(model, info.name, SIZE, path, is_padded=True)
    assert check_onnx(model, info.name, path).count
    batch = street_batch(info, STORED, SIZE, keep_aspect=True)
    assert len(batch.sizes_B2.unique(dim=0)) > 1
    (assert_same_boxes if kind == "detection" else assert_same)(answers(path, batch), model, batch)


def test_an_expert_beside_the_shared_mlp(tmp_path):
    model = tiny_model("residual").build(TINY_TASKS).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    export_onnx(model, "cls", (40, 44), tmp_path / "cls.onnx")
    assert check_onnx(model, "cls", tmp_path / "cls.onnx").difference < 1e-4


@torch.no_grad()
def test_positions_without_antialias_go_along(tmp_path):
    """5 x 6 patches where 4 x 4 are stored."""
    model = tiny_model("task", antialias=False).build(TINY_TASKS).eval()
    torch.nn.init.normal_(model.trunk.vit.pos_embed)
    torch.nn.init.normal_(model.heads["cls"].linear.weight)
    batch = street_batch(TINY_TASKS[0], [(40, 44)], (40, 44))
    network = OnnxNetwork(model, "cls", (40, 44)).eval()
    assert_same(network(batch.images_BCHW), model, batch)
    export_onnx(model, "cls", (40, 44), tmp_path / "cls.onnx")
    assert check_onnx(model, "cls", tmp_path / "cls.onnx").difference < 1e-4


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_windows_and_checkpointing_go_along(checkpointing, tmp_path):
    """Five by six patches in windows of three."""
    windows = {"window": 3, "global_blocks": (1,), "depth": 2}
    model = tiny_model("task", checkpointing=checkpointing, **windows).build(TINY_TASKS).eval()
    export_onnx(model, "seg", (40, 44), tmp_path / "seg.onnx")
    assert check_onnx(model, "seg", tmp_path / "seg.onnx").difference < 1e-3


class Silent(TaskHead):
    """A head that does not say what a graph of it would answer."""

    kind = "classification"


def test_what_cannot_become_onnx_is_said(tmp_path):
    with pytest.raises(ValueError, match="'cls': Silent cannot become ONNX, because it has no graph_outputs"):
        require_graph(Silent, TINY_TASKS[0])
    for heads in HEADS.values():
        for head in heads.values():
            assert head_class(head.Config()) is head
            require_graph(head, TINY_TASKS[0])
    sparse = tiny_model("token_topk").build(TINY_TASKS)
    with pytest.raises(ValueError, match="no dense MLP equals that"):
        export_onnx(sparse, "cls", (32, 32), tmp_path / "cls.onnx")
    with pytest.raises(ValueError, match="at least one pixel"):
        export_onnx(sparse, "seg", (0, 44), tmp_path / "seg.onnx")
