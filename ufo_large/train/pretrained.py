"""Bring the weights that a run starts from to every machine, and store positions as these weights do."""

from dataclasses import replace
from pathlib import Path

from ufo_large.distributed import comm
from ufo_large.distributed.weight_sums import INDEX, has_checksums, whole_files
from ufo_large.models.dense_values import keep_stored_grid
from ufo_large.models.hub import Fetched, fetch, locate
from ufo_large.models.hub_names import HubName, architecture, hub_name, registered, require_there, trunk_of
from ufo_large.models.trunk import Trunk
from ufo_large.models.weight_cards import as_described
from ufo_large.runs.config import RunConfig
from ufo_large.runs.folder import RunFolder


def settled(config: RunConfig) -> RunConfig:
    """Return `config` with what its weights decide: their exact revision, the trunk's tag and grid.

    The tag is that of a name of timm's, or of a card beside the weights. Weights on the hub are downloaded
    first, by one rank of each machine. On all ranks. Raises ValueError where they cannot be had, where they
    are of another model or for other pixels, and where a file of a run's is not as that run wrote it.
    """
    if config.pretrained is None:
        return config
    trunk = config.model.trunk
    name = comm.agreed(lambda: hub_name(config.pretrained, trunk))
    path, pretrained = Path(config.pretrained), config.pretrained
    if name is not None:
        if comm.is_main():
            print(f"pretrained={config.pretrained}: {name}, from the hub or its cache", flush=True)
        fetched = _fetch_on_each_machine(name)
        if comm.is_main():
            print(f"pretrained={config.pretrained}: {fetched}", flush=True)
        path, pretrained = fetched.path, str(replace(name, revision=fetched.revision))
    comm.agreed(lambda: require_whole(path) if comm.local_rank() == 0 else None)
    trunk = comm.agreed(lambda: keep_stored_grid(_named(trunk, name, path), path))
    return replace(config, pretrained=pretrained, model=replace(config.model, trunk=trunk))


def _named(trunk: Trunk.Config, name: HubName | None, path: Path) -> Trunk.Config:
    """Return `trunk` under the name, tag included, of its weights at `path`."""
    if name is None:
        require_there(str(path))
    elif name.repo in registered():
        return trunk_of(name, trunk)
    return as_described(trunk, path)


def require_whole(pretrained: Path) -> None:
    """Raise ValueError where `pretrained` are a run's weights of which a file is not as it was written."""
    weights = pretrained if pretrained.is_dir() else pretrained.parent
    is_a_runs = (weights / INDEX).is_file() and RunFolder(weights.parent).config_file.is_file()
    if is_a_runs or has_checksums(weights):
        whole_files(weights)


def settled_as(config: RunConfig, saved: RunConfig) -> RunConfig:
    """Return `config` with what its weights decided when the run began, without looking at them again."""
    if saved.pretrained is None:
        return config
    trunk, before = config.model.trunk, saved.model.trunk
    if architecture(before.name) == architecture(trunk.name):
        trunk = replace(trunk, name=before.name)
    if trunk.img_size is None:
        trunk = replace(trunk, img_size=before.img_size)
    is_elsewhere = config.pretrained is not None and hub_name(config.pretrained, trunk) is None
    pretrained = config.pretrained if is_elsewhere else saved.pretrained
    return replace(config, pretrained=pretrained, model=replace(config.model, trunk=trunk))


def weights_file(config: RunConfig) -> Path | None:
    """Return the file or folder that `pretrained` of a settled config names."""
    if config.pretrained is None:
        return None
    name = hub_name(config.pretrained, config.model.trunk)
    return Path(config.pretrained) if name is None else locate(name)


def _fetch_on_each_machine(name: HubName) -> Fetched:
    found = comm.agreed_slowly(lambda: fetch(name) if comm.local_rank() == 0 else None)
    everywhere = comm.all_gather_objects(found)
    revisions = {fetched.revision for fetched in everywhere if fetched is not None}
    if len(revisions) > 1:
        raise ValueError(
            f"pretrained={name}: the machines have different revisions ({', '.join(sorted(revisions))}); "
            f"give one: --set pretrained={name.repo}@{min(revisions)}"
        )
    return everywhere[comm.rank() - comm.local_rank()]
