"""DeepSpeed, and nothing but DeepSpeed: the only file that imports it.

Measured with deepspeed 0.19.8. ZeRO-3 keeps one flat buffer of gradient partitions a rank; a backward
pass overwrites a parameter's part after `optimizer.zero_grad()` and adds otherwise. A parameter that gets
no gradient keeps its old one there, and the next step applies it again: we zero the buffer first.
"""

import contextlib
import importlib
import inspect
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from deepspeed.utils.tensor_fragment import fragment_address
from torch import Tensor, nn

from ufo_large.distributed import comm
from ufo_large.distributed.engine import Layout, Piece, keeping_options
from ufo_large.distributed.local_gradients import LocalGradients
from ufo_large.distributed.plain_files import Write, read_plain
from ufo_large.distributed.resharding import optimizer_file
from ufo_large.structures import role_of

INTERNALS = {
    1: ("params_in_partition", "grad_start_offset", "grad_partition_insertion_offset", "averaged_gradients"),
    3: (
        "fp16_groups",
        "grad_partitions_flat_buffer",
        "_DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition",
        "_offload_boundary_param_ids",
    ),
}
"""Where DeepSpeed's optimizers keep gradients; stage 2 is as stage 1."""

# All that DeepSpeed pickles besides tensors and plain values; none of them does anything when it is made.
torch.serialization.add_safe_globals([LossScaler, ZeroStageEnum, fragment_address])

# Named ranges around every hook, for NVIDIA's profilers: tens of thousands in a step of a deep trunk.
deepspeed.utils.nvtx.enable_nvtx = False

# A C++ extension that only DeepSpeed's CPU inference uses; it would be compiled at the first start.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


# DeepSpeed's first engine imports an optimizer that no run here takes, and that by its decorator torch's
# compiler, which takes long. So it is imported here, undecorated.
with mock.patch.object(deepspeed.runtime.compiler, "compile", lambda: lambda function: function):
    importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")


