"""A run that starts from weights on the hub: fetched once per machine, kept by revision, resumed offline."""

import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import save

from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.hub import COMMIT, pointed_at, served_hub

REPO = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
SHAPE = {"depth": 2, "embed_dim": 32, "num_heads": 2, "patch_size": 8}
OPTIONS = (
    *(f"model.trunk.{name}={value}" for name, value in SHAPE.items()),
    "model.trunk.img_size=none",
    "model.pyramid_width=32",
    *(f"tasks.{kind}.loader.micro_batch=2" for kind in ("classification", "detection", "segmentation")),
    *(f"tasks.{kind}.loader.workers=0" for kind in ("classification", "detection", "segmentation")),
    "tracking.wandb=disabled",
    "save_every=1",
    "pretrained=hub",
)


def train_from_hub(address: str, cache: str, offline: bool, shards: str, workdir: str, steps: int) -> int:
    """Train the demo recipe on a rank; return the number of finished steps."""
    from ufo_large.config import apply_overrides
    from ufo_large.distributed import ds_config
    from ufo_large.recipes import load_recipe
    from ufo_large.train.run import train

    config = apply_overrides(load_recipe("demo"), [*OPTIONS, f"steps={steps}"])
    ds = ds_config.read(Path(__file__).resolve().parents[2] / "ds_configs/zero3_fp32.json")
    with pointed_at(address, Path(cache), offline):
        return train(config, shards, Path(workdir), ds, "auto").finished


def weights() -> bytes:
    """A file whose positions lie on 5 x 5 patches, which the recipe does not say."""
    return save(timm.create_model("vit_tiny_patch16_224", **SHAPE, img_size=40).state_dict())


def test_two_ranks_fetch_once_and_go_on_without_the_hub(tiny_shards, tmp_path):
    where = (str(tiny_shards), str(tmp_path / "run"))
    with served_hub() as hub:
        hub.files[f"{REPO}/model.safetensors"] = weights()
        assert run_ranks(train_from_hub, 2, hub.address, str(tmp_path / "cache"), False, *where, 2) == [2, 2]
        assert hub.downloads == {f"{REPO}/model.safetensors": 1}
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert config["pretrained"] == f"{REPO}@{COMMIT}"
    assert config["model"]["trunk"]["img_size"] == 40
    assert config["model"]["trunk"]["name"] == REPO.removeprefix("timm/")
    assert run_ranks(train_from_hub, 2, hub.address, str(tmp_path / "none"), True, *where, 3) == [3, 3]
    assert json.loads((tmp_path / "run/config.json").read_text())["config"] == config | {"steps": 3}


def test_offline_a_run_stops_before_it_begins_and_says_how_to_bring_the_file(tiny_shards, tmp_path):
    where = (str(tiny_shards), str(tmp_path / "run"))
    said = f"pretrained={REPO} is no file.*model.safetensors is not in the cache .*hf download {REPO}"
    with pytest.raises(RuntimeError, match=said):
        run_ranks(train_from_hub, 2, "http://127.0.0.1:9", str(tmp_path / "cache"), True, *where, 2)
    assert not (tmp_path / "run").exists()
