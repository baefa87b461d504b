"""Training steps of the trunk alone: images a second, MFU and peak memory by size and checkpointing mode.

One JSON line for each (mode, size). A size that does not fit, or fails otherwise, is written down as failed;
the next gets a new model, for what ZeRO-3 holds after an error is not to be relied on.
"""

import argparse
import functools
import gc
import json
import os
import socket
from collections.abc import Callable

import clock
import timm
import torch
import workload
from torch import Tensor, nn

from ufo_large.distributed import zero
from ufo_large.planning.sizes import PRESETS, trunk_size

SIDES = {224: 96, 448: 24, 1022: 5}  # pixels: images, about 25,000 tokens; half of that below 100 GiB
SECONDS = 8.0  # a row, beyond its first step, where a step is slow
TOY = {"img_size": 28, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 4.0}
TASKS = ("a", "b", "c")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("ours", "timm"), default="ours")
    parser.add_argument("--modes", default="none", help="checkpointing, with commas between")
    parser.add_argument("--router", choices=("shared", "task"), default="shared")
    parser.add_argument("--zero3", action="store_true")
    parser.add_argument("--compile", action="store_true", help="each block, or unit of a block, by itself")
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    if args.zero3:
        join_world_of_one()
    for mode in args.modes.split(","):
        step = None
        for side, images in sides(args.toy).items():
            row = {"mode": mode, "side": side, "images": images}
            try:
                step = step or build(args, mode)
                row |= measure(step, args.toy, side, images)
            except Exception as error:
                row["failed"] = (
                    f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
                )
                step = None
            print(json.dumps(row), flush=True)
            if step is None:
                release()
        del step
        release()


def sides(toy: bool) -> dict[int, int]:
    """Return pixels: images of a step."""
    if toy:
        return {28: 2}
    small = torch.cuda.is_available() and torch.cuda.get_device_properties(0).total_memory < 100 * 2**30
    return {side: images // 2 if small else images for side, images in SIDES.items()}


def release() -> None:
    """Give back what a model that is gone held, compiled code included."""
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def join_world_of_one() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    zero.init_distributed()


def measure(step: Callable[[Tensor], None], toy: bool, side: int, images: int) -> dict:
    batch = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8, device=clock.device())
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = clock.median_seconds(lambda: step(batch), *((1, 1) if toy else (3, 6)), limit=SECONDS)
    found = {"seconds": seconds, "images/s": images / seconds}
    if torch.cuda.is_available():
        found["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
    if clock.peak() and not toy:
        found["MFU"] = 3 * forward_flops()[str(side)] * images / seconds / clock.peak()
    return found


@functools.cache
def forward_flops() -> dict[str, int]:
    """Return operations of ViT-g's forward pass on one image, by side; computed once, it takes seconds."""
    return trunk_size("ViT-g/14", {str(side): (side, side) for side in SIDES}).forward_flops


def build(args: argparse.Namespace, mode: str) -> Callable[[Tensor], None]:
    """Return a training step on a batch of uint8 images."""
    shape = TOY if args.toy else {}
    if args.model == "timm":
        return timm_step(args, shape)
    config = workload.trunk_config("ViT-g/14", args.router, mode, **shape)
    ds = workload.read_ds("zero3_bf16") if args.zero3 else None
    with zero.sharded_construction(ds), torch.device(clock.device() if ds is None else "cpu"):
        trunk = config.build(TASKS).train()
    if args.compile:
        compile_each(trunk.units(), args.toy)

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
    if args.compile:
        compile_each(vit.blocks, args.toy)
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


def compile_each(modules: list[nn.Module], toy: bool) -> None:
    # else, past a few sizes, torch leaves the modules as they are in silence, and the row says compiled
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for module in modules:
        module.forward = torch.compile(module.forward, dynamic=False, backend="eager" if toy else "inductor")


if __name__ == "__main__":
    main()
