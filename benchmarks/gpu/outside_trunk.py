"""What each operation outside the trunk costs at the real shapes: torch's and the libraries' form, and ours.

The shapes of balance.py: pyramids of 1,022 and 518 px under ViT-g, an FCOS and a dense head on strides 8, 16,
32; and the losses of all heads that once waited for the host. `form`: `torch` or `ours`, which is left out
where both are the same. Every row is timed with the device done before and after, forward and both ways;
`in a step` is what its calls take together in one step of all tasks. The whole of it once with
`cudnn.benchmark` off, then what convolves with it on. One JSON line each.
"""

import argparse
import copy
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import clock
import losses
import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from ufo_large.tasks.conv_products import use_products
from ufo_large.tasks.resampling import by_products, by_torch

SIDES, IMAGES = {"dec": 1022, "seg": 518}, {"dec": 5, "seg": 18}  # pixels, images
PATCH, STRIDE = 14, 16
CLASSES = {"dec": 45, "seg": 19}
SECONDS = 0.3  # of one reading, at most, beyond the first
LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


class Op(NamedTuple):
    """One operation: what it does in each form, on what shape, and how often in a step."""

    name: str
    forms: dict[str, Callable[[Tensor], Tensor]]
    shape: tuple[int, ...]
    times: int = 1
    dtype: torch.dtype = torch.bfloat16
    convolves: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--wait", action="store_true", help="begin when standard input says so")
    args = parser.parse_args()
    if args.wait:
        clock.wait()
    repeats = (0, 1) if args.toy else (1, 5)
    for benchmark in (False, True):
        torch.backends.cudnn.benchmark = benchmark
        for task in SIDES:
            for op in ops(task, args.toy):
                if op.convolves or not benchmark:
                    time_op(task, op, benchmark, repeats)
        clock.free()
    torch.backends.cudnn.benchmark = False
    for name, forms in losses.cases(args.toy).items():
        for form, make in forms.items():
            with clock.row(op=name, form=form) as found:
                found["seconds"] = clock.median_seconds(make(), *repeats, limit=2.0)
        clock.free()


