"""Under ZeRO-3 tasks in turn do not make DeepSpeed forget in which order to fetch parameters."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.models import tiny_trunk

TASKS, STEPS = ("a", "b"), 5


class Gathers(TorchDispatchMode):
    """Count all-gathers and their bytes (of the whole tensors), and broadcasts."""

    def __init__(self):
        super().__init__()
        self.gathers = self.bytes = self.broadcasts = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.c10d._allgather_base_.default:
            self.gathers += 1
            self.bytes += args[0].nbytes
        self.broadcasts += operation is torch.ops.c10d.broadcast_.default
        return operation(*args, **(kwargs or {}))


def train(predict_between: bool) -> dict:
    """Return what each step gathered, and the bytes that its tasks use."""
    from ufo_large.distributed import zero
    from ufo_large.distributed.ds_config import complete
    from ufo_large.structures import role_of

    zero.init_distributed()
    torch.manual_seed(0)
    trunk = tiny_trunk("task", checkpointing="full").build(TASKS)
    config = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
    optimizer = torch.optim.SGD(trunk.parameters(), lr=0.1)
    config = complete(config, micro_batch=2, clip_norm=None)
    engine = zero.ZeroEngine(trunk, optimizer, config, trunk.units())
    images, sizes = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.full((2, 2), 32)
    seen = []
    for _ in range(STEPS):
        with Gathers() as counted:
            engine.gradients.begin_step()
            for task in TASKS:
                engine.gradients.begin_task(task, torch.empty(engine.gradients.shared_numel))
                engine.backward(engine(images, sizes, task).map_BDHW.sin().mean())
            engine.gradients.finish()
            engine.step([0.1])
        seen.append((counted.gathers, counted.bytes, counted.broadcasts))
        if predict_between:
            with torch.no_grad(), engine.predicting():
                trunk(images, sizes, "a")
    hooked = [f for m in trunk.modules() for f in (getattr(m, "pre_bwd_fn", None),) if f is not None]
    kept = [hasattr(function.forward, "__signature__") for function in hooked]
    used = [p.ds_numel * 4 for task in TASKS for p in trunk.parameters() if role_of(p).task in (None, task)]
    return {"seen": seen, "used_bytes": sum(used), "kept": kept}


@pytest.mark.parametrize("predict_between", [False, True])
def test_once_the_order_is_known_each_task_gathers_its_parameters_once(predict_between):
    """Measured: 1.00 times the bytes used; with one order for all tasks it was 2.9 times, without end."""
    for rank in run_ranks(train, 2, predict_between):
        first, last = rank["seen"][0], rank["seen"][-1]
        assert last[0] < first[0] / 3
        assert last[1] <= 1.05 * rank["used_bytes"]
        assert last[2] == 0
        assert rank["kept"] and all(rank["kept"])
