"""Small pictures for the doctor's page: with what was read drawn in, or a map of values as colours."""

import base64
import html
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ufo_large.data.doctor import Diagnosis
from ufo_large.kinds import kind_of
from ufo_large.kinds.cards import hex_color
from ufo_large.media.drawing import class_color
from ufo_large.media.pictures import decode_rgb, encode_jpeg, mask_values
from ufo_large.structures import Example, TaskInfo

SAMPLES = 6
SAMPLE_SIDE = 320
COLOUR_STEP, TURBO = 158, cv2.COLORMAP_TURBO


def samples_html(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield, per task and split, samples as they were read, spread evenly over what is fit for use."""
    for task in diagnosis.healthy:
        for split, examples in ((split, found) for split, found in task.splits.items() if found):
            spread = np.linspace(0, len(examples) - 1, min(SAMPLES, len(examples))).round().astype(int)
            title = f"{task.info.name}: {split} as read, {len(spread)} of {len(examples)} images"
            yield f"<h2>{html.escape(title)}</h2>"
            for example in (examples[i] for i in spread):
                picture = thumbnail(example.image, (task.info, example), SAMPLE_SIDE)
                yield figure_html(example.image.name, picture, _caption(example, task.info, diagnosis))


def figure_html(name: str, picture: np.ndarray | None, caption: str) -> str:
    """Return a picture, or a plate where there is none, above a caption of HTML."""
    shown = '<div class="none">no picture</div>'
    if picture is not None:
        data = base64.b64encode(encode_jpeg(picture, 85)).decode()
        shown = f'<img alt="{html.escape(name)}" src="data:image/jpeg;base64,{data}">'
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"


def _caption(example: Example, info: TaskInfo, diagnosis: Diagnosis) -> str:
    """The file and the classes that the sample shows, each with its colour and how often."""
    lines = [html.escape(example.file_name)]
    if not example.labeled:
        lines.append("no ground truth")
    elif info.num_classes:
        labels = Counter(kind_of(info).classes_of(example.truth, diagnosis.facts))
        names = {label: info.class_names[label] for label in sorted(labels) if 0 <= label < info.num_classes}
        lines += [_chip(name, label, labels[label]) for label, name in names.items()] or ["no object"]
    return "<br>".join(lines[:1]) + "<br>" + " ".join(lines[1:])


def _chip(name: str, label: int, count: int) -> str:
    color = hex_color(class_color(label))
    times = f" {count}" if count > 1 else ""
    return f'<span class="chip"><i style="background:{color}"></i>{html.escape(name)}{times}</span>'


def as_colours(mask: Path) -> np.ndarray:
    """Show class numbers, which would look black, as colours far apart; RGB, uint8 [H, W, 3]."""
    data = mask.read_bytes()
    try:
        values = mask_values(data)
    except ValueError:  # it has colours
        return decode_rgb(data)
    return cv2.applyColorMap((values.astype(np.int64) * COLOUR_STEP % 256).astype(np.uint8), TURBO)[..., ::-1]


def thumbnail(path: Path, known: tuple[TaskInfo, Example] | None, side: int) -> np.ndarray | None:
    """Return a small picture with its truth drawn in, or a map of values as colours; None if unreadable."""
    try:
        rgb = decode_rgb(path.read_bytes()) if known else as_colours(path)
    except (OSError, ValueError, SyntaxError):
        return None
    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.ascontiguousarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    if known and known[1].labeled:
        kind_of(known[0]).mark(small, known[1].truth, scale)
    return small