def ops(task: str, toy: bool) -> Iterator[Op]:
    """Yield the operations of a task's pyramid and head, from the trunk's map on."""
    width, pyramid = (32, 16) if toy else (1408, 256)
    images, patches = (1, 5) if toy else (IMAGES[task], SIDES[task] // PATCH)
    cells = math.ceil(patches * PATCH / STRIDE)
    sides = {8: 2 * cells, 16: cells, 32: -(-cells // 2)}
    ratio, size = PATCH / STRIDE, (cells, cells)
    tokens, cell_map = (images, width, patches, patches), (images, width, cells, cells)
    yield Op("pad", {"torch": lambda x: F.pad(x, (0, 2, 0, 2), mode="replicate")}, tokens)
    forms = {"torch": lambda x: by_torch(x, ratio, size), "ours": lambda x: by_products(x, ratio, size)}
    yield Op("resample to stride 16", forms, tokens)
    half = nn.ConvTranspose2d(width, width // 2, 2, stride=2)
    yield Op("transposed 2x2", both_forms(half), cell_map, convolves=True)
    yield Op("max pool", {"torch": lambda x: F.max_pool2d(x, 2, ceil_mode=True)}, cell_map)
    for stride, side in sides.items():
        channels = width // 2 if stride == 8 else width
        into = nn.Conv2d(channels, pyramid, 1, bias=False)
        yield Op(f"1x1 to stride {stride}", both_forms(into), (images, channels, side, side), convolves=True)
    yield from (_of_detection if task == "dec" else _of_segmentation)(images, pyramid, sides)


def _of_detection(images: int, width: int, sides: dict[int, int]) -> Iterator[Op]:
    """A 3x3 convolution of the pyramid and two of each tower per level, and what follows them."""
    for stride, side in sides.items():
        shape = (images, width, side, side)
        tower = nn.Conv2d(width, width, 3, padding=1)
        yield Op(f"3x3 at stride {stride}", one_form(tower), shape, times=5, convolves=True)
        yield Op(f"layer norm at stride {stride}", one_form(LayerNorm2d(width)), shape, times=2)
        yield Op(f"group norm at stride {stride}", one_form(group_norm(width)), shape, times=4)
        for outputs in (CLASSES["dec"], 4, 1):
            last = nn.Conv2d(width, outputs, 3, padding=1)
            yield Op(f"3x3 to {outputs} at stride {stride}", one_form(last), shape, convolves=True)


def _of_segmentation(images: int, width: int, sides: dict[int, int]) -> Iterator[Op]:
    """A 3x3 and a 1x1 convolution per level, the sum at stride 8, and the loss at the input's size."""
    for stride, side in sides.items():
        shape = (images, width, side, side)
        times = 2 if stride == 8 else 1
        level = nn.Conv2d(width, width, 3, padding=1, bias=False)
        yield Op(f"3x3 at stride {stride}", one_form(level), shape, times=times, convolves=True)
        yield Op(f"layer norm at stride {stride}", one_form(LayerNorm2d(width)), shape, times=2)
        lateral = nn.Conv2d(width, width, 1)
        yield Op(f"1x1 at stride {stride}", both_forms(lateral), shape, convolves=True)
        if stride > 8:
            yield Op(f"enlarge {stride // 8} times", enlarging(stride // 8), shape)
    finest, classes = sides[8], CLASSES["seg"]
    yield Op("group norm at stride 8", one_form(group_norm(width)), (images, width, finest, finest))
    to_classes = both_forms(nn.Conv2d(width, classes, 1))
    yield Op("1x1 to classes", to_classes, (images, width, finest, finest), convolves=True)
    logits = (images, classes, finest, finest)
    yield Op("enlarge 8 times, float32", enlarging(8), logits, dtype=torch.float32)
    side = 8 * finest
    masks = torch.randint(0, classes, (images, side, side), device=clock.device())
    yield Op(
        "cross-entropy, float32",
        {"torch": lambda x: F.cross_entropy(x, masks)},
        (images, classes, side, side),
        dtype=torch.float32,
    )


def group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, width), width)


def one_form(module: nn.Module) -> dict[str, Callable]:
    return {"torch": module.to(clock.device(), torch.bfloat16)}


def both_forms(conv: nn.Module) -> dict[str, Callable]:
    """Return a convolution and the product that it is, with the same parameters."""
    theirs = conv.to(clock.device(), torch.bfloat16)
    return {"torch": theirs, "ours": use_products(copy.copy(theirs))}


def enlarging(ratio: int) -> dict[str, Callable[[Tensor], Tensor]]:
    def by(function: Callable) -> Callable[[Tensor], Tensor]:
        return lambda x: function(x, ratio, (ratio * x.shape[2], ratio * x.shape[3]))

    return {"torch": by(by_torch), "ours": by(by_products)}


def time_op(task: str, op: Op, benchmark: bool, repeats: tuple[int, int]) -> None:
    """Print a row for each form and layout; `repeats`: how often for nothing, and how often timed."""
    for form, work in op.forms.items():
        for layout, memory_format in LAYOUTS.items():
            head = {"task": task, "op": op.name, "form": form, "layout": layout, "cudnn.benchmark": benchmark}
            with clock.row(**head) as found:
                x = torch.randn(op.shape, device=clock.device(), dtype=op.dtype)
                x = x.contiguous(memory_format=memory_format).requires_grad_()
                learned = (x, *(work.parameters() if isinstance(work, nn.Module) else ()))
                upstream = torch.randn_like(work(x))
                both = lambda: torch.autograd.grad(work(x), learned, upstream)  # noqa: B023
                found["forward"] = clock.median_seconds(lambda: work(x), *repeats, limit=SECONDS)  # noqa: B023
                found["seconds"] = clock.median_seconds(both, *repeats, limit=SECONDS)
                found["in a step"] = op.times * found["seconds"]


if __name__ == "__main__":
    main()
