"""Weights by name, from a server on this machine that speaks the hub's protocol, and from a filled cache."""

import hashlib
import json
from pathlib import Path

import huggingface_hub.constants as hf
import pytest
import timm
from safetensors.torch import save_file

from ufo_large.models import Trunk
from ufo_large.models.hub import fetch
from ufo_large.models.hub_names import HubName, hub_name, require_there, trunk_of
from ufo_large.testing.hub import COMMIT, pointed_at, served_hub
from ufo_large.testing.models import tiny_trunk

TINY = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture
def hub(tmp_path):
    with served_hub() as hub, pointed_at(hub.address, tmp_path / "cache"):
        yield hub


@pytest.fixture
def weights(tmp_path) -> bytes:
    vit = timm.create_model("vit_tiny_patch16_224", depth=1)
    save_file(vit.state_dict(), tmp_path / "made.safetensors")
    return (tmp_path / "made.safetensors").read_bytes()


def test_what_timm_publishes_is_fetched_once_with_revision_and_checksum(hub, weights):
    hub.files[f"{TINY}/model.safetensors"] = weights
    trunk = Trunk.Config(name="vit_tiny_patch16_224", depth=1)
    name = hub_name("hub", trunk)
    found = fetch(name)
    assert found.path.read_bytes() == weights
    assert (found.repo, found.revision) == (TINY, COMMIT)
    assert found.sha256 == {"model.safetensors": hashlib.sha256(weights).hexdigest()}
    assert fetch(name) == found
    assert hub.downloads.total() == 1


def test_a_filled_cache_is_enough_without_a_network(hub, weights, monkeypatch):
    hub.files |= {f"{TINY}/model.safetensors": weights, f"{TINY}/config.json": b"{}"}
    found = fetch(HubName(TINY))
    monkeypatch.setattr(hf, "HF_HUB_OFFLINE", True)
    hub.files.clear()
    assert fetch(HubName(TINY)) == fetch(HubName(TINY, COMMIT)) == found
    assert (found.path.parent / "config.json").exists()


def test_offline_the_file_and_how_to_bring_it_are_told(hub, monkeypatch):
    monkeypatch.setattr(hf, "HF_HUB_OFFLINE", True)
    said = f"model.safetensors is not in the cache .*hf download {TINY} model"
    with pytest.raises(ValueError, match=said) as e:
        fetch(HubName(TINY))
    assert "--set pretrained=FILE" in str(e.value) and "Near it" not in str(e.value)


def test_half_a_download_is_never_used(hub, weights):
    hub.files[f"{TINY}/model.safetensors"] = weights
    hub.short.add(f"{TINY}/model.safetensors")
    for _ in range(2):  # nothing is left that the second start would take for the file
        with pytest.raises(ValueError, match="(?s)could not be fetched .*size.*start again"):
            fetch(HubName(TINY))
    hub.short.clear()
    assert fetch(HubName(TINY)).path.read_bytes() == weights


def test_a_damaged_file_in_the_cache_is_refused(hub, weights):
    hub.files[f"{TINY}/model.safetensors"] = weights
    blob = fetch(HubName(TINY)).path.resolve()
    blob.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{blob} is damaged.*remove it"):
        fetch(HubName(TINY))
    blob.unlink()
    assert fetch(HubName(TINY)).path.read_bytes() == weights


def test_a_file_in_the_store_that_repositories_share_is_known_by_its_entry(hub, weights, tmp_path):
    """The hub's own client moves a file to `blobs/<xet hash>`, which is no sha256, and leaves a link."""
    hub.files[f"{TINY}/model.safetensors"] = weights
    found = fetch(HubName(TINY))
    entry = found.path.resolve()
    shared = tmp_path / "cache/blobs/ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    entry.rename(shared)
    entry.symlink_to(shared)
    assert fetch(HubName(TINY)) == found and hub.downloads.total() == 1
    shared.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{shared} is damaged: .*, not {entry.name}"):
        fetch(HubName(TINY))
    shared.unlink()
    assert fetch(HubName(TINY)).path.read_bytes() == weights


