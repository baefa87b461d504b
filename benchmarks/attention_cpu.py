"""Attention on a processor: torch's fused kernel beside two matrix products, forward and backward.

    python benchmarks/attention_cpu.py [--pairs 10] [--write]

timm's attention layer of a ViT-S (6 heads of 64) with each, in turn, so that every pair meets the same state
of the machine; only the calls differ, not the linear layers around them, which both times contain.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
from timm.layers import Attention

from ufo_large.processes.processor import processor_flags
from ufo_large.tracking.environment import commit_text, describe_environment
from ufo_large.train.attention_products import products_are_faster, use_products

RESULTS = Path(__file__).resolve().parent / "results"
WIDTH, HEADS = 384, 6
SHAPES = ((10, 205), (8, 433), (3, 437), (2, 730), (1, 1370), (1, 2738))
"""Images and tokens of an image: inputs of `small`, with the class token and a head's queries; and longer."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Row(NamedTuple):
    """Milliseconds of a forward and backward pass; `ratio`: the median of kernel / products over pairs."""

    dtype: str
    images: int
    tokens: int
    kernel: float
    products: float
    ratio: float
    chosen: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10, help="passes of each variant")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/attention_*.md")
    options = parser.parse_args()
    rows = [measure(name, *shape, options.pairs) for name in DTYPES for shape in SHAPES]
    text = render(rows, options.pairs)
    print(text)
    if options.write:
        (RESULTS / f"attention_cpu_{platform.machine()}_{date.today():%Y%m}.md").write_text(text)


def measure(name: str, images: int, tokens: int, pairs: int) -> Row:
    dtype = DTYPES[name]
    kernel, products = (Attention(WIDTH, num_heads=HEADS, qkv_bias=True).to(dtype) for _ in range(2))
    use_products(products)
    x_BLD = torch.randn(images, tokens, WIDTH, dtype=dtype, requires_grad=True)
    passes = [lambda layer=layer: layer(x_BLD).sum().backward() for layer in (kernel, products)]
    for run in passes:
        run()  # the first one allocates
    times = [[milliseconds(run) for run in passes] for _ in range(pairs)]
    medians = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    return Row(name, images, tokens, *medians, ratio, products_are_faster(dtype, tokens, processor_flags()))


def milliseconds(run: Callable[[], None]) -> float:
    begun = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - begun)


def render(rows: list[Row], pairs: int) -> str:
    body = "\n".join(
        f"| {r.dtype} | {r.images} x {r.tokens} | {r.kernel:.1f} | {r.products:.1f} | {r.ratio:.2f} "
        f"| {'products' if r.chosen else 'kernel'} |"
        for r in rows
    )
    environment = describe_environment()
    return f"""# Attention on a processor: torch's kernel or matrix products

Hardware: {environment["hardware"]}. Commit: {commit_text(environment["commit"])}.
Command: `{environment["command"]}`.

One attention layer of a ViT-S with its two linear layers, forward and backward: median milliseconds of
{pairs} passes of each, in turn. The ratio is the median over pairs, above 1 where products are faster.

| numbers | images x tokens | kernel | products | kernel / products | a run takes |
| --- | ---: | ---: | ---: | ---: | --- |
{body}
"""


if __name__ == "__main__":
    main()
