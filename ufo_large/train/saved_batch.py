"""A batch as a file of tensors and plain values, and what a run's model makes of it."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from ufo_large import structures
from ufo_large.distributed.plain_files import read_plain, write_plain
from ufo_large.evaluation.loading import find_checkpoint, load_run
from ufo_large.kinds import kind_of
from ufo_large.runs.folder import RunFolder
from ufo_large.structures import SampleInfo, TaskBatch, TaskInfo
from ufo_large.structures.batch import map_arrays


def save_batch(batch: TaskBatch, file: Path) -> None:
    """Write a batch; raises OSError or RuntimeError where the disk refuses it."""
    own = map_arrays(batch, lambda tensor: tensor.cpu().clone())  # a view would bring all of its storage
    targets = {f.name: getattr(own.targets, f.name) for f in fields(own.targets)}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_plain(
        {
            "task": own.task,
            "images_BCHW": own.images_BCHW,
            "sizes_B2": own.sizes_B2,
            "targets": {"type": type(own.targets).__name__, "values": targets},
            "samples": [asdict(sample) for sample in own.samples],
        },
        file,
    )


def read_batch(file: Path, tasks: tuple[TaskInfo, ...]) -> TaskBatch:
    """Read what `save_batch` wrote for one of `tasks`; ValueError where it is of another run, or none."""
    try:
        body = read_plain(file)
        info = next(task for task in tasks if task.name == body["task"])
        targets = _targets_type(info, body["targets"]["type"])(**body["targets"]["values"])
        samples = tuple(SampleInfo(**sample) for sample in body["samples"])
        return TaskBatch(body["task"], body["images_BCHW"], body["sizes_B2"], targets, samples)
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file; give one of RUN/not_finite") from None
    except StopIteration:
        names = ", ".join(task.name for task in tasks)
        raise ValueError(
            f"{file}: of task {body['task']!r}, but the run has {names}; give its --workdir"
        ) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: no saved batch ({error!r}); give one of RUN/not_finite") from None


def _targets_type(info: TaskInfo, name: str) -> Any:
    """Return the dataclass of a kind's targets by its name; no module is imported for it."""
    for module in (structures, sys.modules[type(kind_of(info)).__module__]):
        if is_dataclass(found := getattr(module, name, None)):
            return found
    raise TypeError(f"targets of type {name!r} are not known to kind {info.kind!r}")


def replay(run: RunFolder, files: list[Path], checkpoint: str | None) -> Iterator[str]:
    """Yield lines that tell each batch's losses and which gradients of them are not finite.

    In float32 on one device, in training mode. `checkpoint`: a name or `last`; without, the final weights
    where there are any, else the last checkpoint.
    """
    saved = run.read()
    batches = {file: read_batch(file, saved.tasks) for file in files}
    chosen = checkpoint or (None if run.weights.exists() else "last")
    place = None if chosen is None else find_checkpoint(run, chosen)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_run(run, saved, device, place).train()
    yield f"weights: {place or run.weights}"
    for file, batch in batches.items():
        torch.manual_seed(saved.config.seed)
        names = ", ".join(sample.file_name for sample in batch.samples)
        yield f"{file}: task {batch.task}, {len(batch)} images: {names}"
        losses = model(batch.to(device))
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        yield from (f"  {name} {float(loss):g}" for name, loss in [*losses.items(), ("total", total)])
        yield f"  {_gradients(model, total)}"


def _gradients(model: torch.nn.Module, total: torch.Tensor) -> str:
    model.zero_grad()
    total.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    bad = [name for name, gradient in found.items() if not bool(gradient.isfinite().all())]
    if bad:
        return f"gradients not finite: {len(bad)} of {len(found)} parameters, the first {bad[0]}"
    norm = torch.stack([gradient.double().norm() for gradient in found.values()]).norm()
    return f"gradients finite, norm {float(norm):g}"
