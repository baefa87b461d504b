"""What benchmarks of training at full size share: the routed model, three tasks, random images, the step."""

import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ufo_large.balancing import METHODS
from ufo_large.data.mixing import Stages
from ufo_large.distributed import ds_config
from ufo_large.distributed.engine import Engine
from ufo_large.models import MultitaskModel, Trunk
from ufo_large.planning.sizes import PRESETS
from ufo_large.routing import ROUTERS
from ufo_large.runs.optimizer import OptimizerConfig
from ufo_large.structures import TaskBatch
from ufo_large.tasks import HEADS
from ufo_large.testing.models import task_info, tiny_batch
from ufo_large.train import building
from ufo_large.train.steps import Feed, StepRunner

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TASKS = (
    task_info("cls", "classification", 196),
    task_info("dec", "detection", 45),
    task_info("seg", "segmentation", 19),
)


class Repeat:
    """A loader that hands out one batch for ever."""

    def __init__(self, batch: TaskBatch):
        self.batch = batch

    def __next__(self) -> TaskBatch:
        return self.batch


def trunk_config(preset: str, router: str, checkpointing: str, **shape: Any) -> Trunk.Config:
    """Return a preset's trunk with every block routed; `shape` overrides timm's."""
    name = PRESETS[preset]
    with torch.device("meta"):
        depth = len(Trunk.Config(name=name, **shape).build_vit().blocks)
    options = {} if router == "shared" else {"blocks": tuple(range(depth))}
    scheme = ROUTERS[router].Config(**options)
    return Trunk.Config(name=name, checkpointing=checkpointing, router=scheme, **shape)


def model_config(trunk: Trunk.Config, pyramid_width: int = 256) -> MultitaskModel.Config:
    """Return the trunk with a linear, an FCOS and a dense head."""
    heads = {
        "classification": HEADS["classification"]["linear"].Config(),
        "detection": HEADS["detection"]["fcos"].Config(strides=(8, 16, 32)),
        "segmentation": HEADS["segmentation"]["dense"].Config(strides=(8, 16, 32)),
    }
    return MultitaskModel.Config(trunk=trunk, heads=heads, pyramid_width=pyramid_width)


def build_model(config: MultitaskModel.Config, ds: dict[str, Any] | None) -> MultitaskModel:
    """Build the model as a run does: sharded while it is made under ZeRO-3, filled name by name."""
    model = building.build_model(config, TASKS, ds)
    building.give_initial_weights(model, seed=0)
    return model.train()


def build_engine(
    model: MultitaskModel,
    ds: dict[str, Any] | None,
    device: torch.device,
    config: OptimizerConfig = OptimizerConfig(learning_rate=1e-4),
) -> Engine:
    """Return the engine with AdamW; `ds` is complete, or None for plain torch."""
    if ds is None:
        model.to(device)
    return building.build_engine(model, config.build(model), ds, device, clip_norm=1.0)


def build_runner(
    engine: Engine, sizes: Mapping[str, int], images: Mapping[str, int] | None = None
) -> StepRunner:
    """Return the training step on a micro-batch a task of random square images: sides, how many (1 each)."""
    counts = images or dict.fromkeys(sizes, 1)
    batches = {info.name: tiny_batch(info, counts[info.name], sizes[info.name]) for info in TASKS}
    return runner_of(engine, batches)


def runner_of(
    engine: Engine, batches: Mapping[str, TaskBatch], stages: Mapping[str, Stages] | None = None
) -> StepRunner:
    """Return the training step that sees one batch per task again and again, in `stages` (1 a step)."""
    chosen = stages or dict.fromkeys(batches, ((0, 1),))
    feeds = {t: Feed(loader=Repeat(b.to(engine.device)), stages=chosen[t]) for t, b in batches.items()}
    return StepRunner(engine, feeds, METHODS["tbgn"].Config().build(tuple(feeds), 0), total_steps=1000)


def read_ds(name: str) -> dict[str, Any]:
    """Return one of the product's DeepSpeed configs, complete."""
    return ds_config.complete(
        ds_config.read(ROOT / "ds_configs" / f"{name}.json"), micro_batch=1, clip_norm=1.0
    )


def rates(engine: Engine, model: MultitaskModel, rate: float = 1e-4) -> list[float]:
    """Return one learning rate for each of the optimizer's groups."""
    return [rate] * len(OptimizerConfig(learning_rate=rate).build(model).param_groups)


def reset_peak() -> None:
    """Forget the highest resident memory of this process until now, where the kernel lets us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_gib() -> float:
    """Return the highest resident memory of this process since `reset_peak`, GiB."""
    return _status_gib("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def resident_gib() -> float:
    """Return this process's resident memory now, GiB; 0 where the kernel does not tell."""
    return _status_gib("VmRSS")


def _status_gib(name: str) -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 2**20
