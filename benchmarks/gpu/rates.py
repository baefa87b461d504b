"""Matrix products at the widths of ViT-g and ViT-G, attention at their head sizes: the ceiling of a step.

One JSON line each. Needs torch only.
"""

import argparse
import json
from importlib import metadata

import clock
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

WIDTHS = {"g": (1408, 6144), "G": (1664, 8192)}  # width, MLP
HEADS = {64: 24, 88: 16, 104: 16}  # size of a head: heads
TOKENS = {257: 96, 1025: 24, 5330: 5}  # tokens an image: images
KERNELS = {name: SDPBackend[f"{name.upper()}_ATTENTION"] for name in ("cudnn", "flash", "efficient")}
CALLS = 10  # between two readings: the shortest takes a tenth of a millisecond


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--wait", action="store_true", help="begin when standard input says so")
    args = parser.parse_args()
    toy = args.toy
    if args.wait:
        clock.wait()
    print(json.dumps({"device": clock.name(), "peak": clock.peak(), **versions()}), flush=True)
    rows = 64 if toy else 32768
    square = 128 if toy else 8192
    with clock.row(what=f"matrix {square} cubed") as found:
        rate(found, *matrix(square, square, square))
    for width, hidden in WIDTHS.values():
        for columns in (hidden, 3 * width):
            with clock.row(what=f"matrix {rows} x {width} x {columns}") as found:
                rate(found, *matrix(rows, width, columns))
    for tokens, images in ({17: 1} if toy else TOKENS).items():
        for size, heads in HEADS.items():
            for backward in (False, True):
                shape = (images, heads, tokens, size)
                with clock.row(what=f"attention {shape}, {'both ways' if backward else 'forward'}") as found:
                    rate(found, *attention(shape, backward))
            for name, kernel in {} if toy else KERNELS.items():
                with clock.row(what=f"attention {shape}, both ways, {name}") as found, sdpa_kernel(kernel):
                    rate(found, *attention(shape, True))


def versions() -> dict[str, str]:
    """Return what measures here, by package."""
    here = {package.name: package.version for package in metadata.distributions()}
    return {name: here[name] for name in ("torch", "deepspeed", "timm") if name in here}


def rate(found: dict, operations: float, seconds: float) -> None:
    found.update({"TFLOP/s": operations / seconds / 1e12, "seconds": seconds})


def matrix(n: int, k: int, m: int) -> tuple[float, float]:
    """Return the operations of an n x k by k x m product and its seconds."""
    a, b = (torch.randn(s, device=clock.device(), dtype=torch.bfloat16) for s in ((n, k), (k, m)))
    return 2 * n * k * m, clock.median_seconds(lambda: a @ b, 3, 10, calls=CALLS, limit=5.0)


def attention(shape: tuple[int, ...], backward: bool) -> tuple[float, float]:
    """Return operations (2 products forward, 5 backward) and seconds of attention of (B, heads, L, size)."""
    images, heads, tokens, size = shape
    q, k, v = (
        torch.randn(shape, device=clock.device(), dtype=torch.bfloat16, requires_grad=backward)
        for _ in range(3)
    )
    upstream = torch.randn_like(q)

    def work() -> None:
        out = F.scaled_dot_product_attention(q, k, v)
        if backward:
            torch.autograd.grad(out, (q, k, v), upstream)

    products = 7 if backward else 2
    return products * 2.0 * images * heads * tokens**2 * size, clock.median_seconds(
        work, 3, 10, calls=CALLS, limit=5.0
    )


if __name__ == "__main__":
    main()
