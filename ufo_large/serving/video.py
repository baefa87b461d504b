"""Videos and streams, frame by frame: read by OpenCV, and written again with everything drawn on them."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from ufo_large.serving.json_lines import as_line
from ufo_large.serving.pictures import Named
from ufo_large.serving.predictor import UFO

AT_ONCE = 8
USUAL_RATE = 25.0
CODEC = "mp4v"


class Video:
    """An opened video. `rate`: frames per second; `count`: frames as the file states them, 0 for a stream.

    Raises ValueError where OpenCV cannot open it.
    """

    def __init__(self, path: str):
        self.path = path
        self._capture = cv2.VideoCapture(path)
        if not self._capture.isOpened():
            self._capture.release()
            missing = "://" not in path and not Path(path).is_file()
            raise ValueError("missing" if missing else "not a video that OpenCV can read")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else USUAL_RATE
        self.count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def frames(self, name: str) -> Iterator[Named]:
        """Yield the frames as RGB arrays under the video's name, numbered from 1; then close the video."""
        number = 0
        try:
            while (read := self._capture.read())[0]:
                number += 1
                yield Named(source=cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB), name=name, number=number)
        finally:
            self._capture.release()


class VideoFile:
    """Frames of one size as an MP4; the first frame decides, later ones are cut or padded to it."""

    def __init__(self, path: Path, rate: float):
        self._path, self._rate = path, rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def add(self, frame_HW3: np.ndarray) -> None:
        if self._writer is None:
            self._size = tuple(side + side % 2 for side in frame_HW3.shape[:2])  # codecs want even sides
            code = cv2.VideoWriter_fourcc(*CODEC)
            self._writer = cv2.VideoWriter(str(self._path), code, self._rate, self._size[::-1])
            if not self._writer.isOpened():
                raise ValueError(f"{self._path}: this OpenCV cannot write {CODEC}; use a build with FFmpeg")
        canvas = np.full((*self._size, 3), 255, np.uint8)
        height, width = (min(a, b) for a, b in zip(self._size, frame_HW3.shape[:2], strict=True))
        canvas[:height, :width] = frame_HW3[:height, :width]
        self._writer.write(cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


def predict_video(
    model: UFO, path: str, out: Path, tasks: Sequence[str] | None, advance: Callable[[int, int], None]
) -> int:
    """Write OUT.jsonl, one line per frame, and OUT.mp4; return how many frames there were.

    Both appear when the video is done. `advance(done, count)` is called after each frame. A stream that is
    stopped with Ctrl-C counts as done. Raises ValueError where there is no frame.
    """
    video = Video(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    lines, drawn = (out.with_name(f"{out.name}.part{ending}") for ending in (".jsonl", ".mp4"))
    try:
        done = _predict_frames(model, video, out.name, tasks, lines, drawn, advance)
        if not done:
            raise ValueError("no frame of this video can be read")
        os.replace(drawn, out.with_name(f"{out.name}.mp4"))
        os.replace(lines, out.with_name(f"{out.name}.jsonl"))  # last: it says that the video is done
    finally:
        for unfinished in (lines, drawn):
            unfinished.unlink(missing_ok=True)
    return done


def _predict_frames(
    model: UFO,
    video: Video,
    name: str,
    tasks: Sequence[str] | None,
    lines: Path,
    drawn: Path,
    advance: Callable[[int, int], None],
) -> int:
    writer, done = VideoFile(drawn, video.rate), 0
    try:
        with lines.open("w", encoding="utf-8") as file:
            for result in model.stream(video.frames(name), tasks, at_once=AT_ONCE):
                body = result.to_dict()
                frame = body.pop("image_id")
                about = {"frame": frame, "seconds": round((frame - 1) / video.rate, 4)}
                file.write(as_line(about | body))
                writer.add(result.overlay())
                done = frame
                advance(done, video.count)
    except KeyboardInterrupt:
        if video.count or not done:
            raise
    finally:
        writer.close()
    return done
