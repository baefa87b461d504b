"""An exponential average of the weights that every rank keeps of its own shard alone.

The update is elementwise, so the average of a shard is the shard of the average: nothing travels, and no
rank ever holds more of the average than of the optimizer's state. It is taken of the float32 master weights
that the optimizer moves, not of the bf16 copies that the model computes with, whose 8 bits would swallow
the updates.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ufo_large.distributed.engine import Engine


class ShardedEma:
    """average <- decay(n) * average + (1 - decay(n)) * weights, after every optimizer step n.

    Averaging iterates: Polyak and Juditsky 1992; for deep networks Tarvainen and Valpola 2017,
    arXiv:1703.01780. One float32 copy of the local shard of what is trained, on the device of the master
    weights (host memory where the optimizer is offloaded). Buffers and frozen parameters are not averaged.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """`decay`: the limit of decay(n) = 1 - n^-warmup_power, as in timm's ModelEmaV3, so that the first
        steps are soon forgotten. `warmup_power` None: the limit from the second step on.
        """

        decay: float = 0.9998
        warmup_power: float | None = 2 / 3

        def __post_init__(self):
            if not 0 < self.decay < 1:
                raise ValueError(f"ema.decay={self.decay}: must be between 0 and 1; ema=none turns it off")
            if self.warmup_power is not None and not 0 < self.warmup_power <= 1:
                raise ValueError(f"ema.warmup_power={self.warmup_power}: must be in (0, 1], or none")

        def build(self, engine: Engine) -> "ShardedEma":
            """Return the average of the engine's model, equal to its weights."""
            return ShardedEma(self, engine)

        def decay_after(self, finished: int) -> float:
            """Return the decay of the update after `finished` steps; 0 after the first: nothing to keep."""
            if finished <= 1:
                return 0.0
            if self.warmup_power is None:
                return self.decay
            return min(1 - finished**-self.warmup_power, self.decay)

    def __init__(self, config: Config, engine: Engine):
        self.config = config
        self.engine = engine
        self._average = [shard.clone() for shard in engine.master_shards()]
        self._is_swapped = False

    @torch.no_grad()
    def update(self, finished: int) -> None:
        """Take in the weights after `finished` steps. Nothing is communicated."""
        assert not self._is_swapped, "the model holds the average now"
        weight = 1 - self.config.decay_after(finished)
        torch._foreach_lerp_(self._average, self.engine.master_shards(), weight)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Let the model compute with the average inside; afterwards it has its own weights again, bitwise.

        Each rank exchanges the values of its shards, so the model stays sharded. Call it on all ranks. Do not
        train or save a checkpoint inside.
        """
        self._exchange()
        self.engine.publish_masters()
        try:
            yield
        finally:
            self._exchange()
        # not after an error: a rank that failed must not enter a collective alone
        self.engine.publish_masters()

    @torch.no_grad()
    def _exchange(self) -> None:
        self._is_swapped = not self._is_swapped
        for average, master in zip(self._average, self.engine.master_shards(), strict=True):
            kept = average.clone()
            average.copy_(master)
            master.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Return this rank's shards of the average."""
        assert not self._is_swapped, "the model holds the average now"
        return {"average": [shard.cpu() for shard in self._average]}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restore what `state_dict` returned; None (the checkpoint has no average) starts at the weights."""
        saved = self.engine.master_shards() if state is None else state["average"]
        if [s.shape for s in saved] != [s.shape for s in self._average]:
            raise ValueError(
                "the checkpoint's average of the weights is sharded otherwise; go on with the same ranks, "
                "DeepSpeed config and optimizer groups, or drop the average with --set ema=none"
            )
        for average, shard in zip(self._average, saved, strict=True):
            average.copy_(shard)
