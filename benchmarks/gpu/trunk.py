"""Training steps of the trunk alone: images a second, MFU and peak memory by size and checkpointing mode.

One JSON line for each size. One that fails, for want of memory or otherwise, says so and is the last.
"""

import argparse
import functools
import os
import socket
from collections.abc import Callable

import clock
import timm
import torch
import workload
from torch import Tensor, nn

from ufo_large.distributed import zero
from ufo_large.models import compiling
from ufo_large.models.checkpointing import CHECKPOINTING
from ufo_large.planning.sizes import PRESETS, trunk_size

SIDES = {224: 96, 448: 24, 1022: 5}  # pixels: images, about 25,000 tokens; half of that below 100 GiB
TOY_SIDES = {28: 2, 42: 1}
SECONDS = 8.0  # a row, beyond its first step, where a step is slow
TOY = {"img_size": 28, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 4.0}
TASKS = ("a", "b", "c")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("ours", "timm"), default="ours")
    parser.add_argument("--mode", choices=CHECKPOINTING, default="none", help="checkpointing")
    parser.add_argument("--router", choices=("shared", "task"), default="shared")
    parser.add_argument("--zero3", action="store_true")
    parser.add_argument("--compile", action="store_true", help="each block, or unit of a block, by itself")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many sizes")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--wait", action="store_true", help="begin when standard input says so")
    args = parser.parse_args()
    if args.wait:
        clock.wait()
    if args.zero3:
        join_world_of_one()
    step = None
    for side, images in sizes(args)[args.skip :]:
        with clock.row(side=side, images=images) as found:
            step = step or build(args)
            measure(found, step, args.toy)
        if "failed" in found:
            return  # what it left half done must not reach the next size
        clock.free()


def sizes(args: argparse.Namespace) -> list[tuple[int, int]]:
    """Return (pixels, images of a step); compiled, two are enough, for each is compiled anew."""
    if args.toy:
        return list(TOY_SIDES.items())
    small = torch.cuda.is_available() and torch.cuda.get_device_properties(0).total_memory < 100 * 2**30
    sides = [side for side in SIDES if not (args.compile and side == 448)]
    return [(side, SIDES[side] // 2 if small else SIDES[side]) for side in sides]


def join_world_of_one() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    zero.init_distributed()


def measure(found: dict, step: Callable[[Tensor], None], toy: bool) -> None:
    """Fill a row with the seconds and memory of a step on random images of its side."""
    side, images = found["side"], found["images"]
    batch = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8, device=clock.device())
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    # ZeRO-3 learns its order in two steps and fetches ahead from the third on
    seconds = clock.median_seconds(lambda: step(batch), *((1, 1) if toy else (3, 5)), limit=SECONDS)
    found.update({"seconds": seconds, "images/s": images / seconds})
    if torch.cuda.is_available():
        found["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
    if clock.peak() and not toy:
        found["MFU"] = 3 * forward_flops()[str(side)] * images / seconds / clock.peak()


@functools.cache
def forward_flops() -> dict[str, int]:
    """Return operations of ViT-g's forward pass on one image, by side; computed once, it takes seconds."""
    return trunk_size("ViT-g/14", {str(side): (side, side) for side in SIDES}).forward_flops


def build(args: argparse.Namespace) -> Callable[[Tensor], None]:
    """Return a training step on a batch of uint8 images."""
    shape = TOY if args.toy else {}
    # else, past a few sizes, torch leaves modules as they are in silence, and the row says compiled
    torch._dynamo.config.fail_on_recompile_limit_hit = args.compile
    compiling.BACKEND = "eager" if args.toy else "inductor"
    if args.model == "timm":
        return timm_step(args, shape)
    config = workload.trunk_config("ViT-g/14", args.router, args.mode, compile=args.compile, **shape)
    ds = workload.read_ds("zero3_bf16") if args.zero3 else None
    with zero.sharded_construction(ds), torch.device(clock.device() if ds is None else "cpu"):
        trunk = config.build(TASKS).train()

    def loss_of(model: Callable, images: Tensor) -> Tensor:
        sizes = torch.tensor([images.shape[-2:]] * len(images), device=images.device)
        features = model(images, sizes, "a")
        return features.pooled_BD.float().square().mean() + features.map_BDHW.float().sin().mean()

    optimizer = adamw(trunk)
    if ds is None:
        return lambda images: plain_step(trunk, optimizer, lambda: loss_of(trunk, images))
    engine = zero.ZeroEngine(trunk, optimizer, ds, trunk.units())

    def step(images: Tensor) -> None:
        engine.gradients.begin_step()
        engine.gradients.begin_task("a")
        engine.backward(loss_of(engine, images))
        engine.gradients.finish()
        engine.step([1e-5])

    return step


def timm_step(args: argparse.Namespace, shape: dict) -> Callable[[Tensor], None]:
    """Return timm's own model in a plain loop."""
    with torch.device(clock.device()):
        vit = timm.create_model(PRESETS["ViT-g/14"], num_classes=0, dynamic_img_size=True, **shape)
    for block in vit.blocks if args.compile else ():
        block.forward = torch.compile(block.forward, dynamic=False, backend=compiling.BACKEND)
    optimizer = adamw(vit)
    return lambda images: plain_step(vit, optimizer, lambda: vit(images / 255).float().square().mean())


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    with torch.autocast(clock.device().type, torch.bfloat16):
        value = loss()
    value.backward()
    optimizer.step()
    model.zero_grad()


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-5, fused=torch.cuda.is_available())


if __name__ == "__main__":
    main()
