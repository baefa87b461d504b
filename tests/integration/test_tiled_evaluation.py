"""Evaluation in tiles, or of mirrored images, gives that of whole images, where nothing is scaled."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from ufo_large.data.loader import LoaderConfig
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.shards import ShardSet
from ufo_large.data.tiles import Tiling
from ufo_large.data.views import Views
from ufo_large.evaluation.evaluator import Evaluator
from ufo_large.evaluation.examples import predict_examples
from ufo_large.kinds.protocols import get_protocol
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import SavedRun
from ufo_large.structures import BoxPrediction, MaskPrediction, TaskBatch, TaskInfo
from ufo_large.tracking.jsonl import MetricsLog

HEIGHT, WIDTH, OVERLAP = 96, 128, 32
WHOLE = {"image_size": (HEIGHT, WIDTH)}
TILES = {"image_size": (64, 80), "tiles": Tiling(rows=2, columns=2, overlap=OVERLAP, whole=False)}
# inside a tile, across each inner edge, around the centre, in the corner, and touching an inner edge
BOXES = [
    (4, 5, 20, 9),
    (70, 10, 20, 12),
    (30, 54, 14, 16),
    (50, 36, 28, 24),
    (108, 80, 20, 16),
    (80, 30, 9, 9),
]


class SeesColour:
    """Finds green rectangles as boxes and red pixels as class 1, in the pixels it is given."""

    training = False

    def train(self, mode: bool = True) -> None:
        assert not mode

    def predict(self, batch: TaskBatch) -> list:
        pixels = batch.images_BCHW.permute(0, 2, 3, 1).numpy()
        assert all(p.shape[:2] == (s.height, s.width) for p, s in zip(pixels, batch.samples, strict=True))
        find = self._boxes if batch.task == "dec" else self._mask
        found = [find(image, sample) for image, sample in zip(pixels, batch.samples, strict=True)]
        return [_with_scores(p) for p in found] if batch.keep_scores and batch.task == "seg" else found

    def _boxes(self, image, sample) -> BoxPrediction:
        _, _, stats, _ = cv2.connectedComponentsWithStats((image == (0, 200, 0)).all(-1).astype(np.uint8))
        boxes = torch.tensor(stats[1:, :4], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        order = areas.argsort(descending=True)
        return BoxPrediction(sample, boxes[order], areas[order] / 1000, torch.zeros(len(order)).long())

    def _mask(self, image, sample) -> MaskPrediction:
        return MaskPrediction(sample, torch.from_numpy((image == (200, 0, 0)).all(-1).astype(np.uint8)))


def _with_scores(prediction: MaskPrediction) -> MaskPrediction:
    return replace(prediction, scores=lambda: one_hot(prediction.mask_HW.long(), 2).permute(2, 0, 1).float())


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    """Three pictures a task: green boxes on grey; red noise whose mask is 1, unequal in every corner."""
    root = tmp_path_factory.mktemp("data") / "test_data"
    for folder in ("dec/test", "seg/images/test", "seg/label/test"):
        (root / folder).mkdir(parents=True)
    images, annotations = [], []
    for i in range(3):
        picture = np.full((HEIGHT, WIDTH, 3), 90 + i, np.uint8)
        for x, y, w, h in BOXES:
            picture[y : y + h, x : x + w] = (0, 200, 0)
            box = {"id": len(annotations) + 1, "image_id": i, "bbox": [x, y, w, h], "area": w * h}
            annotations.append({**box, "category_id": 1, "iscrowd": 0})
        cv2.imwrite(str(root / f"dec/test/{i}.png"), picture[..., ::-1])
        images.append({"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH})
        mask = np.random.default_rng(i).integers(0, 2, (HEIGHT, WIDTH)).astype(np.uint8)
        street = np.where(mask[..., None] == 1, np.array((200, 0, 0)), 100).astype(np.uint8)
        cv2.imwrite(str(root / f"seg/images/test/{i}.png"), street[..., ::-1])
        cv2.imwrite(str(root / f"seg/label/test/{i}.png"), mask)
    body = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "sign"}]}
    (root / "dec/test.json").write_text(json.dumps(body))
    make_shards([root], root.parent / "shards", ShardingOptions())
    return ShardSet.open(root.parent / "shards")


def loaders(**options) -> dict[str, LoaderConfig]:
    loader = LoaderConfig(micro_batch=5, workers=0, **options)
    return {"detection": loader, "segmentation": loader}


def evaluator(shards, **options) -> Evaluator:
    return Evaluator(shards=shards, loaders=loaders(**options), show_progress=False)


@pytest.mark.parametrize("options", [WHOLE, TILES], ids=["whole", "tiles"])
def test_nothing_is_lost_or_found_twice(shards, options):
    found = evaluator(shards, **options).validate(SeesColour())[0]
    assert found["dec/map50"] == found["dec/map"] == 1.0
    assert found["seg/miou"] == 1.0


def test_validation_leaves_out_what_crowds_alone_cannot_tell(shards, tmp_path):
    shutil.copytree(Path(shards.root).parent / "test_data/dec", tmp_path / "test_data/dec")
    file = tmp_path / "test_data/dec/test.json"
    body = json.loads(file.read_text())
    for annotation in body["annotations"]:
        annotation["iscrowd"] = 1
    file.write_text(json.dumps(body))
    make_shards([tmp_path / "test_data"], tmp_path / "shards", ShardingOptions())
    found = evaluator(ShardSet.open(tmp_path / "shards"), **WHOLE).validate(SeesColour())[0]
    assert not found.keys() & {"score", "dec/map50"}
    MetricsLog(tmp_path / "metrics.jsonl").log(1, found)


def test_tiles_and_whole_images_give_the_same_submission(shards):
    whole = evaluator(shards, **WHOLE).gathered(SeesColour(), get_protocol("standard"))[0]
    assert evaluator(shards, **TILES).gathered(SeesColour(), get_protocol("standard"))[0] == whole
    assert len(whole["dec"]) == 3 * len(BOXES)


@pytest.mark.parametrize("options", [WHOLE, TILES], ids=["whole", "tiles"])
@pytest.mark.parametrize("fusion", ["wbf", "nms"])
def test_mirrored_images_give_the_same_submission(shards, options, fusion):
    """The pictures are not symmetric and the model does not mind: each view finds the very same."""
    whole = evaluator(shards, **WHOLE).gathered(SeesColour(), get_protocol("standard"))[0]
    flipped = evaluator(shards, **options)
    views = {"detection": Views(flip=True, fusion=fusion), "segmentation": Views(flip=True)}
    flipped = replace(flipped, loaders={k: replace(v, views=views[k]) for k, v in flipped.loaders.items()})
    assert flipped.gathered(SeesColour(), get_protocol("standard"))[0] == whole


def test_views_of_other_scales_reach_the_model(shards):
    seen = []

    class Notes(SeesColour):
        def predict(self, batch: TaskBatch) -> list:
            seen.append((tuple(batch.images_BCHW.shape[-2:]), len(batch.samples)))
            nothing = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long()
            return [BoxPrediction(sample, *nothing) for sample in batch.samples]

    chosen = evaluator(shards, **WHOLE, views=Views(flip=True, scales=(0.5, 1.25)))
    found = list(replace(chosen, patch=16).predictions(Notes(), shards.task("dec")))
    assert [p.sample.order for p in found] == [0, 1, 2]
    assert seen == [((48, 64), 3)] * 2 + [((128, 160), 3)] * 2


def test_inputs_are_told_in_words(shards):
    assert evaluator(shards, **WHOLE).inputs == {"dec": "96x128", "seg": "96x128"}
    views = Views(flip=True, scales=(0.75, 1.0))
    assert evaluator(shards, **(TILES | {"tiles": Tiling(columns=2), "views": views})).inputs == {
        "dec": "64x80, 1 x 2 tiles and the whole, scales 0.75 1, flip, nms",
        "seg": "64x80, 1 x 2 tiles, scales 0.75 1, flip, mean",
    }


def test_the_report_shows_joined_tiles(shards):
    shown = predict_examples(evaluator(shards, **TILES), SeesColour())
    assert [len(e.prediction.boxes_xyxy_N4) for e in shown if e.info.kind == "detection"] == [len(BOXES)] * 3
    assert all(e.prediction.mask_HW.shape == (HEIGHT, WIDTH) for e in shown if e.info.kind == "segmentation")


def test_a_finished_run_takes_tiles_and_input_sizes_only():
    saved = SavedRun(config=load_recipe("demo"), tasks=(), fingerprint="", data="")
    feeds = saved.test_feeds(
        ["tasks.detection.loader.tiles.rows=2", "tasks.detection.loader.image_size=512,512"]
    )
    assert feeds["detection"].tiles == Tiling(rows=2) and feeds["detection"].image_size == (512, 512)
    own = saved.test_feeds(["tasks.signs=detection", "tasks.signs.loader.micro_batch=7"])
    assert own["signs"].micro_batch == 7 != own["detection"].micro_batch
    for refused in ("model.pyramid_width=32", "tasks.detection.micro_batches=2"):
        with pytest.raises(ValueError, match=r"takes only tasks\.<task>\.loader"):
            saved.test_feeds([refused])


def test_a_classified_image_is_not_cut():
    info = TaskInfo(name="cls", kind="classification", class_names=("a", "b"), class_ids=(0, 1))
    with pytest.raises(ValueError, match="in classification an image is shown whole"):
        Tiling(rows=2).for_task(info)
