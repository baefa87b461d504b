"""A run's folder as training and evaluation leave it, made of invented numbers: for tests of what reads it.

Legend: M tasks.
"""

import json
from pathlib import Path

import numpy as np
import torch

from ufo_large.evaluation.reviewed import write_figures
from ufo_large.kinds import PredictionExample, kind_of
from ufo_large.kinds.protocols import get_protocol
from ufo_large.metrics import TrueBoxes
from ufo_large.structures import BoxPrediction, ClassPrediction, MaskPrediction, SampleInfo, TaskInfo
from ufo_large.tracking import MetricsLog, save_environment, save_examples

TASKS = ("cls", "dec", "seg")
PARTS = {"cls": ["cross_entropy"], "dec": ["box", "class", "centerness"], "seg": ["cross_entropy", "dice"]}
INFOS = {
    "cls": TaskInfo(
        name="cls", kind="classification", class_names=("sedan", "van <R&D>", "truck"), class_ids=(0, 1, 2)
    ),
    "dec": TaskInfo(name="dec", kind="detection", class_names=("stop", "yield"), class_ids=(1, 2)),
    "seg": TaskInfo(
        name="seg", kind="segmentation", class_names=("road", "car", "sky"), class_ids=(0, 13, 10)
    ),
}


def simulate_run(
    workdir: Path, steps: int = 300, tasks: tuple[str, ...] = TASKS, *, scored: bool = True, blocks: int = 4
) -> Path:
    """Fill `workdir` with the logs, scores and examples of a run of `steps` steps, and return it."""
    log = MetricsLog(workdir / "metrics.jsonl")
    random = np.random.default_rng(0)
    for step in range(1, steps + 1):
        log.log(step, step_values(step, steps, tasks, random, blocks))
        if step % max(1, steps // 6) == 0:
            done = step / steps
            log.log(step, {f"val/{t}/{m}": 0.8 * done**0.5 for t, m in zip(tasks, METRICS, strict=False)})
    log.finish()
    (workdir / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    save_environment(workdir)
    if scored:
        (workdir / "metrics.json").write_text(json.dumps(SCORES), encoding="utf-8")
        save_examples(workdir, [e for t in tasks for e in invented_examples(t, random)])
        invent_figures(workdir, tasks)
    return workdir


def invent_figures(folder: Path, tasks: tuple[str, ...] = TASKS, images: int = 60) -> None:
    """Write the figures of an evaluation that saw the two invented predictions again and again."""
    random, reviews, metrics = np.random.default_rng(1), {}, {}
    for task in tasks:
        kind, info = kind_of(INFOS[task]), INFOS[task]
        reviews[task], metrics[task] = kind.review(info), kind.metric(info, get_protocol("standard"))
        examples = invented_examples(task, random)
        for image in range(images):
            example = examples[int(random.random() < 0.3)]
            said, confidence = kind.said(example.prediction), kind.confidence(example.prediction)
            kind.count(metrics[task], image, said, example.truth)
            reviews[task].add(image, said, example.truth, confidence)
    write_figures(folder, reviews, metrics)


def step_values(step: int, steps: int, tasks, random: np.random.Generator, blocks: int) -> dict[str, float]:
    """Return what a training step logs."""
    done = step / steps
    values: dict[str, float] = {}
    for i, task in enumerate(tasks):
        parts = {f"{task}/{p}": (3 - i) * np.exp(-3 * done) * random.lognormal(0, 0.12) for p in PARTS[task]}
        norm = 10.0 ** (1 - i) * random.lognormal(0, 0.3)
        values |= parts | {f"{task}/total": sum(parts.values())}
        values |= {
            f"balance/{task}/weight": 1 / norm,
            f"balance/{task}/grad_norm": norm,
            f"balance/{task}/grad_norm_after": 1.0,
            f"balance/{task}/share": 1 / len(tasks) + 0.05 * random.standard_normal(),
            f"train/epoch/{task}": step / (40 + 30 * i),
            f"train/images_per_second/{task}": 64 / len(tasks),
            f"train/tokens_per_second/{task}": 64 * 257 / len(tasks),
            f"train/mfu/{task}": 0.3 + 0.05 * i,
            f"train/task_seconds/{task}": 0.1 + 0.05 * i,
            f"train/tflops/{task}": 297 + 50 * i,
            f"routing/{task}/entropy": 0.69 * (1 - done),
        }
        values |= {
            f"routing/{task}/block{b}/own_share": 0.5 + 0.5 * done * b / max(1, blocks) for b in range(blocks)
        }
        for b in range(blocks):
            own = 0.5 + 0.5 * done * ((i + b) % 2)
            path = f"routing/{task}/path/blocks.{b}.mlp"
            values |= {f"{path}/shared": 1 - own, f"{path}/own": own}
    pairs = [f"{a}-{b}" for i, a in enumerate(tasks) for b in tasks[i + 1 :]]
    cosines = {f"balance/cosine/{p}": float(np.tanh(0.3 * random.standard_normal())) for p in pairs}
    if pairs:
        values |= cosines | {"balance/conflict_rate": float(np.mean([c < 0 for c in cosines.values()]))}
    warm = min(1.0, 20 * done)
    return values | {
        "train/lr": 3e-4 * warm * 0.5 * (1 + np.cos(np.pi * done)),
        "train/grad_norm": random.lognormal(0, 0.2),
        "train/step_seconds": 0.5 + 0.02 * random.standard_normal(),
        "train/images_per_second": 64 + random.standard_normal(),
        "train/tokens_per_second": 257 * (64 + random.standard_normal()),
        "train/mfu": 0.31 + 0.005 * random.standard_normal(),
        "train/tflops": 307 + 5 * random.standard_normal(),
        "train/data_wait_share": 0.004 * random.random(),
    }


def invented_examples(task: str, random: np.random.Generator) -> list[PredictionExample]:
    """Return a right and a wrong prediction of a task, on noise."""
    info = INFOS[task]
    image = random.integers(60, 200, (90, 120, 3), dtype=np.uint8)
    sample = SampleInfo(key="a", file_name=f"{task} <1>.jpg", height=90, width=120, image_id=1, order=0)
    if info.kind == "classification":
        said = ClassPrediction(sample, torch.tensor([0.2, 0.7, 0.1]))
        truths = [1, 2]
    elif info.kind == "detection":
        boxes = torch.tensor([[10.0, 12, 40, 44], [60, 50, 90, 80], [5, 5, 9, 9]])
        said = BoxPrediction(sample, boxes, torch.tensor([0.9, 0.6, 0.05]), torch.tensor([0, 1, 1]))
        right = TrueBoxes(
            boxes_xywh_G4=np.array([[10.0, 12, 30, 32], [61, 50, 30, 30]]), labels_G=np.array([0, 1])
        )
        truths = [right, TrueBoxes(boxes_xywh_G4=np.zeros((0, 4)), labels_G=np.zeros(0, np.int64))]
    else:
        mask = np.repeat(np.arange(3, dtype=np.uint8)[::-1], 30)[:, None].repeat(120, axis=1)
        said = MaskPrediction(sample, torch.from_numpy(mask))
        shifted = np.roll(mask, 8, axis=1)
        shifted[:5] = 255
        truths = [mask, shifted]
    return [PredictionExample(info=info, image_HW3=image, prediction=said, truth=t) for t in truths]


METRICS = ("top1", "map50", "miou")
SCORES = {
    "top1": 0.914,
    "map50": 0.532,
    "miou": 0.671,
    "score": 0.7057,
    "protocol": "standard",
    "baselines": {
        "top1": {"majority class": 0.033, "nearest neighbour on pixels": 0.097, "HOG + ridge": 0.239},
        "map50": {"prior boxes": 0.002},
        "miou": {"all road": 0.024, "most frequent class per position": 0.17},
    },
    "images": {"cls": 360, "dec": 182, "seg": 233},
    "details": {
        "cls/top5": 0.97,
        "cls/top1/sedan": 0.95,
        "cls/top1/van <R&D>": 0.81,
        "cls/top1/truck": None,
        "dec/map50": 0.532,
        "dec/ap50/stop": 0.7,
        "dec/ap50/yield": 0.36,
        "seg/iou/road": 0.93,
        "seg/iou/car": 0.41,
        "seg/iou/sky": 0.89,
    },
}
CONFIG = {
    "_class": "ufo_large.runs.config:RunConfig",
    "name": "demo",
    "steps": 300,
    "model": {"_class": "ufo_large.models.multitask:MultitaskModel.Config", "trunk": "vit_tiny_patch16_224"},
    "tasks": {"classification": {"micro_batches": 1}, "detection": {"micro_batches": 2}},
    "optimizer": {"lr": 3e-4, "betas": [0.9, 0.95], "note": "<script>alert(1)</script>"},
}
