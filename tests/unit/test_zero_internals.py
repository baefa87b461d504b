"""A DeepSpeed that is built otherwise is told apart, or done without."""

import warnings
from types import SimpleNamespace

import pytest

from ufo_large.distributed import zero


def test_an_unknown_way_of_fetching_is_warned_of_once():
    offload = SimpleNamespace(param_coordinator="its own")  # lacks everything else
    with pytest.warns(UserWarning, match=r"gathers them one by one.*0\.19\.8") as seen:
        orders = zero._FetchOrders(offload)
        orders.use("cls")
    assert len(seen) == 1 and offload.param_coordinator == "its own"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        orders.use("cls")
        orders.use(None)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_gradients_kept_elsewhere_are_refused(stage):
    with pytest.raises(RuntimeError, match=rf"ZeRO stage {stage}.*install deepspeed==0\.19\.8"):
        zero.require_internals(SimpleNamespace(), stage)
