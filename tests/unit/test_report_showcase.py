"""Examples of an evaluation: image, truth and prediction belong together, whatever the task.

The pictures tell their truth in the pixels (testing/tiny_shards.py), so a model that only looks is right.
"""

import numpy as np
import pytest
import torch

from ufo_large.data.loader import LoaderConfig
from ufo_large.data.shards import ShardSet
from ufo_large.evaluation.evaluator import Evaluator
from ufo_large.evaluation.examples import predict_examples
from ufo_large.evaluation.reviewed import Reviewed
from ufo_large.kinds.review import SPREAD, SURE, WORST
from ufo_large.structures import BoxPrediction, ClassPrediction, MaskPrediction
from ufo_large.testing.tiny_shards import NUM_CLASSES, tiny_shards
from ufo_large.tracking import save_examples
from ufo_large.tracking.examples import read_examples


class Looker:
    """Classes from the grey level, masks from red, one wrong box everywhere; scores in bfloat16."""

    training = True

    def train(self, mode=True):
        self.training = mode

    def predict(self, batch):
        assert not self.training and not torch.is_grad_enabled()
        return [
            self._one(batch.task, image, s) for image, s in zip(batch.images_BCHW, batch.samples, strict=True)
        ]

    def _one(self, task, image_CHW, sample):
        if task == "cls":
            label = (int(image_CHW[0, 8, 8]) - 40) // 20
            scores = torch.nn.functional.one_hot(torch.tensor(label), NUM_CLASSES)
            return ClassPrediction(sample, scores.to(torch.bfloat16))
        if task == "dec":
            box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
            return BoxPrediction(sample, box, torch.tensor([0.5]), torch.tensor([0]))
        red = (image_CHW[0] > 150) & (image_CHW[1] < 50)
        size = (sample.height, sample.width)
        mask = torch.nn.functional.interpolate(red[None, None].float(), size=size, mode="nearest")
        return MaskPrediction(sample, mask[0, 0].to(torch.uint8))


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory):
    shards = ShardSet.open(tiny_shards(tmp_path_factory.mktemp("data"), count=10))
    loader = LoaderConfig(micro_batch=2, image_size=(64, 64))
    kinds = ("classification", "detection", "segmentation")
    return Evaluator(shards=shards, loaders=dict.fromkeys(kinds, loader), split="train")


@pytest.fixture(scope="module")
def examples(evaluator):
    model = Looker()
    found = predict_examples(evaluator, model, per_task=5)
    assert model.training
    return found


def of_task(examples, task):
    return [e for e in examples if e.info.name == task]


def test_five_evenly_spread_images_a_task(examples):
    assert [e.info.name for e in examples] == ["cls"] * 5 + ["dec"] * 5 + ["seg"] * 5
    assert len({e.prediction.sample.key for e in of_task(examples, "cls")}) == 5
    for e in examples:
        assert e.image_HW3.shape == (e.prediction.sample.height, e.prediction.sample.width, 3)


def test_image_truth_and_prediction_are_of_the_same_picture(examples):
    for e in of_task(examples, "cls"):
        assert e.image_HW3[0, 0, 0] == 40 + 20 * e.truth and e.prediction.label == e.truth
    for e in of_task(examples, "seg"):
        np.testing.assert_array_equal(e.image_HW3[..., 0] == 200, e.truth == 1)
        assert (e.prediction.mask_HW.numpy() == e.truth).mean() > 0.9
    boxes = 0
    for e in of_task(examples, "dec"):
        inside = np.zeros(e.image_HW3.shape[:2], bool)
        for x, y, w, h in e.truth.boxes_xywh_G4.round().astype(int):
            inside[y : y + h, x : x + w] = True
        np.testing.assert_array_equal((e.image_HW3 == (0, 200, 0)).all(axis=-1), inside)
        boxes += len(e.truth.labels_G)
    assert boxes > 0


def test_images_worth_a_look_come_with_their_reason(evaluator):
    """Numbers count in official order, which is not that of the shards; one image may be shown twice."""
    reviewed = {"dec": Reviewed({WORST: [7, 3], SURE: [0]}, shown_from=0.25)}
    found = predict_examples(evaluator, Looker(), 1, reviewed)
    assert [e.group for e in of_task(found, "cls")] == [SPREAD]
    signs = of_task(found, "dec")
    assert [e.group for e in signs] == [SPREAD, WORST, WORST, SURE]
    assert [e.prediction.sample.order for e in signs[1:]] == [7, 3, 0]
    assert {e.shown_from for e in signs} == {0.25}
    for e in signs:
        green = (e.image_HW3 == (0, 200, 0)).all(axis=-1)
        assert green.any() == bool(len(e.truth.labels_G))


def test_they_can_be_saved_and_say_who_was_right(examples, tmp_path):
    save_examples(tmp_path, examples)
    cards = read_examples(tmp_path)
    assert [c.good for c in cards[:5]] == [True] * 5 and [c.good for c in cards[5:10]] == [False] * 5
    assert all("wrong" in c.headline for c in cards[5:10])
