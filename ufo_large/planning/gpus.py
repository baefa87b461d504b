"""What a plan must know of a GPU, from its maker's data sheet: memory, rates, links, power.

Rates are dense bf16 with float32 sums (not the doubled figure for sparse matrices). Links are bytes per
second in one direction. `memory` is what torch reports as `total_memory`, a little less than on the label.
"""

from dataclasses import dataclass, replace

from ufo_large.config import did_you_mean
from ufo_large.planning.peaks import card_of, peak_of

GIB = 2**30
PCIE_4, PCIE_5 = 32e9, 64e9
"""Bytes per second of a slot with 16 lanes, one direction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One GPU in its usual machine. `power`: watts at full load, None where it is not known.

    `memory` in bytes, `flops` per second; in bytes per second `bandwidth` of its memory, `link` to the other
    GPUs of its machine, `network` to other machines (its share of the machine's cards), `host_link`. `card`:
    what CUDA calls it, in a word of `planning.peaks`; "" where that is not known.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    link: float
    network: float
    host_link: float
    power: float | None
    source: str
    card: str = ""


A100 = {
    "card": "A100",
    "flops": peak_of("A100"),
    "link": 300e9,
    "network": 25e9,
    "host_link": PCIE_4,
    "power": 400.0,
}
HOPPER = {"flops": peak_of("H100"), "link": 450e9, "network": 50e9, "host_link": PCIE_5, "power": 700.0}
_KNOWN = (
    Gpu(
        name="a100-40g",
        memory=39.4 * GIB,
        bandwidth=1.555e12,
        source="NVIDIA A100 data sheet (SXM4 40 GB); DGX A100: 8 x 200 Gb/s",
        **A100,
    ),
    Gpu(
        name="a100-80g",
        memory=79.2 * GIB,
        bandwidth=2.039e12,
        source="NVIDIA A100 data sheet (SXM4 80 GB); DGX A100: 8 x 200 Gb/s",
        **A100,
    ),
    Gpu(
        name="h100",
        card="H100",
        memory=79.2 * GIB,
        bandwidth=3.35e12,
        source="NVIDIA H100 data sheet (SXM5); DGX H100: 8 x 400 Gb/s",
        **HOPPER,
    ),
    Gpu(
        name="h200",
        card="H200",
        memory=139.8 * GIB,
        bandwidth=4.8e12,
        source="NVIDIA H200 data sheet (SXM); DGX H200: 8 x 400 Gb/s",
        **HOPPER,
    ),
    Gpu(
        name="l40s",
        memory=44.4 * GIB,
        card="L40S",
        flops=peak_of("L40S"),
        bandwidth=0.864e12,
        link=PCIE_4,
        network=12.5e9,
        host_link=PCIE_4,
        power=350.0,
        source="NVIDIA L40S data sheet; PCIe 4.0 x16; 100 Gb/s for each",
    ),
    Gpu(
        name="rtx4090",
        memory=23.6 * GIB,
        card="RTX 4090",
        flops=peak_of("RTX 4090"),
        bandwidth=1.008e12,
        link=PCIE_4,
        network=12.5e9,
        host_link=PCIE_4,
        power=450.0,
        source="NVIDIA Ada architecture paper, appendix A; PCIe 4.0 x16; 100 Gb/s for each",
    ),
)
GPUS = {gpu.name: gpu for gpu in _KNOWN}


def gpu_of_card(name: str, memory: float) -> Gpu | None:
    """Return the figures of a GPU by CUDA's name for it, with its own `memory`; None for an unknown one."""
    alike = [gpu for gpu in _KNOWN if gpu.card == card_of(name)]
    if not alike:
        return None
    nearest = min(alike, key=lambda gpu: abs(gpu.memory - memory))
    return replace(nearest, name=name, memory=memory)


def gpu_named(
    name: str,
    memory_gib: float | None = None,
    tflops: float | None = None,
    bandwidth_gbs: float | None = None,
) -> Gpu:
    """Return a known GPU, or one by its own figures: GiB, dense bf16 TFLOP/s, GB/s of its memory.

    One that is not known is taken to sit in PCIe 4.0 slots with 100 Gb/s for each between machines. Raises
    ValueError for an unknown name without all three figures, for a known one with any, and below zero.
    """
    given = {"--gpu-memory": memory_gib, "--gpu-tflops": tflops, "--bandwidth": bandwidth_gbs}
    told = [option for option, value in given.items() if value is not None]
    if any(value is not None and not value > 0 for value in given.values()):
        raise ValueError(f"{', '.join(told)}: must be above 0")
    if name in GPUS:
        if told:
            raise ValueError(f"--gpu {name} is known; drop {', '.join(told)}, or give the GPU another name")
        return GPUS[name]
    if len(told) < len(given):
        raise ValueError(
            f"--gpu {name!r} is not known.{did_you_mean(name, GPUS)} For another one give --gpu-memory GIB "
            "--gpu-tflops DENSE_BF16 --bandwidth GB_PER_SECOND"
        )
    return Gpu(
        name=name,
        memory=memory_gib * GIB,
        flops=tflops * 1e12,
        bandwidth=bandwidth_gbs * 1e9,
        link=PCIE_4,
        network=12.5e9,
        host_link=PCIE_4,
        power=None,
        source="as given; PCIe 4.0 x16 and 100 Gb/s between machines assumed",
    )
