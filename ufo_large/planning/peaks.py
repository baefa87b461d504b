"""What a GPU computes at most, by the name that CUDA gives it."""

import re

DENSE_BF16_TFLOPS = {
    "B200": 2250.0,
    "MI300X": 1307.4,
    "GH200": 989.4,
    "H200": 989.4,
    "H200 NVL": 835.5,
    "H100": 989.4,
    "H800": 989.4,
    "H100 NVL": 835.5,
    "H100 PCIe": 756.5,
    "H20": 148.0,
    "A100": 311.9,
    "A800": 311.9,
    "A40": 149.7,
    "A30": 165.0,
    "A10": 125.0,
    "A10G": 70.0,
    "L40S": 362.1,
    "L40": 181.1,
    "L4": 121.0,
    "RTX 6000 Ada": 364.2,
    "RTX A6000": 154.8,
    "RTX 5090": 209.5,
    "RTX 4090": 165.2,
    "RTX 3090": 71.2,
}
"""10^12 operations per second in dense bfloat16 products with float32 sums, as the makers state them.

A plain name is the SXM card's.
"""


def card_of(name: str) -> str | None:
    """Return which known card CUDA's name, such as `NVIDIA A100-SXM4-40GB`, stands for."""
    by_length = sorted(DENSE_BF16_TFLOPS, key=len, reverse=True)  # H100 PCIe before H100
    return next((known for known in by_length if re.search(rf"\b{known}\b", name)), None)


def peak_of(name: str) -> float | None:
    """Return the operations per second of a GPU of this name; None for an unknown one."""
    card = card_of(name)
    return None if card is None else DENSE_BF16_TFLOPS[card] * 1e12