def init_distributed() -> torch.device:
    """Join the process group that the launcher describes; return this rank's device: DeepSpeed's kind.

    The ranks of a machine share its cores evenly, on GPUs too, where an offloaded optimizer computes on them.
    Raises PortTaken where another run on this machine has the port at which the ranks meet.
    """
    local_rank, local_world = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 0))
    # DeepSpeed calls collectives by names that torch 2.14 renames: nothing that a user could change.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    if "RANK" in os.environ:
        with _telling_taken_port():
            deepspeed.init_distributed(verbose=False)
    cores = len(os.sched_getaffinity(0))  # not the machine's: a comparison gives each training its own
    torch.set_num_threads(max(1, cores // max(local_world or comm.world_size(), 1)))
    if get_accelerator().device_name() != "cuda":  # as DS_ACCELERATOR=cpu asks for on a machine with GPUs
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


@contextlib.contextmanager
def _telling_taken_port() -> Iterator[None]:
    try:
        yield
    except torch.distributed.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        port = os.environ["MASTER_PORT"]
        raise comm.PortTaken(
            f"port {port} of this machine is taken, perhaps by another run; give another one, as in "
            f"`deepspeed --master_port {int(port) + 1} ...`"
        ) from None


def sharded_construction(ds_config: dict[str, Any] | None) -> contextlib.AbstractContextManager:
    """Return a context in which modules are sharded as they are made (ZeRO-3 only, otherwise nothing).

    Values set in constructors are lost in it; fill the model afterwards.
    """
    if ds_config is None or ds_config["zero_optimization"]["stage"] != 3:
        return contextlib.nullcontext()
    return deepspeed.zero.Init(config_dict_or_path=ds_config)


def gathered(parameters: list[nn.Parameter], modify: bool = False) -> contextlib.AbstractContextManager:
    """Return a context in which sharded parameters are whole; with `modify`, rank 0's changes are kept."""
    sharded = [p for p in parameters if hasattr(p, "ds_id")]
    return deepspeed.zero.GatheredParameters(
        sharded, modifier_rank=0 if modify else None, enabled=bool(sharded)
    )


class _FetchOrders:
    """An order of fetching parameters for each task, and one for predicting.

    DeepSpeed learns in two passes in which order modules run; from then on it fetches ahead, many parameters
    at once, and keeps what is needed again soon. A pass of another order makes it forget: with tasks in turn,
    each with its own experts and head, it would learn for ever. So each task has a coordinator of its own.
    They share the registry of gathers under way, and DeepSpeed frees every parameter before it steps. Where a
    DeepSpeed is built otherwise, all share its one coordinator, which is slower and as right.
    """

    def __init__(self, offload: Any):
        self._offload = offload
        self._by_task: dict[str | None, PartitionedParameterCoordinator] = {None: offload.param_coordinator}
        self._seen = 0

    def use(self, task: str | None) -> None:
        """Follow the order of `task` (None: of predicting) from the next forward pass on."""
        if task not in self._by_task:
            self._by_task[task] = self._untaught_or_shared()
        self._offload.param_coordinator = self._by_task[task]

    def has_new_task(self) -> bool:
        """Whether a task came up since the last call."""
        before, self._seen = self._seen, len(self._by_task)
        return self._seen > before

    def _untaught_or_shared(self) -> PartitionedParameterCoordinator:
        try:
            return self._untaught()
        except (AttributeError, TypeError) as error:
            warnings.warn(
                f"DeepSpeed {deepspeed.__version__} fetches parameters in a way not known here ({error}): "
                "with tasks in turn it gathers them one by one; deepspeed 0.19.8 fetches ahead",
                stacklevel=3,
            )
            return self._by_task[None]

    def _untaught(self) -> PartitionedParameterCoordinator:
        offload = self._offload
        return PartitionedParameterCoordinator(
            prefetch_bucket_sz=offload._prefetch_bucket_sz,
            max_reuse_distance_in_numel=offload._max_reuse_distance_in_numel,
            max_available_parameters_in_numel=offload._max_available_parameters_in_numel,
            allgather_stream=offload._DeepSpeedZeRoOffload__allgather_stream,
            inflight_param_registry=offload.module.ds_inflight_param_registry,
            prefetch_nvme=offload.offload_device == "nvme",
            timers=offload.timers,
            zero_quantized_weights=offload.zero_quantized_weights,
            zero_quantized_nontrainable_weights=offload.zero_quantized_nontrainable_weights,
            fast_sharding_for_leaf_module=offload.fast_sharding_for_leaf_module,
            log_trace_cache_warnings=offload.log_trace_cache_warnings,
        )


class Zero3Gradients:
    """A GradientStore on ZeRO-3's gradient partitions, also when the optimizer is offloaded to the CPU."""

    def __init__(self, optimizer: Any, orders: _FetchOrders):
        self._optimizer = optimizer
        self._orders = orders
        self._buffer: Tensor = optimizer.grad_partitions_flat_buffer
        partitions = optimizer._DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition
        parameters = [p for group in optimizer.fp16_groups for p in group if p.requires_grad]
        self._ids = {p.ds_id for p in parameters}
        self._shared = [partitions[p.ds_id] for p in parameters if role_of(p).kind == "shared"]
        self._private: dict[str, list[Tensor]] = {}
        for p in parameters:
            if role_of(p).kind != "shared":
                self._private.setdefault(role_of(p).task, []).append(partitions[p.ds_id])
        self._sizes = [v.numel() for v in self._shared]
        self.shared_numel = sum(self._sizes)
        self.device = self._buffer.device
        self._shared_is_zero = False

    def begin_step(self) -> None:
        self._buffer.zero_()
        self._shared_is_zero = True

    def begin_task(self, task: str, out_S: Tensor) -> None:
        self._orders.use(task)
        if self._shared and not self._shared_is_zero:
            torch._foreach_zero_(self._shared)
        self._shared_is_zero = False
        self._optimizer.zero_grad()

    def after_backward(self) -> None:
        """Nothing to do: DeepSpeed has reduced and added."""

    def read_shared(self, out_S: Tensor) -> None:
        if self._shared:
            torch._foreach_copy_(list(out_S.split(self._sizes)), self._shared)

    def private_square_norm(self, task: str) -> Tensor:
        if task not in self._private:  # frozen
            return torch.zeros((), dtype=torch.float64, device=self.device)
        return torch.stack(torch._foreach_norm(self._private[task])).double().square().sum()

    def write_shared(self, combined_S: Tensor) -> None:
        if self._shared:
            torch._foreach_copy_(self._shared, list(combined_S.split(self._sizes)))

    def scale_private(self, task: str, factor: float) -> None:
        if task in self._private:
            torch._foreach_mul_(self._private[task], factor)

    def finish(self) -> None:
        # with an offloaded optimizer only the parameters listed here are copied to it; we wrote all
        self._optimizer._offload_boundary_param_ids.update(self._ids)


class ZeroEngine:
    """An Engine on DeepSpeed, ZeRO stage 1, 2 or 3.

    `ds_config` is complete (see ds_config.py). The optimizer's groups keep their order. Stage 3
    gathers each of `units` with one collective; a unit's inputs and outputs are tensors or tuples of them.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        ds_config: dict[str, Any],
        units: Iterable[nn.Module] = (),
    ):
        for unit in units:
            deepspeed.utils.set_z3_leaf_module(unit, True)
        self.stage = ds_config["zero_optimization"]["stage"]
        self.kind = f"zero{self.stage}"
        managed = self.stage != 3
        config = {**ds_config, "managed_gradient_accumulation": managed}
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=config
        )
        require_internals(self._optimizer, self.stage)
        self._engine.checkpoint_engine.load = read_plain  # DeepSpeed's own would run what a file names
        self.module = self._engine.module
        self.device = torch.device(self._engine.device)
        self.grad_norm = 0.0
        if self.stage == 3:
            self._orders = _FetchOrders(self._optimizer.parameter_offload)
            self.gradients = Zero3Gradients(self._optimizer, self._orders)
        else:
            parameters = [p for group in self._optimizer.bit16_groups for p in group]
            self.gradients = _CoalescedGradients(self._engine, parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._engine(*args, **kwargs)

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rates: list[float]) -> None:
        for group, rate in zip(self._optimizer.param_groups, learning_rates, strict=True):
            group["lr"] = rate
        if self.stage == 3 and self._orders.has_new_task():
            _keep_signatures(self.module)
        self._engine.step()
        self.grad_norm = float(self._engine.get_global_grad_norm())

    def save(self, folder: Path, write: Write) -> None:
        self._engine.checkpoint_engine.save = lambda state_dict, path: write(state_dict, Path(path))
        self._engine.save_checkpoint(str(folder), tag="deepspeed", save_latest=False)

    def check_files(self, folder: Path) -> None:
        read_plain(optimizer_file(folder, comm.rank()), mmap=True)
        own = f"zero_pp_rank_{comm.rank()}_" if self.stage == 3 else ""
        read_plain(folder / "deepspeed" / f"{own}mp_rank_00_model_states.pt", mmap=True)

    def load(self, folder: Path) -> None:
        with keeping_options(self._optimizer):
            path, _ = self._engine.load_checkpoint(str(folder), tag="deepspeed")
        if path is None:
            raise ValueError(f"{folder}: DeepSpeed found no checkpoint here; choose another with --resume")

    @contextlib.contextmanager
    def predicting(self) -> Iterator[None]:
        """Spare the orders of training, which a pass of another order would spoil."""
        if self.stage == 3:
            self._orders.use(None)
        yield

    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.module.state_dict(keep_vars=True).items():
            with gathered([tensor]):
                yield name, tensor.detach().float().cpu().clone() if comm.is_main() else torch.empty(0)

    def master_shards(self) -> list[Tensor]:
        return [shard.detach() for shard in self._masters()]

    def optimizer_states(self) -> list[dict[str, Any]]:
        return [self._optimizer.optimizer.state[shard] for shard in self._masters()]

    def _masters(self) -> list[Tensor]:
        if getattr(self._optimizer, "swap_optimizer", False):
            raise ValueError(
                "an average of the weights, and a resume on other ranks, need the weights in memory, but "
                "'offload_optimizer' moves them to NVMe; use its device cpu, or --set ema=none and as many "
                "ranks as before"
            )
        attribute = "fp32_partitioned_groups_flat" if self.stage == 3 else "single_partition_of_fp32_groups"
        return list(getattr(self._optimizer, attribute))

    def layout(self) -> Layout:
        names = {p: name for name, p in self.module.named_parameters()}
        pieces = self._pieces_of_stage_3 if self.stage == 3 else self._pieces_of_group
        groups = self._optimizer.fp16_groups if self.stage == 3 else self._optimizer.params_in_partition
        return tuple(tuple(pieces(group, members, names)) for group, members in enumerate(groups))

    def _pieces_of_stage_3(self, group: int, members: list, names: dict) -> Iterator[Piece]:
        """Every parameter is cut into equal parts, one a rank; the last parts may be short or empty."""
        offset = 0
        for parameter in members:
            size = parameter.partition_numel()
            start = min(comm.rank() * size, parameter.ds_numel)
            yield Piece(names[parameter], start, offset, min(size, parameter.ds_numel - start))
            offset += size

    def _pieces_of_group(self, group: int, members: list, names: dict) -> Iterator[Piece]:
        """The parameters of a group lie one after another, and that row is cut into equal parts."""
        length = self._optimizer.single_partition_of_fp32_groups[group].numel()
        for parameter in members:
            yield Piece(names[parameter], *_place(self._optimizer, group, parameter, length))

    def publish_masters(self) -> None:
        optimizer = self._optimizer
        if self.stage != 3:
            optimizer.update_lp_params()
            return
        optimizer._partition_all_parameters()
        for group in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        if optimizer.persistent_parameters:  # small ones that stay whole on every rank
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
        optimizer.invalidate_secondary_tensor()
        if self.device.type == "cuda":  # DeepSpeed gathers on a stream that does not wait for this one
            torch.cuda.current_stream().synchronize()


def require_internals(optimizer: Any, stage: int) -> None:
    """Raise RuntimeError, with the remedy, where this DeepSpeed keeps gradients elsewhere."""
    missing = [name for name in INTERNALS[3 if stage == 3 else 1] if not hasattr(optimizer, name)]
    if missing:
        raise RuntimeError(
            f"DeepSpeed {deepspeed.__version__}, ZeRO stage {stage}: its {type(optimizer).__name__} has no "
            f"{', '.join(missing)}, where task gradients are read; install deepspeed==0.19.8"
        )


class _CoalescedGradients(LocalGradients):
    """Stages 1 and 2: DeepSpeed leaves gradients on the parameters; we reduce and hand over the partition."""

    def __init__(self, engine: Any, parameters: list[nn.Parameter]):
        super().__init__(parameters, self._fill_partitions, dict(_own_parts(engine.optimizer)))
        self._engine = engine
        engine.optimizer.gradient_accumulation_dtype = torch.float32  # of the partitions we hand over
        self._context = contextlib.ExitStack()

    def begin_step(self) -> None:
        super().begin_step()
        self._context.close()  # of a step that was skipped
        self._context.enter_context(self._engine.coalesce_grad_reduction())

    def _fill_partitions(self, gradients: list[Tensor]) -> None:
        self._context.close()  # reduces nothing: no parameter holds a gradient now
        optimizer = self._engine.optimizer
        by_parameter = dict(zip(self.parameters, gradients, strict=True))
        for group, members in enumerate(optimizer.params_in_partition):
            partition = optimizer._build_compact_grad_partition_buffer(group)
            flat = partition.flat_partition
            for parameter in members:
                start, offset, count = _place(optimizer, group, parameter, flat.numel())
                piece = by_parameter[parameter].flatten()[start : start + count]
                flat[offset : offset + count].copy_(piece)
                if optimizer.cpu_offload:
                    key = optimizer.get_param_id(parameter)
                    optimizer.norm_for_param_grads[key] = piece.double().norm()
            if optimizer.cpu_offload:
                optimizer.single_partition_of_fp32_groups[group].grad.view(-1).copy_(flat)
            else:
                optimizer.averaged_gradients[group] = partition


def _own_parts(optimizer: Any) -> Iterator[tuple[nn.Parameter, tuple[int, int]]]:
    """Yield each parameter of this rank's partitions with the start and count of what lies there."""
    for group, members in enumerate(optimizer.params_in_partition):
        length = optimizer.single_partition_of_fp32_groups[group].numel()
        for parameter in members:
            start, _, count = _place(optimizer, group, parameter, length)
            yield parameter, (start, count)


def _place(optimizer: Any, group: int, parameter: nn.Parameter, length: int) -> tuple[int, int, int]:
    """Return (start in the parameter, offset in this rank's partition of `length`, count), stages 1 and 2."""
    rank = torch.distributed.get_rank(group=optimizer.real_dp_process_group[group])
    key = optimizer.get_param_id(parameter)
    start = optimizer.grad_start_offset[group][rank][key]
    offset = optimizer.grad_partition_insertion_offset[group][rank][key]
    return start, offset, min(parameter.numel() - start, length - offset)


def _keep_signatures(module: nn.Module) -> None:
    """Keep the signatures of the functions that ZeRO-3 put around each module in its first pass.

    torch looks for one at every call, thousands of times in a step, and would work it out each time.
    """
    for part in module.modules():
        for name in ("pre_bwd_fn", "post_bwd_fn"):
            function = getattr(part, name, None)
            if function is not None:
                function.forward.__signature__ = inspect.signature(function.forward)


def is_whole(parameter: nn.Parameter) -> bool:
    """Whether a parameter's values are on this rank now."""
    return not hasattr(parameter, "ds_status") or parameter.ds_status is ZeroParamStatus.AVAILABLE
