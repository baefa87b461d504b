"""A model built sharded gets the same weights, name by name, as one built whole."""

import pytest
import torch
from safetensors.torch import save_file

from ufo_large.models.weights import fill, initial_state
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.models import ROUTED, TINY_TASKS, tiny_model

FAMILIES = {
    "vit": {},
    "dinov2": {"name": "vit_giant_patch14_reg4_dinov2", "embed_dim": 48},
    "eva": {"name": "eva_giant_patch14_224", "patch_size": 14, "img_size": 42},
}
CASES = [(family, router) for family in FAMILIES for router in ROUTED if router != "shared"]


def whole(family: str, router: str, path: str | None) -> dict[str, torch.Tensor]:
    model = tiny_model(router, **FAMILIES[family]).build(TINY_TASKS)
    fill(model, initial_state(model, 3, path))
    return {n: v.detach() for n, v in model.state_dict().items()}


def sharded(cases: list, folder: str) -> list[dict]:
    """Return every parameter, gathered one by one, and how many are whole after filling."""
    from functools import partial

    from ufo_large.distributed import zero

    zero.init_distributed()
    torch.manual_seed(torch.distributed.get_rank())  # what a rank draws by itself must not matter
    config = {"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1}
    results = []
    for family, router in cases:
        with zero.sharded_construction(config):
            model = tiny_model(router, **FAMILIES[family]).build(TINY_TASKS)
        path = f"{folder}/{family}.safetensors" if router.startswith("task") else None
        fill(model, initial_state(model, 3, path), whole=partial(zero.gathered, modify=True))
        num_whole = sum(zero.is_whole(p) for p in model.parameters())
        state = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            with zero.gathered([tensor]):
                state[name] = tensor.detach().clone().numpy()
        results.append({"state": state, "num_whole": num_whole})
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> tuple[dict, str]:
    folder = tmp_path_factory.mktemp("weights")
    for family, options in FAMILIES.items():
        torch.manual_seed(9)
        save_file(tiny_model(**options).trunk.build_vit().state_dict(), folder / f"{family}.safetensors")
    ranks = run_ranks(sharded, 2, CASES, str(folder))
    return [dict(zip(CASES, rank, strict=True)) for rank in ranks], str(folder)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_a_model_built_sharded_equals_one_built_whole(results, case):
    ranks, folder = results
    family, router = case
    path = f"{folder}/{family}.safetensors" if router.startswith("task") else None
    expected = whole(family, router, path)
    for rank in ranks:
        assert rank[case]["num_whole"] == 0
        assert set(rank[case]["state"]) == set(expected)
        for name, value in rank[case]["state"].items():
            assert torch.equal(torch.from_numpy(value), expected[name]), name
