"""Plain data that travels between the layers."""

from ufo_large.structures.batch import BoxTargets, ClassTargets, MaskTargets, SampleInfo, Targets, TaskBatch
from ufo_large.structures.features import Features
from ufo_large.structures.predictions import BoxPrediction, ClassPrediction, MaskPrediction, Prediction
from ufo_large.structures.roles import SHARED, Role, role_of, set_role
from ufo_large.structures.task_info import IGNORE_INDEX, KINDS, Kind, TaskInfo

__all__ = [
    "IGNORE_INDEX",
    "KINDS",
    "SHARED",
    "BoxPrediction",
    "BoxTargets",
    "ClassPrediction",
    "ClassTargets",
    "Features",
    "Kind",
    "MaskPrediction",
    "MaskTargets",
    "Prediction",
    "Role",
    "SampleInfo",
    "Targets",
    "TaskBatch",
    "TaskInfo",
    "role_of",
    "set_role",
]
