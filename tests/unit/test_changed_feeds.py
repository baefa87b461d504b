"""Views for all tasks of a run at once, and the names of results that have test-time options."""

from dataclasses import replace

import pytest

from ufo_large.data.views import Views
from ufo_large.evaluation.changed_feeds import LONGEST_NAME, for_all_tasks, name_of
from ufo_large.kinds import KINDS
from ufo_large.kinds.depth import Depth
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import SavedRun
from ufo_large.structures import TaskInfo


def run_of(*kinds: str) -> SavedRun:
    tasks = tuple(TaskInfo(name=f"my_{kind}", kind=kind) for kind in kinds)
    return SavedRun(config=load_recipe("demo_depth"), tasks=tasks, fingerprint="", data="")


def views_of(saved: SavedRun, wanted: Views) -> dict[str, Views]:
    feeds = saved.test_feeds(for_all_tasks(saved, wanted))
    return {info.kind: info.choose(feeds).views.for_task(info) for info in saved.tasks}


def test_each_kind_takes_what_it_can():
    wanted = Views(flip=True, scales=(0.75, 1.0), fusion="wbf")
    assert views_of(run_of("classification", "detection", "depth"), wanted) == {
        "classification": Views(flip=True, scales=(0.75, 1.0), fusion="mean"),
        "detection": wanted,
        "depth": Views(flip=True, fusion="mean"),
    }


def test_a_task_with_a_feed_of_its_own_takes_them_there():
    saved = run_of("detection")
    feeds = saved.config.tasks
    own = SavedRun(
        config=replace(saved.config, tasks={**feeds, "my_detection": feeds["detection"]}),
        tasks=saved.tasks,
        fingerprint="",
        data="",
    )
    assert for_all_tasks(own, Views(flip=True)) == ["tasks.my_detection.loader.views.flip=true"]


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("scales", Views(flip=True, scales=(1.5,))),
        ("fusion", Views(fusion="mean")),
    ],
)
def test_an_option_that_no_task_can_have_is_refused(option, wanted):
    with pytest.raises(ValueError, match=rf"--{option} has no effect on any task .*: my_depth \(depth\)"):
        for_all_tasks(run_of("depth"), wanted)


def test_names_tell_options_apart_and_are_safe():
    one = ["tasks.detection.loader.tiles.rows=2"]
    assert name_of(Views(flip=True, scales=(0.75, 1.0), fusion="wbf"), []) == "flip-scales_0.75_1-wbf"
    assert name_of(Views(), one) == "detection.tiles.rows_2"
    many = [f"tasks.detection.loader.image_size={n},../{n}" for n in range(20)]
    names = {name_of(Views(), many), name_of(Views(), many[::-1]), name_of(Views(flip=True), many)}
    assert len(names) == 3 and all(len(name) <= LONGEST_NAME and "/" not in name for name in names)


class Foreign(Depth):
    """A kind from outside that says no way to join predictions."""

    name = "foreign"
    fusions = ()


def test_a_kind_that_cannot_join_is_left_as_it_is(monkeypatch):
    monkeypatch.setitem(KINDS, "foreign", Foreign())
    saved = run_of("foreign", "detection")
    assert for_all_tasks(saved, Views(flip=True)) == ["tasks.detection.loader.views.flip=true"]
    with pytest.raises(ValueError, match=r"--flip has no effect on any task of the run: my_foreign"):
        for_all_tasks(run_of("foreign"), Views(flip=True))
