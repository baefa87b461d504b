"""What a step logs of its speed: images, tokens and operations per second, and what it waited for."""

import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch

from ufo_large.data.batching import Tokens
from ufo_large.distributed import comm
from ufo_large.models.multitask import MultitaskModel
from ufo_large.planning.peaks import peak_of
from ufo_large.planning.training_flops import TrainingFlops
from ufo_large.train.collective_waits import CollectiveWaits
from ufo_large.train.network_trace import NetworkTrace
from ufo_large.train.steps import StepRunner

WARM_UP = 10
"""Steps of a process without operations per second: the first ones compile. Behind them they are counted."""

Canvas = tuple[int, int]
Seen = dict[str, Counter[Canvas]]
"""Images of each task by their canvas, (height, width)."""


class ImageCosts:
    """What training on an image takes: the tokens of the trunk, the operations of the task's whole model."""

    def __init__(self, model: MultitaskModel):
        vit = model.trunk.vit
        self._model, self._prefix = model, vit.num_prefix_tokens
        self._tokens = Tokens(patch=model.trunk.stride, width=vit.embed_dim)
        self._flops: TrainingFlops | None = None
        self._is_countable = comm.is_main()  # who logs

    def tokens(self, canvas: Canvas) -> int:
        rows, columns = self._tokens.grid(canvas)
        return rows * columns + self._prefix

    def flops(self, seen: Seen) -> dict[str, float] | None:
        """Return the operations for the images of each task; None where they do not count, said once."""
        if not self._is_countable:
            return None
        try:
            if self._flops is None:
                self._flops = TrainingFlops(self._model.config, tuple(self._model.tasks.values()))
            return {task: self._flops_of(task, own) for task, own in seen.items()}
        except Exception as error:  # a plugin's head may read values; that is no reason to end a run
            self._is_countable = False
            warnings.warn(f"the log has no MFU: the model's operations do not count: {error}", stacklevel=2)
            return None

    def _flops_of(self, task: str, images: Counter[Canvas]) -> float:
        return sum(count * self._flops.per_image(task, canvas) for canvas, count in images.items() if count)


def peak_flops(device: torch.device) -> float | None:
    """Return the operations per second of a GPU in bfloat16; None for a processor and an unknown GPU."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    return peak_of(torch.cuda.get_device_name(device))


class Speed:
    """Times a run's steps: rates over all ranks, and operations and waiting of this rank."""

    def __init__(
        self,
        runner: StepRunner,
        waits: CollectiveWaits,
        costs: ImageCosts | None = None,
        trace_every: int = 0,
    ):
        self.runner, self.waits, self.costs = runner, waits, costs
        self._device = torch.device(runner.engine.device)
        self._peak = peak_flops(self._device)
        is_traced = self._device.type == "cuda" and runner.world_size > 1 and comm.is_main()
        self._network = NetworkTrace(trace_every if is_traced else 0)
        self._steps = 0
        self.values: dict[str, float] = {}
        """Of the last step."""

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Time the step inside; its figures are in `values` then."""
        self._steps += 1
        with self._network.tracing() if self._network.is_due(self._steps) else nullcontext():
            waited, seen = self._waited(), self._seen()
            start = time.perf_counter()
            with self.waits.counting():
                yield
            seconds = time.perf_counter() - start
        since = {task: now - seen[task] for task, now in self._seen().items()}
        self.values = {
            "train/step_seconds": seconds,
            **{f"train/task_seconds/{task}": s for task, s in self.runner.clock.seconds().items()},
            **self._amounts(since, seconds),
            **self._operations(since, seconds),
            **self._shares((self._waited() - waited) / seconds),
            **self._peak_memory(),
        }

    def _waited(self) -> float:
        return sum(feed.loader.wait_s for feed in self.runner.feeds.values())

    def _seen(self) -> Seen:
        return {task: Counter(feed.loader.canvases) for task, feed in self.runner.feeds.items()}

    def _amounts(self, seen: Seen, seconds: float) -> dict[str, float]:
        """Return images and tokens per second of all ranks, and of each task where there are several."""
        ranks = self.runner.world_size
        found = with_total("images_per_second", {t: own.total() * ranks / seconds for t, own in seen.items()})
        if self.costs is None:
            return found
        tokens = {t: sum(n * self.costs.tokens(c) for c, n in own.items()) for t, own in seen.items()}
        return found | with_total("tokens_per_second", {t: n * ranks / seconds for t, n in tokens.items()})

    def _operations(self, seen: Seen, seconds: float) -> dict[str, float]:
        """Return TFLOP/s of a rank and, of a GPU whose peak is known, the share of it that is reached.

        Over the whole step, and over the time of each task where there are several.
        """
        if self.costs is None or self._steps <= WARM_UP or (flops := self.costs.flops(seen)) is None:
            return {}
        rates = {"train/tflops": sum(flops.values()) / seconds}
        if len(seen) > 1:
            times = self.runner.clock.seconds()
            rates |= {f"train/tflops/{task}": flops[task] / s for task, s in times.items()}
        found = {key: rate / 1e12 for key, rate in rates.items()}
        if self._peak is not None:
            found |= {key.replace("tflops", "mfu"): rate / self._peak for key, rate in rates.items()}
        return found

    def _shares(self, data: float) -> dict[str, float]:
        """Return which shares of the step passed in waiting for data and network, and what is left.

        On GPUs collectives run behind the program's back: there the network's share is that of the last
        traced step, and the host's that in which the GPU waited for it, without the waiting for data.
        """
        found = {"train/data_wait_share": data}
        if self._device.type != "cpu":
            if self._network.share is not None:
                found["train/network_wait_share"] = self._network.share
            return found | {"train/host_wait_share": max(0.0, self.waits.idle_share() - data)}
        network = min(self.waits.recent_share(), max(0.0, 1 - data))
        return found | {
            "train/network_wait_share": network,
            "train/host_share": max(0.0, 1 - data - network),
        }

    def _peak_memory(self) -> dict[str, float]:
        """Return the most that tensors took of this rank's GPU so far, and that torch reserved for them."""
        if self._device.type != "cuda":
            return {}
        return {
            "train/peak_memory_gib": torch.cuda.max_memory_allocated(self._device) / 2**30,
            "train/peak_reserved_gib": torch.cuda.max_memory_reserved(self._device) / 2**30,
        }


def with_total(name: str, by_task: Mapping[str, float]) -> dict[str, float]:
    """Return the sum under `train/<name>`, and each task's part where there are several."""
    parts = {f"train/{name}/{task}": value for task, value in by_task.items()} if len(by_task) > 1 else {}
    return {f"train/{name}": sum(by_task.values()), **parts}
