"""The state of every generator that a step may draw from, as tensors and plain values."""

import random
from typing import Any

import numpy as np
import torch


def rng_state() -> dict[str, Any]:
    """Return the states of torch's, numpy's and Python's generators, and of the GPU's where there is one."""
    method, key, *rest = np.random.get_state()
    numpy = (method, torch.from_numpy(key), *rest)
    state = {"torch": torch.get_rng_state(), "numpy": numpy, "python": random.getstate()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_rng_state(state: dict[str, Any]) -> None:
    """Go on from what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    method, key, *rest = state["numpy"]
    np.random.set_state((method, key.numpy(), *rest))
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
