"""Plain data that travels between the layers."""

from ufo_large.structures.batch import BoxTargets, ClassTargets, MaskTargets, SampleInfo, TaskBatch
from ufo_large.structures.features import Features, Queries
from ufo_large.structures.predictions import (
    BoxPrediction,
    ClassPrediction,
    MaskPrediction,
    Prediction,
    on_cpu,
)
from ufo_large.structures.roles import SHARED, Role, learning_rate_of, role_of, set_learning_rate, set_role
from ufo_large.structures.sample import BadSample, RawSample, TileSample, Window
from ufo_large.structures.source import FIX_REMEDY, Example, Finding, Findings, Reporter, SourceTask
from ufo_large.structures.task_info import IGNORE_INDEX, TaskInfo, numbered_info

__all__ = [
    "FIX_REMEDY",
    "IGNORE_INDEX",
    "SHARED",
    "BadSample",
    "BoxPrediction",
    "BoxTargets",
    "ClassPrediction",
    "ClassTargets",
    "Example",
    "Features",
    "Finding",
    "Findings",
    "MaskPrediction",
    "MaskTargets",
    "Prediction",
    "Queries",
    "RawSample",
    "Reporter",
    "Role",
    "SampleInfo",
    "SourceTask",
    "TaskBatch",
    "TaskInfo",
    "TileSample",
    "Window",
    "numbered_info",
    "on_cpu",
    "learning_rate_of",
    "role_of",
    "set_learning_rate",
    "set_role",
]
