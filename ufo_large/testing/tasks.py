"""The contract of a task head: what every head must do, whatever it does inside. The scene: `scenes.py`.

Legend: B images, D trunk width, P pyramid width, N boxes, H W height and width of the padded input.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ufo_large.kinds import kind_of
from ufo_large.structures import Features, TaskBatch, on_cpu
from ufo_large.tasks import TaskHead
from ufo_large.testing.scenes import PADDED, Scene, scene_of

TRUNK_WIDTH, PYRAMID_WIDTH, TRUNK_STRIDE = 24, 32, 16
_DECODER = {"width": 32, "heads": 2, "feedforward": 64}
SMALL_DECODERS: dict[str, dict[str, Any]] = {
    "detr": {**_DECODER, "layers": 2, "num_queries": 12, "groups": 2},
    "rf_detr": {**_DECODER, "layers": 2, "cross_heads": 2, "num_queries": 12, "groups": 2},
    "mask2former": {**_DECODER, "strides": (4, 8, 16), "layers": 3, "num_queries": 6, "num_points": 512},
    "eomt": {"num_queries": 6, "num_points": 512},
}
"""Options of the heads with queries that make them a matter of milliseconds."""
RightOutputs = Callable[[TaskHead, Features, TaskBatch], dict[str, Any]]


def scene_features(strides: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Features:
    """Return random features that record gradients."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    height, width = PADDED
    return Features(
        pooled_BD=leaf(3, TRUNK_WIDTH),
        map_BDHW=leaf(3, TRUNK_WIDTH, height // TRUNK_STRIDE, width // TRUNK_STRIDE),
        stride=TRUNK_STRIDE,
        image_size=PADDED,
        pyramid={s: leaf(3, PYRAMID_WIDTH, -(-height // s), -(-width // s)) for s in strides},
    )


def features_for(head: TaskHead, dtype: torch.dtype = torch.float32, seed: int = 0) -> Features:
    """Return random features for `head`; its queries, if any, come with something of each image added."""
    features, queries = scene_features(head.strides, dtype, seed), head.trunk_queries()
    if queries is None:
        return features
    generator = torch.Generator().manual_seed(seed + 1)
    of_images = torch.randn(3, *queries.tokens_QD.shape, generator=generator).to(dtype)
    return features._replace(queries_BQD=queries.tokens_QD + of_images)


def check_task(
    head: TaskHead, right_outputs: RightOutputs, tolerance: float = 0.02, scene: Scene | None = None
) -> None:
    """Assert that `head`, built for the scene's task at the widths above, keeps the contract of TaskHead.

    `right_outputs(head, features, batch)` writes the raw outputs of a perfect network; their loss must
    stay below `tolerance` and their predictions must be the targets, in pixels of the stored images. `scene`
    is that of the head's kind unless given.
    """
    scene = scene or scene_of(head.kind)
    batch = scene.batch()
    check_gradients(head, batch)
    if scene.empty is not None:
        check_gradients(head, scene.batch(scene.empty), nothing=True)
    check_right_answer(head, scene, right_outputs, tolerance)
    check_parameters_are_used_in_forward_only(head, batch)
    check_reports_nan(head, scene)
    check_gradients(copy.deepcopy(head).bfloat16(), batch, torch.bfloat16)


def check_gradients(
    head: TaskHead, batch: TaskBatch, dtype: torch.dtype = torch.float32, nothing: bool = False
) -> None:
    """Losses are finite float32 scalars by name; their sum reaches every parameter and all features read.

    `nothing`: the batch has nothing to learn, so that features may get a gradient of zeros.
    """
    head.zero_grad(set_to_none=True)
    features = features_for(head, dtype)
    losses = head.losses(head(features), batch)
    assert losses and all(name.isidentifier() for name in losses), f"loss names {list(losses)}"
    for name, loss in losses.items():
        assert loss.shape == () and loss.dtype == torch.float32 and loss.isfinite(), f"{name}: {loss}"
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), f"gradient of {name}"
    whole = [f for f in (features.pooled_BD, features.map_BDHW) if f.grad is not None]
    read = list(features.pyramid.values()) if head.strides else whole
    assert read, "the head reads no features"
    for map_BPHW in read:
        assert map_BPHW.grad is not None and map_BPHW.grad.isfinite().all()
        assert nothing or map_BPHW.grad.abs().sum() > 0, "features get no gradient"


def check_right_answer(head: TaskHead, scene: Scene, right_outputs: RightOutputs, tolerance: float) -> None:
    """The right answer costs almost nothing, another one much more; predictions are the targets again."""
    features, batch = features_for(head), scene.batch()
    outputs = right_outputs(head, features, batch)
    right = sum(head.losses(outputs, batch).values()).item()
    wrong = sum(head.losses(head(features), batch).values()).item()
    assert right < tolerance, f"the right answer costs {right}"
    assert wrong > 5 * tolerance, f"an untrained head pays only {wrong}"
    predictions = head.predict(outputs, batch)
    assert [p.sample for p in predictions] == list(batch.samples)
    for index, prediction in enumerate(predictions):
        scene.check(prediction, batch.targets, index)
    check_views(head, scene, outputs)


def check_views(head: TaskHead, scene: Scene, outputs: dict[str, Any]) -> None:
    """Predictions of several views that all are the targets are joined to the targets."""
    batch, kind = scene.batch(), kind_of(scene.info)
    for index, view in enumerate(head.predict(outputs, replace(batch, targets=None, keep_scores=True))):
        for fusion in kind.fusions:
            back = kind.mirrored(kind.mirrored(view))
            scene.check(kind.fused([on_cpu(view), on_cpu(back)], fusion), batch.targets, index)


def check_parameters_are_used_in_forward_only(head: TaskHead, batch: TaskBatch) -> None:
    """Losses and predictions still come out where parameters are away, as under ZeRO-3 after forward."""
    outputs = head(features_for(head))
    kept = [p.data for p in head.parameters()]
    for parameter in head.parameters():
        parameter.data = parameter.data.new_empty(0)
    try:
        head.losses(outputs, batch)
        assert len(head.predict(outputs, batch)) == len(batch)
    finally:
        for parameter, data in zip(head.parameters(), kept, strict=True):
            parameter.data = data


def check_reports_nan(head: TaskHead, scene: Scene) -> None:
    """NaN in features or targets raises nothing, makes every loss NaN and is named; the next pass is fine."""
    features = features_for(head)
    with torch.no_grad():
        for x in (features.pooled_BD, features.map_BDHW, *features.pyramid.values()):
            x.fill_(torch.nan)
    _check_all_nan(head, features, scene, scene.batch())
    if scene.broken is not None:
        _check_all_nan(head, features_for(head), scene, scene.batch(scene.broken))


def _check_all_nan(head: TaskHead, features: Features, scene: Scene, batch: TaskBatch) -> None:
    head = copy.deepcopy(head)
    assert head.watch.not_finite() == []
    losses = head.losses(head(features), batch)
    assert losses and all(loss.isnan() for loss in losses.values()), f"NaN was accepted: {losses}"
    assert head.watch.not_finite(), "nothing was named"
    head.zero_grad()
    sum(losses.values()).backward()  # the step goes on to the collectives of its backward pass
    losses = head.losses(head(features_for(head)), scene.batch())
    assert all(loss.isfinite() for loss in losses.values()), f"NaN of an earlier pass came back: {losses}"
