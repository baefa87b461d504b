"""Score against a test root on disk: a case worked by hand, the contest's rules written again, the script."""

import contextlib
import importlib.util
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ufo_large.evaluation.score import score_submission

ROOT = Path(__file__).resolve().parents[2]
CATEGORIES = [{"id": 2, "name": "stop"}, {"id": 9, "name": "yield"}]


def picture(file, height=4, width=4):
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.full((height, width, 3), 90, np.uint8))


def coco(boxes):
    """`boxes`: file name -> (sparse image id, [(category, bbox)])."""
    images = [{"id": n, "file_name": f, "height": 100, "width": 100} for f, (n, _) in boxes.items()]
    rows = [(n, category, bbox) for n, of_image in boxes.values() for category, bbox in of_image]
    annotations = [
        {"id": i, "image_id": n, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
        for i, (n, c, b) in enumerate(rows, 1)
    ]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


@pytest.fixture
def test_root(tmp_path):
    """Two cars, two scenes in the order of test.txt, one 4 x 4 street with road left and class 1 right."""
    root = tmp_path / "somewhere" / "track1_test_data"
    for name in ("a.jpg", "b.jpg"):
        picture(root / "cls/test" / name)
    (root / "cls/test.txt").write_text("a.jpg 4\nb.jpg 7\n")
    for name in ("x.jpg", "y.jpg"):
        picture(root / "dec/test" / name, 100, 100)
    signs = {"x.jpg": (70, [(2, [10, 10, 20, 20])]), "y.jpg": (12, [(9, [0, 0, 10, 10])])}
    (root / "dec/test.json").write_text(json.dumps(coco(signs)))
    (root / "dec/test.txt").write_text("y.jpg\nx.jpg\n")
    picture(root / "seg/images/test/s.jpg")
    (root / "seg/label/test").mkdir(parents=True)
    cv2.imwrite(str(root / "seg/label/test/s.png"), np.array([[0, 0, 1, 1]] * 4, np.uint8))
    return root


def columns(left, right):
    return [[left, 0], [right, 0], [right, 3], [left, 3]]


SUBMISSION = {
    "cls": [{"a.jpg": 4}, {"b.jpg": 4}],
    # line 1 is y.jpg: the box is a hit of category 9; the other box has the wrong category
    "dec": [
        {"image_id": 1, "category_id": 9, "bbox": [0, 0, 10, 10], "score": 0.9},
        {"image_id": 2, "category_id": 9, "bbox": [10, 10, 20, 20], "score": 0.8},
    ],
    # 1 covers columns 1 to 3, then 2 column 3; the line of two points is dropped or painted by protocol
    "seg": [{"s.png": {"1": [columns(1, 3)], "2": [columns(3, 3)], "0": [[[0, 0], [0, 3]]]}}],
}


def score(tmp_path, root, content, protocol):
    file = tmp_path / "submission.json"
    file.write_text(json.dumps(content))
    return score_submission(file, root, protocol)


def test_worked_by_hand(tmp_path, test_root):
    """Painted 0 1 1 2 against 0 0 1 1: IoU of 0 is 4/8, of 1 is 4/12, of 2 is 0. AP: 1 for 9, 0 for 2."""
    result = score(tmp_path, test_root, SUBMISSION, "official")
    assert result["top1"] == 0.5 and result["map50"] == 0.5
    assert result["miou"] == pytest.approx((1 / 2 + 1 / 3) / 19, abs=1e-15)
    assert result["score"] == pytest.approx((0.5 + 0.5 + result["miou"]) / 3, abs=1e-15)
    assert result["protocol"] == "official" and result["images"] == {"cls": 2, "dec": 2, "seg": 1}
    standard = score(tmp_path, test_root, SUBMISSION, "standard")
    assert standard["miou"] == pytest.approx((1 / 2 + 1 / 3 + 0) / 3, abs=1e-15)
    assert standard["details"]["seg/unpainted"] == 0.0


def test_what_no_ring_covers(tmp_path, test_root):
    """Without the line of class 0, column 0 is road by `official` and left out by `standard`."""
    bare = SUBMISSION | {"seg": [{"s.png": {"1": [columns(1, 3)], "2": [columns(3, 3)]}}]}
    assert score(tmp_path, test_root, bare, "official")["details"]["seg/iou/road"] == 0.5
    standard = score(tmp_path, test_root, bare, "standard")
    assert standard["details"]["seg/unpainted"] == 0.25
    assert standard["miou"] == pytest.approx((0 + 1 / 3 + 0) / 3, abs=1e-15)


def test_the_order_of_classes_decides(tmp_path, test_root):
    """Class 2 first, then 1 over it: painted 0 1 1 1, so IoU of 1 is 8/12 and class 2 is nowhere."""
    swapped = SUBMISSION | {"seg": [{"s.png": {"2": [columns(3, 3)], "1": [columns(1, 3)]}}]}
    result = score(tmp_path, test_root, swapped, "official")
    assert result["miou"] == pytest.approx((1 / 2 + 2 / 3) / 19, abs=1e-15)


def test_the_form_of_the_task_page_scores_the_same(tmp_path, test_root):
    page = SUBMISSION | {"cls": {"a.jpg": 4, "b.jpg": 4}, "seg": SUBMISSION["seg"][0]}
    for root in (test_root, test_root.parent):
        assert score(tmp_path, root, page, "official") == score(tmp_path, test_root, SUBMISSION, "official")


def test_only_tasks_with_truth_are_scored(tmp_path, test_root):
    (test_root / "cls/test.txt").write_text("a.jpg\nb.jpg\n")  # only the order
    (test_root / "dec/test.json").unlink()
    result = score(tmp_path, test_root, {"seg": SUBMISSION["seg"]}, "official")
    assert not result.keys() & {"top1", "map50"} and result["score"] == result["miou"]


def test_class_list_of_the_data_decides_the_mean(tmp_path, test_root):
    (test_root / "seg/classes.txt").write_text("road\nwalk\nwall\n")
    result = score(tmp_path, test_root, SUBMISSION, "official")
    assert result["miou"] == pytest.approx((1 / 2 + 1 / 3) / 3, abs=1e-15)


def test_boxes_of_an_unlisted_category_are_left_out_and_counted(tmp_path, test_root):
    extra = {"image_id": 1, "category_id": 44, "bbox": [0, 0, 10, 10], "score": 1.0}
    result = score(tmp_path, test_root, SUBMISSION | {"dec": [extra, *SUBMISSION["dec"]]}, "official")
    assert result["map50"] == 0.5 and result["details"]["dec/boxes_of_unlisted_category"] == 1


def test_bad_ground_truth_is_listed_together(tmp_path, test_root):
    (test_root / "cls/test.txt").write_text("a.jpg four\nb.jpg 7\n")
    (test_root / "dec/test.txt").write_text("y.jpg\nx.jpg\nq.jpg\n")
    with pytest.raises(ValueError) as caught:
        score(tmp_path, test_root, SUBMISSION, "official")
    assert "cls/test.txt:1" in str(caught.value) and "q.jpg" in str(caught.value)


def test_a_mask_with_a_value_that_is_no_class(tmp_path, test_root):
    cv2.imwrite(str(test_root / "seg/label/test/s.png"), np.full((4, 4), 77, np.uint8))
    with pytest.raises(ValueError, match=r"s.png: the value\(s\) \[77\] are no class"):
        score(tmp_path, test_root, SUBMISSION, "official")


def test_official_needs_a_class_0(tmp_path, test_root):
    """Only classes 1 and 2 exist, so what no ring covers cannot be class 0."""
    (test_root / "seg/classes.txt").write_text("1 walk\n2 wall\n")
    cv2.imwrite(str(test_root / "seg/label/test/s.png"), np.array([[1, 1, 2, 2]] * 4, np.uint8))
    content = SUBMISSION | {"seg": [{"s.png": {"1": [columns(1, 3)], "2": [columns(3, 3)]}}]}
    with pytest.raises(ValueError, match="use --protocol standard"):
        score(tmp_path, test_root, content, "official")
    # painted - 1 1 2 against 1 1 2 2: both classes 1/2
    assert score(tmp_path, test_root, content, "standard")["miou"] == 0.5


def test_a_folder_without_a_test_root(tmp_path):
    with pytest.raises(ValueError, match="track1_test_data.*give --data the root that holds it"):
        score(tmp_path, tmp_path, SUBMISSION, "official")


def test_equals_the_contests_rules_written_again(tmp_path):
    """Full-size masks with many overlapping rings, and detections, by a plain second writing of the rules."""
    rng = np.random.default_rng(0)
    root = tmp_path / "test_data"
    masks, rings, signs, found = {}, {}, {}, []
    for i in range(3):
        picture(root / f"seg/images/test/{i}.jpg", 720, 1280)
        (root / "seg/label/test").mkdir(parents=True, exist_ok=True)
        masks[f"{i}.png"] = np.kron(rng.choice([*range(16), 255], (9, 16)), np.ones((80, 80))).astype(
            np.uint8
        )
        cv2.imwrite(str(root / f"seg/label/test/{i}.png"), masks[f"{i}.png"])
        order = rng.permutation(19)[:15]
        rings[f"{i}.png"] = {str(k): [random_ring(rng) for _ in range(rng.integers(0, 5))] for k in order}
        picture(root / f"dec/test/{i}.jpg", 100, 100)
        boxes = [(int(rng.choice([2, 9])), rng.integers(1, 60, 4).tolist()) for _ in range(6)]
        signs[f"{i}.jpg"] = (i + 1, boxes)
        for category, (x, y, w, h) in boxes * 2:
            bbox = [x + int(rng.integers(-8, 8)), y, w, h]
            score_ = round(float(rng.random()), 1)
            found.append({"image_id": i + 1, "category_id": category, "bbox": bbox, "score": score_})
    (root / "dec/test.json").write_text(json.dumps(coco(signs)))
    content = {"dec": found, "seg": [{name: of_image} for name, of_image in rings.items()]}
    result = score(tmp_path, root, content, "official")
    assert result["miou"] == pytest.approx(contest_miou(masks, rings), abs=1e-12)
    assert result["map50"] == pytest.approx(contest_map50(root / "dec/test.json", found), abs=1e-12)


def random_ring(rng):
    points = int(rng.integers(1, 7))
    return np.stack([rng.integers(-20, 1300, points), rng.integers(-20, 740, points)], axis=1).tolist()


def contest_miou(masks, rings):
    confusion = np.zeros((19, 19))
    for name, truth in masks.items():
        canvas = np.zeros((720, 1280), np.uint8)
        for key, of_class in rings[name].items():
            polygons = [np.array(ring, np.int32) for ring in of_class if len(ring) > 2]
            cv2.fillPoly(canvas, polygons, int(key))
        for t in range(19):
            for p in range(19):
                confusion[t, p] += ((truth == t) & (canvas == p)).sum()
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    return np.mean([h / u if u else 0.0 for h, u in zip(hits, union, strict=True)])


def contest_map50(truth_file, found):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(truth_file))
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[1]


