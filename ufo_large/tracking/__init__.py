"""What a run records and shows: local log, console, wandb, environment, HTML report."""

from ufo_large.tracking.environment import describe_environment, read_environments, save_environment
from ufo_large.tracking.examples import save_examples
from ufo_large.tracking.jsonl import MetricsLog, read_metrics
from ufo_large.tracking.report import write_report
from ufo_large.tracking.tracker import Sink, Tracker

__all__ = [
    "MetricsLog",
    "Sink",
    "Tracker",
    "describe_environment",
    "read_environments",
    "read_metrics",
    "save_environment",
    "save_examples",
    "write_report",
]
