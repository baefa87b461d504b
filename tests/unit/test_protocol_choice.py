"""Which protocol counts where nobody says: the contest's for its own classes, else the standard."""

from dataclasses import replace

import pytest

from ufo_large.evaluation.protocol_choice import protocol_for, reason
from ufo_large.kinds.contest_classes import SEGMENTATION_NAMES
from ufo_large.structures import TaskInfo, numbered_info

CARS = TaskInfo(name="cls", kind="classification", class_names=("a", "b"), class_ids=(0, 1))
STREETS = numbered_info("streets", "segmentation", dict(enumerate(SEGMENTATION_NAMES)))


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ((CARS, STREETS), "official"),
        ((CARS,), "standard"),
        ((numbered_info("seg", "segmentation", {0: "road", 1: "car"}),), "standard"),
        ((replace(STREETS, class_names=tuple(str(i) for i in range(19))),), "standard"),
        ((replace(STREETS, class_ids=tuple(range(1, 20))),), "standard"),
        ((replace(STREETS, kind="classification"),), "standard"),
        ((), "standard"),
    ],
)
def test_the_classes_choose(tasks, expected):
    assert protocol_for(tasks) == expected
    assert f"protocol {expected}, " in reason(expected) and "--protocol " in reason(expected)
