"""Write the contest's submission, read both forms of it, and name everything that is wrong with one."""

import json

import numpy as np
import pytest
import torch

from ufo_large.evaluation.ground_truth import GroundTruth
from ufo_large.evaluation.submission import write_submission
from ufo_large.evaluation.submission_reader import read_submission
from ufo_large.kinds import kind_of
from ufo_large.structures import BoxPrediction, ClassPrediction, MaskPrediction, SampleInfo, TaskInfo


def info(name, kind, ids):
    return TaskInfo(name=name, kind=kind, class_names=tuple(f"c{i}" for i in ids), class_ids=tuple(ids))


CLS, DEC = info("cls", "classification", [0, 3, 13]), info("dec", "detection", [1, 37])
SEG = info("seg", "segmentation", [0, 2])


def sample(name, order):
    return SampleInfo(key=name, file_name=name, height=4, width=6, image_id=900 + order, order=order)


def entries_of(prediction, task):
    return kind_of(task).entries(prediction, task)


def truth(task, *names):
    samples = tuple(sample(name, order) for order, name in enumerate(names))
    return GroundTruth(info=task, samples=samples, read=lambda i: None)


TRUTHS = {
    "cls": truth(CLS, "a.jpg", "b.jpg"),
    "dec": truth(DEC, "x.jpg", "y.jpg", "z.jpg"),
    "seg": truth(SEG, "s.jpg"),
}
RING = [[0, 0], [4, 0], [4, 4]]
BOX = {"image_id": 3, "category_id": 37, "bbox": [1.5, 2, 3, 4], "score": 0.5}
GOOD = {"cls": [{"a.jpg": 13}, {"b.jpg": 0}], "dec": [BOX], "seg": [{"s.png": {"2": [RING], "0": []}}]}


def written(tmp_path, content):
    file = tmp_path / "submission.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def problems_of(tmp_path, content):
    with pytest.raises(ValueError) as caught:
        read_submission(written(tmp_path, content), TRUTHS)
    assert str(tmp_path / "submission.json") in str(caught.value)
    return str(caught.value)


def test_entries_speak_the_users_ids_and_line_numbers():
    scores = torch.tensor([0.1, 0.2, 0.7])
    assert entries_of(ClassPrediction(sample("a.jpg", 0), scores), CLS) == [{"a.jpg": 13}]
    boxes = BoxPrediction(
        sample("z.jpg", 2), torch.tensor([[1.5, 2, 4.5, 6]]), torch.tensor([0.1]), torch.tensor([1])
    )
    entry = {"image_id": 3, "category_id": 37, "bbox": [1.5, 2.0, 3.0, 4.0], "score": 0.1}
    assert entries_of(boxes, DEC) == [entry]
    mask = torch.zeros(4, 6, dtype=torch.uint8)
    mask[:, 3:] = 1
    ((name, rings),) = entries_of(MaskPrediction(sample("s.jpg", 0), mask), SEG)[0].items()
    assert name == "s.png" and list(rings) == ["0", "2"]
    assert sorted(rings["2"][0]) == [[3, 0], [3, 3], [5, 0], [5, 3]]


