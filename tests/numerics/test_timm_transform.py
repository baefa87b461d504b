"""An exported classifier, fed by timm's own transform, against the run's own evaluation."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torchvision.transforms.functional import pad

from ufo_large.data.evaluation_batches import evaluation_batches
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.shards import ShardSet
from ufo_large.models.extract import write_timm_folder
from ufo_large.models.multitask import MultitaskModel
from ufo_large.serving.timm_card import timm_notes
from ufo_large.structures import TaskBatch
from ufo_large.testing.models import tiny_model

DATA = Path(os.environ.get("UFO_DATA", Path(__file__).resolve().parents[2] / "../shared/data/mini"))
SIZE = (68, 100)  # neither square nor whole patches


@pytest.fixture(scope="module", params=["drawn", "photographs"])
def shards(request, tiny_shards, tmp_path_factory) -> ShardSet:
    if request.param == "drawn":
        return ShardSet.open(tiny_shards)
    if not (DATA / "track1_test_data/cls").is_dir():
        pytest.skip(f"no photographs under {DATA}; set UFO_DATA to the folder of real data")
    root = tmp_path_factory.mktemp("cars")
    for part in ("track1_train_data", "track1_test_data"):
        (root / part).mkdir()
        (root / part / "cls").symlink_to(DATA / part / "cls")
    make_shards([root], root / "shards", ShardingOptions())
    return ShardSet.open(root / "shards")


def seen_by_the_run(shards: ShardSet, split: str, keep_aspect: bool = False) -> TaskBatch:
    """Return a whole split as evaluation shows it."""
    reader = shards.split("cls", split)
    options = {"image_size": SIZE, "micro_batch": len(reader), "keep_aspect": keep_aspect}
    (batch,) = evaluation_batches(reader, shards.task("cls"), rank=0, world_size=1, **options)
    return batch


def seen_by(transform: Callable, shards: ShardSet) -> torch.Tensor:
    """Return the test split as a transform of timm's shows it, decoded by PIL."""
    reader = shards.split("cls", "test")
    files = [io.BytesIO(reader.read(i).image) for i in range(len(reader))]
    return torch.stack([transform(Image.open(file).convert("RGB")) for file in files])


def exported(model: MultitaskModel, folder: Path, keep_aspect: bool = False) -> tuple[torch.nn.Module, dict]:
    """Return timm's model of the written folder and what timm reads of its input."""
    loader = LoaderConfig(micro_batch=1, image_size=SIZE, keep_aspect=keep_aspect)
    notes = timm_notes(model.tasks["cls"], loader)
    line = write_timm_folder(model, "cls", folder, SIZE, keep_aspect, notes=notes)
    dense = eval(line, {"timm": timm}).eval()
    return dense, timm.data.resolve_model_data_config(dense)


def assert_alike(theirs_BCHW: torch.Tensor, batch: TaskBatch, model: MultitaskModel) -> None:
    """Pictures differ by the resampling, 1.6 to 2.9 of 255 levels, without a tint (0.05 to 0.24)."""
    ours_BCHW = model.trunk._normalise(batch.images_BCHW, batch.sizes_B2)[..., : SIZE[0], : SIZE[1]]
    std_C11 = torch.tensor(model.trunk.vit.pretrained_cfg["std"])[:, None, None]
    levels_BCHW = (theirs_BCHW - ours_BCHW) * 255 * std_C11
    assert levels_BCHW.abs().mean() < 3.2
    assert levels_BCHW.mean((0, 2, 3)).abs().max() < 0.4


def fit_classifier(model: MultitaskModel, batch: TaskBatch) -> None:
    """Fit the linear head by ridge regression to the features of a random trunk: some skill, no training."""
    pooled_BD = model.trunk(batch.images_BCHW, batch.sizes_B2, "cls").pooled_BD.double()
    linear = model.heads["cls"].linear
    centred_BD = pooled_BD - pooled_BD.mean(0)
    wanted_BK = torch.nn.functional.one_hot(batch.targets.labels_B, linear.out_features).double()
    covariance_DD = centred_BD.T @ centred_BD
    ridge_DD = covariance_DD.diagonal().mean() * torch.eye(len(covariance_DD))
    weight_DK = torch.linalg.solve(covariance_DD + ridge_DD, centred_BD.T @ wanted_BK)
    linear.weight.copy_(weight_DK.T)
    linear.bias.copy_(wanted_BK.mean(0) - pooled_BD.mean(0) @ weight_DK)


@pytest.fixture
def model(shards) -> MultitaskModel:
    torch.manual_seed(0)
    return tiny_model("task").build((shards.task("cls"),)).eval()


@torch.no_grad()
def test_top_1_is_the_runs(shards, model, tmp_path):
    """Within one picture, of 360 photographs."""
    fit_classifier(model, seen_by_the_run(shards, "train"))
    batch = seen_by_the_run(shards, "test")
    dense, config = exported(model, tmp_path)
    pictures = seen_by(timm.data.create_transform(**config), shards)
    assert_alike(pictures, batch, model)
    logits = {"timm": dense(pictures), "run": model.outputs(batch)["logits_BK"]}
    right = {name: int((found.argmax(1) == batch.targets.labels_B).sum()) for name, found in logits.items()}
    assert abs(right["timm"] - right["run"]) <= 1, right


@torch.no_grad()
def test_with_keep_aspect_it_is_the_padding_of_the_notes(shards, model, tmp_path):
    """timm can only centre; with its CenterCropOrPad replaced as the folder's notes ask all is alike."""
    dense, config = exported(model, tmp_path, keep_aspect=True)
    assert "replace its CenterCropOrPad" in dense.pretrained_cfg["notes"][0]
    transform = timm.data.create_transform(**config)
    centring = [type(step).__name__ for step in transform.transforms].index("CenterCropOrPad")
    fill = [round(255 * value) for value in config["mean"]]
    transform.transforms[centring] = lambda picture: pad(
        picture, [0, 0, SIZE[1] - picture.width, SIZE[0] - picture.height], fill
    )
    assert_alike(seen_by(transform, shards), seen_by_the_run(shards, "test", keep_aspect=True), model)
