"""Matrix products at the widths of ViT-g and ViT-G, attention at their head sizes: the ceiling of a step.

One JSON line each. Needs torch only.
"""

import argparse
import json
from collections.abc import Callable

import clock
import torch
from torch.nn import functional as F

WIDTHS = {"g": (1408, 6144), "G": (1664, 8192)}  # width, MLP
HEADS = {64: 24, 88: 16, 104: 16}  # size of a head: heads
TOKENS = {257: 96, 1025: 24, 5330: 5}  # tokens an image: images
CALLS = 10  # in a row, so that starting one hides behind the one before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true")
    toy = parser.parse_args().toy
    print(json.dumps({"device": clock.name(), "torch": torch.__version__, "peak": clock.peak()}), flush=True)
    rows = 64 if toy else 32768
    square = 128 if toy else 8192
    report("matrix 8192 cubed" if not toy else "matrix 128 cubed", *matrix(square, square, square))
    for width, hidden in WIDTHS.values():
        report(f"matrix {rows} x {width} x {hidden}", *matrix(rows, width, hidden))
        report(f"matrix {rows} x {width} x {3 * width}", *matrix(rows, width, 3 * width))
    for tokens, images in ({17: 1} if toy else TOKENS).items():
        for size, heads in HEADS.items():
            shape = (images, heads, tokens, size)
            report(f"attention {shape}, forward", *attention(shape, False))
            report(f"attention {shape}, both ways", *attention(shape, True))


def report(what: str, operations: float, seconds: float) -> None:
    print(json.dumps({"what": what, "TFLOP/s": operations / seconds / 1e12, "seconds": seconds}), flush=True)


def matrix(n: int, k: int, m: int) -> tuple[float, float]:
    """Return the operations of an n x k by k x m product and its seconds."""
    a, b = (torch.randn(s, device=clock.device(), dtype=torch.bfloat16) for s in ((n, k), (k, m)))
    return 2 * n * k * m, seconds_a_call(lambda: a @ b)


def attention(shape: tuple[int, ...], backward: bool) -> tuple[float, float]:
    """Return operations (2 products forward, 5 backward) and seconds of attention of (B, heads, L, size)."""
    images, heads, tokens, size = shape
    q, k, v = (
        torch.randn(shape, device=clock.device(), dtype=torch.bfloat16, requires_grad=backward)
        for _ in range(3)
    )

    def work() -> None:
        out = F.scaled_dot_product_attention(q, k, v)
        if backward:
            torch.autograd.grad(out.sum(), (q, k, v))

    products = 7 if backward else 2
    return products * 2.0 * images * heads * tokens**2 * size, seconds_a_call(work)


def seconds_a_call(work: Callable[[], object]) -> float:
    def many() -> None:
        for _ in range(CALLS):
            work()

    return clock.median_seconds(many, 2, 5, limit=5.0) / CALLS


if __name__ == "__main__":
    main()
