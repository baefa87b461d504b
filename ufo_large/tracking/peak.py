"""What a GPU computes at most, by the name that CUDA gives it."""

import re

import torch

DENSE_BF16_TFLOPS = {
    "B200": 2250.0,
    "MI300X": 1307.4,
    "GH200": 989.4,
    "H200": 989.4,
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
"""10^12 operations per second in dense bfloat16 products with float32 sums, as the makers state them."""


def peak_flops(device: torch.device) -> float | None:
    """Return the operations per second of a GPU in bfloat16; None for a processor and an unknown GPU."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """Return the operations per second of a GPU of this name, such as `NVIDIA A100-SXM4-40GB`, if known."""
    for known in sorted(DENSE_BF16_TFLOPS, key=len, reverse=True):  # H100 PCIe before H100
        if re.search(rf"\b{known}\b", name):
            return DENSE_BF16_TFLOPS[known] * 1e12
    return None
