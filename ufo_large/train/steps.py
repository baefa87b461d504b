"""One optimizer step: every task in turn on all ranks, one balance, one update."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing import Balancer, Signals
from ufo_large.balancing.gram import update_shares
from ufo_large.data.loader import TaskLoader
from ufo_large.data.mixing import Stages, TaskMix
from ufo_large.distributed import comm
from ufo_large.distributed.engine import Engine
from ufo_large.distributed.task_gradients import Measurement, TaskGradients
from ufo_large.processes.heartbeat import beat
from ufo_large.routing import Route
from ufo_large.train.not_finite import NotFinite, TriedAgain
from ufo_large.train.task_clock import TaskClock


@dataclass(frozen=True, kw_only=True, slots=True)
class Feed:
    """A task's loader and how many of its micro-batches a step takes, by the stages of training."""

    loader: TaskLoader
    stages: Stages = ((0, 1),)


class StepRunner:
    """Runs steps; keeps nothing but its parts, whose state the checkpoint saves."""

    def __init__(
        self,
        engine: Engine,
        feeds: Mapping[str, Feed],
        balancer: Balancer,
        total_steps: int,
        log_every: int = 1,
    ):
        self.engine = engine
        self.feeds = feeds
        self.mix = TaskMix({task: feed.stages for task, feed in feeds.items()})
        self.counts: dict[str, int] = {}  # micro-batches of each task in the last step
        self.balancer = balancer
        self.total_steps = total_steps
        self.log_every = log_every
        self.world_size = comm.world_size()
        self.route: Route = engine.module.trunk.route
        self.gradients = TaskGradients(engine.gradients, len(feeds))
        self.not_finite = NotFinite()
        self.clock = TaskClock(torch.device(engine.device))

    def run(self, step: int, learning_rates: list[float]) -> dict[str, float]:
        """Take optimizer step `step` (0-based) and return what there is to log, equal on all ranks.

        Raises FloatingPointError on all ranks where a loss or gradient is not finite and may not be skipped:
        TriedAgain where the run is to go back and try the step once more.
        """
        self.gradients.begin_step()
        self.not_finite.begin_step()
        self.clock.begin_step()
        losses: dict[str, Tensor] = {}
        self.counts = self.mix.next(step)
        for task, count in self.counts.items():
            if count:
                with self.clock.of(task):
                    losses |= self._run_task(step, task, count)
        beat(f"step {step}: comparing the tasks' gradients")
        names, values = list(losses), torch.stack([v.double() for v in losses.values()])
        measured = self.gradients.measure(values, self._wants_pairs(step))
        logged = dict(zip(names, measured.extra.tolist(), strict=True))
        signals = self._signals(step, logged, measured.gram_MM)
        if not self._is_finite(step, signals, measured):
            return logged | self.not_finite.counted()
        weights_M = self.balancer(signals)
        self.gradients.combine(weights_M, self.balancer.scales_private)
        beat(f"step {step}: optimizer")
        self.engine.step(learning_rates)
        balance = balance_values(signals.tasks, measured, weights_M)
        return logged | balance | self.not_finite.counted() | {"train/grad_norm": self.engine.grad_norm}

    def _wants_pairs(self, step: int) -> bool:
        """Whether anything reads this step's Gram matrix: the balancer, or, where it reads none, the log.

        With `every_k_steps`, or once weights are frozen, steps between measurements have norms only.
        """
        seen = self.balancer.needs_gram or self.log_every == 1 or (step + 1) % self.log_every == 0
        return seen and self.balancer.needs_measurement(step, self.gradients.tasks)

    def _run_task(self, step: int, task: str, count: int) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        self.gradients.begin_task(task)
        for micro in range(count):
            place = f"step {step}, task {task}, micro-batch {micro + 1} of {count}"
            beat(f"{place}: waiting for data")
            batch = next(self.feeds[task].loader)
            beat(f"{place}: forward")
            losses = self.engine(batch.to(self.engine.device))
            total = torch.stack([v.float() for v in losses.values()]).sum() / count
            self.not_finite.keep(batch, total)
            beat(f"{place}: backward")
            self.engine.backward(total)
            self.gradients.after_backward()
            seen = {f"{task}/{name}": value for name, value in losses.items()}
            seen[f"{task}/total"] = total * count
            seen |= {f"routing/{task}/{name}": value for name, value in self.route.statistics.items()}
            for key, value in seen.items():
                sums[key] = sums.get(key, 0) + value.detach() / count
        self.gradients.end_task()
        return sums

    def _signals(self, step: int, logged: Mapping[str, float], gram_MM: Tensor | None) -> Signals:
        tasks = self.gradients.tasks
        losses_M = torch.tensor([logged[f"{t}/total"] for t in tasks], dtype=torch.float64)
        return Signals(
            tasks=tasks, losses_M=losses_M, gram_MM=gram_MM, step=step, total_steps=self.total_steps
        )

    def _is_finite(self, step: int, signals: Signals, measured: Measurement) -> bool:
        """Whether the optimizer may move; else all ranks stop or skip, and name the task, step and ranks."""
        shared_M, private_M = measured.squares_M, measured.private_M
        finite_M = shared_M.isfinite() & private_M.isfinite() & signals.losses_M.isfinite()
        if bool(finite_M.all()):
            return True
        bad = [t for t, ok in zip(signals.tasks, finite_M.tolist(), strict=True) if not ok]
        mine = self.gradients.rows_are_finite(), self.engine.module.not_finite()
        by_rank = comm.all_gather_objects(mine)
        ranks = [rank for rank, (finite, _) in enumerate(by_rank) if not finite]
        seen = [
            f"rank {rank}, {task}: {', '.join(names)}"
            for rank, (_, found) in enumerate(by_rank)
            for task, names in found.items()
        ]
        told = (
            f"step {step}: the gradient or loss of {', '.join(bad)} is not finite "
            f"(seen in the gradient shards of ranks {ranks}; by the heads of {'; '.join(seen) or 'none'}); "
            "no parameter was moved. "
        )
        batches = self.not_finite.save_batches(step, bad)
        if self.not_finite.may_try_again(step):
            raise TriedAgain(f"{told}Started again, the run tries it once more from its checkpoint{batches}")
        if not self.not_finite.may_skip(step):
            remedy = "Lower the learning rate, or look at that task's data with data_sharding/check_data.py"
            raise FloatingPointError(f"{told}{self.not_finite.told_limit()}{remedy}{batches}")
        if comm.is_main():
            warnings.warn(f"{told}The step was skipped{batches}", stacklevel=3)
        self.engine.module.forget_not_finite()
        return False