def test_weights_in_parts_are_fetched_through_their_index(hub, weights):
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    hub.files |= {f"org/vit/{part}": weights + part.encode() for part in index["weight_map"].values()}
    hub.files["org/vit/model.safetensors.index.json"] = json.dumps(index).encode()
    found = fetch(HubName("org/vit"))
    assert found.path.name == "model.safetensors.index.json"
    assert {file.name for file in found.path.parent.glob("*.safetensors")} == set(found.sha256)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (HubName("timm/vit_tiny_patch16_224.augreg"), f"no such repository.*Near it: .*{TINY}"),
        (HubName("gated/vit"), "gives access on request.*gated/vit.*hf auth login"),
        (HubName(TINY, "v9"), f"{TINY}@v9: .*no revision 'v9'"),
        (HubName("org/empty"), r"has none of model.safetensors, .*give a file"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_the_hub_refuses_is_told_with_the_remedy(hub, name, said):
    present = ("gated/vit/model.safetensors", f"{TINY}/model.safetensors", "org/empty/README.md")
    hub.files |= dict.fromkeys(present, b"")
    with pytest.raises(ValueError, match=said):
        fetch(name)


def test_names_of_the_hub_and_files_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here/vit").mkdir(parents=True)
    trunk = tiny_trunk()
    assert hub_name("facebook/dinov2-small@main", trunk) == HubName("facebook/dinov2-small", "main")
    for file in ("here/vit", "weights/vit.safetensors", "/weights/vit", "run/a/weights", "vit.pth"):
        assert hub_name(file, trunk) is None


def test_timms_own_names_need_no_owner():
    trunk = Trunk.Config(name="vit_small_patch16_224")
    for name in ("vit_small_patch16_224.dino", "hf-hub:timm/vit_small_patch16_224.dino"):
        assert hub_name(name, trunk) == HubName("timm/vit_small_patch16_224.dino")
    assert hub_name("vit_small_patch16_224.dino@v1", trunk).revision == "v1"
    for name, said in {
        "vit_small_patch16_224.dinno": "no such file or folder. Near it: .*timm/vit_small_patch16_224.dino",
        "Hub": "no such file or folder. `hub` is what timm publishes",
    }.items():
        assert hub_name(name, trunk) is None
        with pytest.raises(ValueError, match=said):
            require_there(name)
    require_there("missing.pth")  # a file that is not there is named where it is read


def test_a_name_brings_the_pixels_of_its_weights():
    """DINO was trained with another mean and deviation than timm's first choice for the same ViT."""
    trunk = Trunk.Config(name="vit_small_patch16_224")
    named = trunk_of(hub_name("timm/vit_small_patch16_224.dino", trunk), trunk)
    assert named.name == "vit_small_patch16_224.dino" and not named.is_antialiased
    assert named.build_vit().pretrained_cfg["mean"] != trunk.build_vit().pretrained_cfg["mean"]
    assert trunk_of(HubName("org/vit"), trunk) == trunk
    with pytest.raises(ValueError, match="is a vit_base_patch16_224, but.*name=vit_base_patch16_224.dino"):
        hub_name("timm/vit_base_patch16_224.dino", trunk)


def test_a_trunk_without_published_weights_lists_near_ones():
    with pytest.raises(ValueError, match="no weights for vit_giant_patch14_224; .*vit_giant_patch14_clip"):
        hub_name("hub", Trunk.Config(name="vit_giant_patch14_224"))


def test_every_registered_name_is_that_of_a_trunk():
    """Of all that timm publishes for plain ViTs, `hub` names the repository and gives back the same name."""
    names = timm.list_models("vit_giant*", module="vision_transformer", pretrained=True)
    assert len(names) > 3
    for model in names:
        if repo := timm.get_pretrained_cfg(model).hf_hub_id:
            trunk = Trunk.Config(name=model)
            assert hub_name("hub", trunk) == HubName(repo) and trunk_of(HubName(repo), trunk) == trunk
