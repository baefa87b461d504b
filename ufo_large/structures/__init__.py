"""Plain data that travels between the layers."""

from ufo_large.structures.batch import BoxTargets, ClassTargets, MaskTargets, SampleInfo, Targets, TaskBatch
from ufo_large.structures.features import Features
from ufo_large.structures.predictions import BoxPrediction, ClassPrediction, MaskPrediction, Prediction
from ufo_large.structures.roles import SHARED, Role, role_of, set_role
from ufo_large.structures.sample import BadSample, RawSample, TileSample, Window
from ufo_large.structures.source import FIX_REMEDY, Example, Finding, Findings, Reporter, SourceTask
from ufo_large.structures.task_info import IGNORE_INDEX, KINDS, Kind, TaskInfo

__all__ = [
    "FIX_REMEDY",
    "IGNORE_INDEX",
    "KINDS",
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
    "Kind",
    "MaskPrediction",
    "MaskTargets",
    "Prediction",
    "RawSample",
    "Reporter",
    "Role",
    "SampleInfo",
    "SourceTask",
    "Targets",
    "TaskBatch",
    "TaskInfo",
    "TileSample",
    "Window",
    "role_of",
    "set_role",
]