def test_no_boxes_is_no_entry():
    nothing = BoxPrediction(sample("x.jpg", 0), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    assert entries_of(nothing, DEC) == []


def test_numbers_survive_the_file_exactly(tmp_path):
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(50, 4, generator=generator) * 700
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.rand(50, generator=generator)
    found = BoxPrediction(sample("y.jpg", 1), boxes, scores, torch.ones(50).long())
    file = tmp_path / "submission.json"
    write_submission(file, GOOD | {"dec": entries_of(found, DEC)})
    back = read_submission(file, TRUTHS)["dec"]
    assert [len(b.scores_N) for b in back] == [0, 50, 0]
    np.testing.assert_array_equal(back[1].scores_N.astype(np.float32), scores.numpy())
    np.testing.assert_array_equal(
        back[1].boxes_xywh_N4.astype(np.float32)[:, 2:], (boxes[:, 2:] - boxes[:, :2]).numpy()
    )


def test_a_nan_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_submission(tmp_path / "s.json", {"dec": [BOX | {"score": float("nan")}]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["lists", "dicts"])
def test_both_forms_say_the_same(tmp_path, form):
    content = GOOD
    if form == "dicts":
        content = GOOD | {"cls": {"b.jpg": 0, "a.jpg": 13}, "seg": GOOD["seg"][0]}
    answers = read_submission(written(tmp_path, content), TRUTHS)
    assert answers["cls"] == [13, 0]
    assert [b.labels_N.tolist() for b in answers["dec"]] == [[], [], [37]]
    assert answers["dec"][2].boxes_xywh_N4.tolist() == [[1.5, 2, 3, 4]]
    assert list(answers["seg"][0]) == [2, 0]  # the order decides what covers what
    assert answers["seg"][0][2][0].tolist() == RING


def test_entries_of_tasks_without_truth_are_not_read(tmp_path):
    file = written(tmp_path, GOOD | {"dec": "nonsense"})
    assert set(read_submission(file, {"cls": TRUTHS["cls"]})) == {"cls"}


def test_missing_twice_and_unknown_images_are_listed_together(tmp_path):
    text = problems_of(
        tmp_path, GOOD | {"cls": [{"a.jpg": 1}, {"a.jpg": 2}, {"q.jpg": 1}], "seg": [{"s.jpg": {}}]}
    )
    assert "5 problems" in text
    assert "cls: 'a.jpg' is answered twice" in text
    assert "cls: 'q.jpg' is no image of the test set" in text
    assert "cls: 'b.jpg' has no answer" in text
    assert "seg: 's.jpg' is no image" in text and "seg: 's.png' has no answer" in text


def test_a_name_twice_in_the_dict_form(tmp_path):
    text = problems_of(
        tmp_path, '{"cls": {"a.jpg": 1, "b.jpg": 1, "a.jpg": 1}, "dec": [], "seg": {"s.png": {}}}'
    )
    assert "1 problem\n" in text and "cls: 'a.jpg' is answered twice" in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"image_id": 4}, r"image_id 4 is no image; write the image's 1-based line in test.txt (1..3)"),
        ({"image_id": 0}, "image_id 0 is no image"),
        ({"image_id": "3"}, 'image_id "3" is no image'),
        ({"category_id": 1.5}, "image_id 3 (z.jpg) has category_id 1.5"),
        ({"bbox": [1, 2, 3]}, "image_id 3 (z.jpg) has bbox [1, 2, 3]; write four numbers"),
        ({"bbox": [1, 2, -3, 4]}, "has bbox [1, 2, -3, 4]"),
        ({"bbox": [1, 2, float("nan"), 4]}, "has bbox [1, 2, NaN, 4]"),
        ({"score": None}, "has score null"),
        ({"score": float("inf")}, "has score Infinity"),
    ],
)
def test_malformed_boxes(tmp_path, change, expected):
    text = problems_of(tmp_path, GOOD | {"dec": [BOX, BOX | change]})
    assert "dec: entry 1: " in text and expected in text and "1 problem\n" in text


@pytest.mark.parametrize(
    ("rings", "expected"),
    [
        ({"2": [[1, 2, 3, 4]]}, "'s.png', class 2: [1, 2, 3, 4] is no ring; write a list of [x, y] pixels"),
        ({"2": [[[1, 2], [3]]]}, "is no ring"),
        ({"2": [[[1, 2], [3, "x"], [3, 3]]]}, "is no ring"),
        ({"2": [[[1, 2], [3, 1e9], [3, 3]]]}, "is no ring"),
        ({"2": 7}, "class 2: 7 is no ring"),
        ({"1": []}, "'s.png' names the class '1'; the data set has 0, 2"),
        ({"road": []}, "names the class 'road'"),
        ([RING], "'s.png' is [[[0, 0], [4, 0], [4, 4]]]; write an object"),
    ],
)
def test_malformed_rings(tmp_path, rings, expected):
    assert expected in problems_of(tmp_path, GOOD | {"seg": [{"s.png": rings}]})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not JSON (Expecting property name"),
        ("[]", "a JSON list; write an object"),
        ('{"cls": [], "cls": []}', "the key(s) ['cls'] stand twice"),
        ({"cls": GOOD["cls"], "seg": GOOD["seg"], "det": []}, "no entry 'dec', which the test set has"),
        (GOOD | {"cls": [{"a.jpg": "13"}, {"b.jpg": True}]}, "cls: 'a.jpg' has the class \"13\""),
        (GOOD | {"cls": [["a.jpg", 1]]}, 'cls: entry 0 is ["a.jpg", 1]; write'),
        (GOOD | {"dec": {}}, "dec: a JSON dict; write a list"),
        (GOOD | {"dec": [[1]]}, "dec: entry 0: [1] is no detection"),
    ],
)
def test_malformed_files(tmp_path, content, expected):
    assert expected in problems_of(tmp_path, content)


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_submission(tmp_path / "none.json", TRUTHS)
