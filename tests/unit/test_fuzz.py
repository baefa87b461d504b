"""Damaged files end in an error of ours that names them; benchmarks/fuzz.py tries many more."""

import random

import pytest

from ufo_large.recipes import load_recipe
from ufo_large.testing.fuzzing import fuzz, targets
from ufo_large.testing.mutations import damaged_bytes, damaged_json


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return targets(tmp_path_factory.mktemp("fuzz"), load_recipe("demo"))


NAMES = (
    *("label list", "contest's COCO", "COCO", "VOC", "YOLO labels", "data.yaml", "CSV", "metadata.jsonl"),
    *("dataset.json", "index", "shard", "submission.json", "run's config.json", "complete.json", "rank file"),
    *("weights' index", "--set", "any JSON", "JPEG", "mask"),
)


def test_every_reader_is_tried(known):
    assert set(known) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_damaged(name, known):
    outcome = fuzz(known[name], 60, seed=1)
    assert outcome.inputs == 60 and not outcome.wrong and not outcome.slow
    assert outcome.read + outcome.refused == 60


def test_the_same_seed_gives_the_same_damage():
    for damage, content in ((damaged_bytes, b"some bytes"), (damaged_json, b'{"a": [1, {"b": "c"}]}')):
        found = {seed: damage(content, random.Random(seed)) for seed in range(50)}
        assert all(damage(content, random.Random(seed)) == value for seed, value in found.items())
        assert len(set(found.values())) > 25
