"""Names that tasks cannot have, because the library or torch uses them, are refused where data is read."""

import pytest

from ufo_large.kinds import require_kind
from ufo_large.structures import TaskInfo


def info(name: str, kind: str = "classification") -> TaskInfo:
    return TaskInfo(name=name, kind=kind, class_names=("a", "b"), class_ids=(0, 1))


@pytest.mark.parametrize(
    "name",
    [*("train", "val", "balance", "routing", "examples", "cosine"), *("top1", "ap50", "iou"), "trunk", "7"]
    + [*("keys", "values", "items", "pop", "update", "forward", "training", "type", "float")],
)
def test_reserved_names_are_refused_with_the_remedy(name):
    with pytest.raises(ValueError, match=rf"task '{name}': .*choose another, .*--data NAME=DIR"):
        info(name)


def test_the_name_of_another_kind_is_refused():
    """A recipe's settings of a kind are found by that name."""
    require_kind(info("classification"))
    with pytest.raises(ValueError, match="task 'detection': .* is a kind of task, but not this one's"):
        require_kind(info("detection"))


@pytest.mark.parametrize("name", ["cls", "dec", "seg", "cars", "city_seg", "trains", "weather-2"])
def test_other_names_pass(name):
    assert info(name).name == name
