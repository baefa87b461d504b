"""The whole model: tasks through one trunk, each with its own experts, pyramid and head."""

from dataclasses import replace

import pytest
import torch

from ufo_large.config import apply_overrides
from ufo_large.structures import BoxPrediction, ClassPrediction, MaskPrediction, role_of
from ufo_large.tasks import HEADS
from ufo_large.testing.models import TINY_TASKS, task_info, tiny_batch, tiny_model

PREDICTIONS = {"cls": ClassPrediction, "dec": BoxPrediction, "seg": MaskPrediction}


@pytest.mark.parametrize("info", TINY_TASKS, ids=lambda i: i.name)
def test_each_task_has_finite_losses_and_predictions(info):
    model = tiny_model().build(TINY_TASKS)
    batch = tiny_batch(info)
    losses = model(batch)
    assert losses and all(torch.isfinite(v) and v.ndim == 0 for v in losses.values())
    predictions = model.eval().predict(replace(batch, targets=None))
    assert len(predictions) == len(batch)
    assert all(isinstance(p, PREDICTIONS[info.name]) for p in predictions)


@pytest.mark.parametrize("info", TINY_TASKS, ids=lambda i: i.name)
def test_a_task_moves_the_shared_parameters_and_its_own(info):
    model = tiny_model().build(TINY_TASKS)
    sum(model(tiny_batch(info)).values()).backward()
    for name, parameter in model.named_parameters():
        role = role_of(parameter)
        if role.task not in (None, info.name):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
        if name.startswith(("heads.", "pyramids.")):
            assert (role.kind, role.task) == ("head", name.split(".")[1])


def test_classification_has_no_pyramid_and_the_dense_tasks_their_own():
    model = tiny_model().build(TINY_TASKS)
    assert set(model.pyramids) == {"dec", "seg"}


def test_bf16_parameters_take_uint8_images():
    model = tiny_model().build(TINY_TASKS).bfloat16()
    for info in TINY_TASKS:
        assert all(torch.isfinite(v) for v in model(tiny_batch(info)).values())


def test_two_tasks_of_one_kind_share_a_config_but_no_parameter():
    tasks = (task_info("a", "classification", 3), task_info("b", "classification", 7))
    model = tiny_model().build(tasks)
    assert model.heads["a"].linear.out_features == 3
    assert model.heads["b"].linear.out_features == 7


def test_a_head_named_for_the_task_comes_before_its_kind():
    config = tiny_model()
    own = replace(config.heads["classification"], label_smoothing=0.3)
    config = replace(config, heads={**config.heads, "cls": own})
    assert config.build(TINY_TASKS).heads["cls"].config.label_smoothing == 0.3


def test_heads_are_chosen_by_name_for_a_kind_or_one_task():
    wanted = ["heads.detection=detr", "heads.detection.num_queries=7", "heads.cls=grid"]
    config = apply_overrides(tiny_model(), [*wanted, "heads.cls.rows=2"])
    heads = config.build(TINY_TASKS).heads
    assert isinstance(heads["dec"], HEADS["detection"]["detr"]) and heads["dec"].config.num_queries == 7
    assert isinstance(heads["cls"], HEADS["classification"]["grid"]) and heads["cls"].config.rows == 2
    with pytest.raises(ValueError, match=r"'dec': DenseSegmenter is a head for segmentation.*heads\.dec"):
        apply_overrides(tiny_model(), ["heads.detection=dense"]).build(TINY_TASKS)


def test_wrong_inputs_name_what_is_known():
    config = tiny_model()
    model = config.build(TINY_TASKS)
    with pytest.raises(ValueError, match="no task 'clss'.*Did you mean 'cls'"):
        model(replace(tiny_batch(TINY_TASKS[0]), task="clss"))
    with pytest.raises(ValueError, match="mode='prediction'.*Did you mean 'predictions'"):
        model(tiny_batch(TINY_TASKS[0]), mode="prediction")
    with pytest.raises(ValueError, match="'dec' of kind 'detection' has no head"):
        replace(config, heads={"cls": config.heads["classification"]}).build(TINY_TASKS)
    with pytest.raises(ValueError, match="distinct task names"):
        config.build(())


def test_the_loader_may_pad_with_anything():
    """What lies outside an image's valid size cannot change a prediction."""
    model = tiny_model().build(TINY_TASKS).eval()
    batch = tiny_batch(TINY_TASKS[0])
    batch.sizes_B2[:, 0] = 20
    other = replace(batch, images_BCHW=batch.images_BCHW.clone())
    other.images_BCHW[:, :, 20:] = 255
    for a, b in zip(model.predict(batch), model.predict(other), strict=True):
        assert torch.equal(a.scores_K, b.scores_K)


def test_sizes_that_are_no_multiple_of_the_patch_are_padded():
    trunk = tiny_model().build(TINY_TASKS).trunk.eval()
    images = torch.randint(0, 256, (1, 3, 29, 41), dtype=torch.uint8)
    features = trunk(images, torch.tensor([[29, 41]]), "cls")
    assert features.image_size == (32, 48)
    assert features.map_BDHW.shape[-2:] == (4, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "vit_bass_patch16_224"}, "Did you mean 'vit_base_patch16_224'"),
        ({"name": "resnet50"}, "needs a plain ViT.*ResNet"),
        ({"name": "naflexvit_base_patch16_gap"}, "needs a plain ViT.*NaFlexVit"),
        ({"name": "swin_tiny_patch4_window7_224"}, "needs a plain ViT.*SwinTransformer"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"name": "eva02_tiny_patch14_224", "stem": "gradients"}, "stem='gradients' needs a timm"),
        ({"name": "vit_small_patch16_18x2_224", "depth": 2, "window": 2}, "no separate attention"),
        ({"checkpointing": "ful"}, "Did you mean 'full'"),
    ],
)
def test_a_trunk_that_cannot_be_is_refused_with_the_remedy(change, message):
    with pytest.raises(ValueError, match=message):
        replace(tiny_model().trunk, **change).build(("cls",))
