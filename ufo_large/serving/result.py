"""What the model said of one picture."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ufo_large.kinds import PredictionExample, kind_of
from ufo_large.serving.json_lines import as_line
from ufo_large.serving.overlay import draw_overlay, long_side_for
from ufo_large.serving.pictures import Picture
from ufo_large.structures import Prediction, TaskInfo

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One prediction per task, in pixels of the picture as it is stored.

    `result["seg"]` is the prediction itself, a dataclass of tensors (`mask_HW`, `boxes_xyxy_N4`, `scores_K`,
    ...) with model labels. `error`: why the picture could not be read; then there is no prediction.
    """

    file_name: str
    number: int = 1
    tasks: Mapping[str, TaskInfo] = field(default_factory=dict)
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    picture: Picture | None = None
    error: str = ""

    def __getitem__(self, task: str) -> Prediction:
        return self.predictions[task]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: file name, size, and what each task found, with the user's class names."""
        if self.picture is None:
            return {"file_name": self.file_name, "error": self.error}
        sample = self.picture.sample
        about = {"file_name": self.file_name, "image_id": self.number}
        about |= {"height": sample.height, "width": sample.width}
        about |= {"exif_turned": True} if self.picture.turned else {}
        found = {t: kind_of(info).described(self.predictions[t], info) for t, info in self.tasks.items()}
        return about | {"tasks": found}

    def to_json(self) -> str:
        """Return `to_dict` as one line of JSON."""
        return as_line(self.to_dict()).rstrip()

    def to_coco(self) -> list[dict[str, Any]]:
        """Return entries in COCO's results format: boxes, and masks as run lengths.

        ValueError where no task has a form in it.
        """
        found = self.coco_by_task()
        if not found and not self.error:
            raise ValueError(
                f"COCO's results have no form for {', '.join(self.tasks)}; use to_json(), or choose tasks "
                "with boxes or masks"
            )
        return [entry for entries in found.values() for entry in entries]

    def coco_by_task(self) -> dict[str, list[dict[str, Any]]]:
        """Return the entries of each task that has a form in COCO's results."""
        about, found = {"file_name": self.file_name}, {}
        for task, info in self.tasks.items():
            if kind_of(info).in_coco:
                entries = kind_of(info).coco_results(self.predictions[task], info)
                found[task] = [entry | about for entry in entries]
        return found

    def files_by_task(self) -> dict[str, tuple[str, bytes]]:
        """Return the ending and the content of the file of each task that has one, such as `mask.png`."""
        found = {}
        for task, info in self.tasks.items():
            kind = kind_of(info)
            if data := kind.encoded(self.predictions[task], info):
                found[task] = kind.target_suffix, data
        return found

    def overlay(self) -> np.ndarray:
        """Return the picture with everything drawn on it, RGB uint8 [H, W, 3]: one panel per task."""
        return draw_overlay(self.examples(len(self.tasks)))

    def examples(self, columns: int) -> list[PredictionExample]:
        """Return one example per task, for a kind to draw where so many stand side by side."""
        picture = self._require_picture()
        pixels = picture.pixels()
        long_side = long_side_for(picture.sample.height, picture.sample.width, columns)
        return [
            PredictionExample(
                info=info, image_HW3=pixels, prediction=self.predictions[task], long_side=long_side
            )
            for task, info in self.tasks.items()
        ]

    def show(self) -> None:
        """Open the overlay in the system's picture viewer."""
        Image.fromarray(self.overlay()).show(title=self.file_name)

    def _repr_png_(self) -> bytes | None:
        """Show the overlay in a notebook."""
        return None if self.picture is None else Image.fromarray(self.overlay())._repr_png_()

    def save(self, path: str | Path) -> Path:
        """Write to `path`: the overlay (`.jpg`, `.png`), or the JSON (`.json`).

        Without an ending, it is a folder for both and the tasks' files.
        """
        path = Path(path)
        if path.suffix.lower() in PICTURES:
            options = {"quality": JPEG_QUALITY} if path.suffix.lower() != ".png" else {}
            Image.fromarray(self.overlay()).save(path, **options)
        elif path.suffix.lower() == ".json":
            self._require_picture()
            path.write_text(self.to_json() + "\n", encoding="utf-8")
        elif not path.suffix:
            path.mkdir(parents=True, exist_ok=True)
            name = Path(self.file_name).name
            self.save(path / f"{name}.overlay.jpg")
            self.save(path / f"{name}.json")
            for task, (ending, data) in self.files_by_task().items():
                (path / f"{name}.{task}.{ending}").write_bytes(data)
        else:
            raise ValueError(f"{path}: give a name with .jpg, .png or .json, or a folder without an ending")
        return path

    def _require_picture(self) -> Picture:
        if self.picture is None:
            raise ValueError(f"{self.file_name}: {self.error}; there is no prediction")
        return self.picture
