"""What there is to say of a run before its first step and after its last."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from ufo_large.config import loaded_plugins, without_credentials
from ufo_large.data.batching import Tokens
from ufo_large.data.shards import SplitReader
from ufo_large.distributed import comm
from ufo_large.distributed.checkpoint import finished_steps
from ufo_large.models.multitask import MultitaskModel
from ufo_large.runs.config import RunConfig
from ufo_large.runs.folder import RunFolder
from ufo_large.structures import TaskInfo, role_of
from ufo_large.tracking.banner import RunFacts, TaskFacts
from ufo_large.tracking.jsonl import FILE_NAME as METRICS_LOG


def facts_of(
    config: RunConfig, model: MultitaskModel, readers: Mapping[str, SplitReader], checkpoint: Path | None
) -> RunFacts:
    """Return what the banner says of a run that goes on from `checkpoint`, if any."""
    tasks = [_task_facts(config, model, info, readers[name]) for name, info in model.tasks.items()]
    return RunFacts(
        recipe=config.name,
        steps=config.steps,
        ranks=comm.world_size(),
        memory=config.ds if config.ds != "none" else "without DeepSpeed",
        weights=_weights(config, checkpoint),
        is_random=checkpoint is None and config.pretrained is None,
        parameters=sum(map(size, model.parameters())),
        trained=sum(size(p) for p in model.parameters() if p.requires_grad),
        trunk=sum(map(size, model.trunk.parameters())),
        tasks=tuple(tasks),
    )


def _task_facts(config: RunConfig, model: MultitaskModel, info: TaskInfo, reader: SplitReader) -> TaskFacts:
    feed = config.task(info)
    images = feed.loader.batch_shapes(reader, Tokens.of(model.trunk.vit)).mean_images
    return TaskFacts(
        name=info.name,
        kind=info.kind,
        parameters=sum(size(p) for p in model.parameters() if role_of(p).task in (None, info.name)),
        images=len(reader),
        micro_batch=feed.loader.micro_batch,
        mean_images=images,
        micro_batches=feed.micro_batches,
        seen=images * comm.world_size() * feed.micro_batches_in(config.steps),
    )


def _weights(config: RunConfig, checkpoint: Path | None) -> str:
    if checkpoint is not None:
        return f"{checkpoint}, {finished_steps(checkpoint)} of {config.steps} steps"
    if config.pretrained is None:
        return "random initialisation"
    return f"{config.pretrained}, what fits of it" if config.take_what_fits else config.pretrained


def size(parameter: nn.Parameter) -> int:
    """Return the number of elements; a sharded parameter holds none itself."""
    return getattr(parameter, "ds_numel", parameter.numel())


def places_of(folder: RunFolder) -> list[tuple[str, Path]]:
    """Return (what, where) of everything that training leaves."""
    return [
        ("weights", folder.weights),
        ("checkpoints", folder.checkpoints),
        ("log", folder.root / METRICS_LOG),
    ]


def next_commands(folder: RunFolder, data: str, tasks: Sequence[TaskInfo]) -> list[list[str]]:
    """Return what to type after a run: score it, look at it, use it, take its first task along.

    An address of shards lacks its credentials, which are not written down.
    """
    run, plugins = ["--workdir", str(folder.root)], plugin_words()
    return [
        ["python", "eval/run_all.py", *run, "--data", without_credentials(data), *plugins],
        ["python", "eval/report.py", *run, *plugins],
        ["python", "launchers/predict.py", *run, "PICTURE", *plugins],
        ["python", "launchers/export.py", *run, "--task", tasks[0].name, "--to", "timm", *plugins],
    ]


def plugin_words() -> list[str]:
    """Return the words that load this process's plugins in another command."""
    return [word for name in loaded_plugins() for word in ("--plugin", name)]
