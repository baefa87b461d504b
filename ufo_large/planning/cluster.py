"""GPUs in machines, and how long collectives take among them: counted bytes over the slowest link."""

import math
from dataclasses import dataclass

from ufo_large.planning.gpus import Gpu

LINK_SHARE = 0.8
"""Of a link's paper rate that large collectives reach, assumed; no run on several GPUs has measured it."""
LATENCY = 20e-6
"""Of a collective, for each doubling of the ranks, assumed."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """`gpus` in all, spread evenly over `nodes` machines. Raises ValueError where that does not come out."""

    gpu: Gpu
    gpus: int
    nodes: int = 1

    def __post_init__(self):
        for option, value in (("--gpus", self.gpus), ("--nodes", self.nodes)):
            if value < 1:
                raise ValueError(f"{option} {value}: must be at least 1")
        if self.gpus % self.nodes:
            raise ValueError(
                f"--gpus {self.gpus} do not spread evenly over --nodes {self.nodes}: give the number of all "
                "GPUs, a multiple of the machines"
            )

    def __str__(self) -> str:
        return f"{self.gpus} x {self.gpu.name}" + (f" in {self.nodes} machines" if self.nodes > 1 else "")

    @property
    def bus(self) -> float:
        """Bytes per second that a rank passes on in a collective of all ranks.

        Between machines the rings use all network cards, and each machine's traffic passes them once.
        """
        if self.nodes == 1:
            return LINK_SHARE * self.gpu.link
        return LINK_SHARE * min(self.gpu.link, self.gpus // self.nodes * self.gpu.network)

    def gather_seconds(self, whole: float, collectives: float) -> float:
        """Return how long gathering (or reducing and scattering) `whole` bytes takes, one rank: nothing."""
        if self.gpus == 1:
            return 0.0
        moved = whole * (self.gpus - 1) / self.gpus
        return moved / self.bus + collectives * LATENCY * math.log2(self.gpus)