def balance_values(tasks: tuple[str, ...], measured: Measurement, weights_M: Tensor) -> dict[str, float]:
    """Return what the balance charts draw: norms and weights; where pairs were measured also the rest."""
    norms_M = measured.squares_M.clamp_min(0).sqrt()
    values = {}
    for k, task in enumerate(tasks):
        values[f"balance/{task}/weight"] = float(weights_M[k])
        values[f"balance/{task}/grad_norm"] = float(norms_M[k])
        values[f"balance/{task}/grad_norm_after"] = float(weights_M[k].abs() * norms_M[k])
    if measured.gram_MM is not None:
        values |= _pair_values(tasks, measured.gram_MM, norms_M, weights_M)
    return values


def _pair_values(
    tasks: tuple[str, ...], gram_MM: Tensor, norms_M: Tensor, weights_M: Tensor
) -> dict[str, float]:
    shares_M = update_shares(gram_MM, weights_M)
    cosines_MM = gram_MM / (norms_M[:, None] * norms_M[None, :]).clamp_min(1e-300)
    values = {f"balance/{task}/share": float(shares_M[k]) for k, task in enumerate(tasks)}
    pairs = [(i, j) for i in range(len(tasks)) for j in range(i + 1, len(tasks))]
    for i, j in pairs:
        values[f"balance/cosine/{tasks[i]}-{tasks[j]}"] = float(cosines_MM[i, j])
    if pairs:
        values["balance/conflict_rate"] = sum(float(cosines_MM[i, j] < 0) for i, j in pairs) / len(pairs)
    return values