def run_script(monkeypatch, *arguments):
    spec = importlib.util.spec_from_file_location("run_all_script", ROOT / "eval/run_all.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr("sys.argv", ["run_all.py", *map(str, arguments)])
    script.main()


@pytest.mark.parametrize("protocol", ["official", "standard"])
def test_the_script_prints_one_json_line_last(tmp_path, test_root, monkeypatch, capsys, protocol):
    want = score(tmp_path, test_root, SUBMISSION, protocol)
    file = tmp_path / "submission.json"
    run_script(monkeypatch, "--submission", file, "--data", test_root, "--protocol", protocol)
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line == {key: value for key, value in want.items() if key != "details"}
    assert {"top1", "map50", "miou", "score", "protocol"} <= line.keys()


def test_the_script_chooses_the_protocol_by_the_classes_and_says_so(tmp_path, test_root, monkeypatch, capsys):
    """The test root states no classes of its own, so they are the contest's; with a list they are not."""
    score(tmp_path, test_root, SUBMISSION, "official")
    file = tmp_path / "submission.json"
    run_script(monkeypatch, "--submission", file, "--data", test_root)
    said = capsys.readouterr().out
    assert json.loads(said.splitlines()[-1])["protocol"] == "official"
    assert "protocol official, since the data has the contest's 19 classes" in said
    (test_root / "seg/classes.txt").write_text("0 road\n1 path\n2 sky\n")
    run_script(monkeypatch, "--submission", file, "--data", test_root)
    said = capsys.readouterr().out
    assert json.loads(said.splitlines()[-1])["protocol"] == "standard"
    assert "protocol standard, since the data is not the contest's" in said


def test_the_script_takes_the_split_and_refuses_what_has_no_effect(tmp_path, test_root, monkeypatch, capsys):
    file = tmp_path / "submission.json"
    file.write_text(json.dumps(SUBMISSION))
    with pytest.raises(SystemExit):
        run_script(monkeypatch, "--submission", file, "--data", test_root, "--split", "val")
    assert "val" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_script(
            monkeypatch, "--submission", file, "--data", test_root, "--set", "tasks.cls.loader.workers=0"
        )
    assert "a submission is scored as it is" in capsys.readouterr().err


def test_the_script_says_what_is_wrong_and_fails(tmp_path, test_root, monkeypatch, capsys):
    file = tmp_path / "submission.json"
    file.write_text(json.dumps(SUBMISSION | {"cls": [{"a.jpg": 4}]}))
    with pytest.raises(SystemExit) as stop:
        run_script(monkeypatch, "--submission", file, "--data", test_root)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert not captured.out and "cls: 'b.jpg' has no answer" in captured.err and str(file) in captured.err
