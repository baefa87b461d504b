"""What needs no training: the figures that a model has to beat."""

import math

import numpy as np

from ufo_large.data.shards import ShardSet
from ufo_large.evaluation.ground_truth import GroundTruth
from ufo_large.kinds import kind_of
from ufo_large.kinds.protocols import Protocol

Figures = dict[str, dict[str, float]]


def trivial_baselines(shards: ShardSet, truths: dict[str, GroundTruth], protocol: Protocol) -> Figures:
    """Return {headline metric: {name: value}} on the truth, knowing of each task only its training labels.

    See `Kind.baselines`. Means over tasks of one kind. Tasks without training labels are left out.
    """
    figures: dict[str, dict[str, list[float]]] = {}
    for name, truth in truths.items():
        if not (shards.has_split(name, "train") and shards.split(name, "train").labeled):
            continue
        kind = kind_of(truth.info)
        of_metric = figures.setdefault(kind.headline.name, {})
        for baseline, say in kind.baselines(shards.split(name, "train")).items():
            metric = kind.metric(truth.info, protocol)
            for i, sample in enumerate(truth.samples):
                kind.count(metric, i, say(sample), truth.read(i))
            value = metric.compute()[kind.headline.name]
            of_metric.setdefault(baseline, []).append(0.0 if math.isnan(value) else value)
    return {m: {b: float(np.mean(v)) for b, v in found.items()} for m, found in figures.items()}
