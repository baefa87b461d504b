"""Imported once by the process that forks test ranks, so that each rank starts in a blink."""

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ufo_large.distributed.zero  # noqa: F401
