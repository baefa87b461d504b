"""Holding images of the train split out for validation: by class, seeded, said."""

from collections import Counter
from pathlib import Path

import pytest

from ufo_large.data.shard_index import read_dataset
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.val_split import hold_out, read_held_out
from ufo_large.media.pictures import FileFacts
from ufo_large.structures import Example, SourceTask
from ufo_large.testing.models import task_info
from ufo_large.testing.tiny_shards import write_tiny_data


def labelled(labels: list[int], contents: list[str] | None = None, **splits):
    """One classification task with `labels` in train, and the facts of its pictures."""
    contents = contents or [f"bytes of {i}" for i in range(len(labels))]
    train = [
        Example(image=Path(f"{i}.png"), file_name=f"{i}.png", image_id=i, where="", truth=label)
        for i, label in enumerate(labels)
    ]
    facts = {e.image: FileFacts(sha256=content) for e, content in zip(train, contents, strict=True)}
    info = task_info("cls", "classification", max(labels) + 1)
    return SourceTask(info, {"train": train, **splits}), facts


def names(examples):
    return [e.file_name for e in examples]


def test_every_class_gives_its_share_and_the_official_order_stays():
    task, facts = labelled([0] * 40 + [1] * 20)
    (split,), (held,) = hold_out([task], facts, 0.15, seed=0)
    assert Counter(e.truth for e in split.splits["val"]) == {0: 6, 1: 3}
    assert list(split.splits) == ["train", "val"]
    assert names(split.splits["train"]) == [
        n for n in names(task.splits["train"]) if n not in set(names(split.splits["val"]))
    ]
    assert held.images == tuple(names(split.splits["val"])) and held.left == 51 and not held.unseen
    assert "9 of 60 train images validate" in str(held) and held.images[0] in str(held)


def test_the_seed_alone_decides():
    task, facts = labelled([0, 1] * 30)
    first, again, other = (hold_out([task], facts, 0.2, seed)[1][0].images for seed in (0, 0, 1))
    assert first == again != other


def test_a_class_with_one_image_stays_in_training_and_is_told():
    task, facts = labelled([0] * 10 + [1])
    (split,), (held,) = hold_out([task], facts, 0.3, seed=0)
    assert 1 in {e.truth for e in split.splits["train"]}
    assert held.unseen == (task.info.class_names[1],) and task.info.class_names[1] in str(held)


def test_a_small_class_does_not_pay_for_those_with_one_image():
    """Twenty classes of one image owe three; the class of five gives one of them, the large one the rest."""
    task, facts = labelled([*range(20), *[20] * 5, *[21] * 100])
    (split,), _ = hold_out([task], facts, 0.15, seed=0)
    assert Counter(e.truth for e in split.splits["val"]) == {20: 1, 21: 15}


@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 1], list(range(12)), [0, 1] * 6])
def test_few_images_leave_some_on_both_sides(labels):
    task, facts = labelled(labels)
    (split,), _ = hold_out([task], facts, 0.15, seed=0)
    assert split.splits["val"] and split.splits["train"]
    assert len(split.splits["val"]) + len(split.splits["train"]) == len(labels)


def test_equal_pictures_lie_on_one_side():
    task, facts = labelled([0] * 20, contents=[f"bytes {i // 2}" for i in range(20)])
    (split,), _ = hold_out([task], facts, 0.3, seed=0)
    sides = [{facts[e.image].sha256 for e in split.splits[s]} for s in ("train", "val")]
    assert sides[1] and not sides[0] & sides[1]


def test_a_val_split_that_is_there_stays():
    task, facts = labelled([0] * 10, val=[])
    (same,), held = hold_out([task], facts, 0.5, seed=0)
    assert same is task and not held


def test_a_single_image_is_refused():
    for task, facts in (labelled([0]), labelled([0, 0], contents=["same"] * 2)):
        with pytest.raises(ValueError, match="'cls': one image to train on, or copies of one, leave none to"):
            hold_out([task], facts, 0.5, seed=0)


def test_shards_have_the_split_and_say_which_images(tmp_path):
    data = write_tiny_data(tmp_path / "train_data", count=12)
    shards = tmp_path / "shards"
    dataset = make_shards([data], shards, ShardingOptions(val_share=0.25))
    counts = {name: {split: index.count for split, index in s.items()} for name, s in dataset.splits.items()}
    assert all(c["train"] + c["val"] == 12 and c["val"] in (2, 3, 4) for c in counts.values())
    held = {h.task: h for h in read_held_out(shards)}
    assert {n: len(h.images) for n, h in held.items()} == {n: c["val"] for n, c in counts.items()}
    again = make_shards([data], shards, ShardingOptions(val_share=0.25))
    assert again.fingerprint == dataset.fingerprint
    make_shards([data], shards, ShardingOptions())
    assert "val" not in read_dataset(shards).splits["cls"] and not read_held_out(shards)
