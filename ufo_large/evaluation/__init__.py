"""Evaluation: predict with a finished run, write the contest's submission, score it."""

from ufo_large.evaluation.ground_truth import GroundTruth, truth_of_folder, truth_of_shards
from ufo_large.evaluation.score import score_answers, score_submission
from ufo_large.evaluation.submission import write_submission
from ufo_large.evaluation.submission_reader import read_submission
from ufo_large.kinds.protocols import PROTOCOLS, Protocol, get_protocol

__all__ = [
    "PROTOCOLS",
    "GroundTruth",
    "Protocol",
    "get_protocol",
    "read_submission",
    "score_answers",
    "score_submission",
    "truth_of_folder",
    "truth_of_shards",
    "write_submission",
]
