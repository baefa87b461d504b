"""Videos and streams, frame by frame: read by OpenCV, and written again with everything drawn on them."""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ufo_large.config import write_json
from ufo_large.serving.json_lines import as_line
from ufo_large.serving.pictures import Named
from ufo_large.serving.result import Result

AT_ONCE = 8
USUAL_RATE = 25.0
CODEC = "mp4v"
STALLED = 10.0
"""Seconds that an address may say nothing."""


class Video:
    """An opened video. `rate`: frames per second; `count`: frames as the file states them, 0 for a stream.

    `error`: why a stream broke off. Raises ValueError where OpenCV cannot open it; an address that says
    nothing for `STALLED` seconds counts as one.
    """

    def __init__(self, path: str):
        self.path, self.error = path, ""
        self._live = "://" in path
        self._capture = _opened(path) if self._live else cv2.VideoCapture(path)
        if not self._capture.isOpened():
            self._capture.release()
            if self._live:
                raise ValueError(f"no stream that OpenCV can read was there within {STALLED:g} s")
            raise ValueError("not a video that OpenCV can read" if Path(path).is_file() else "missing")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else USUAL_RATE
        self.count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def frames(self, name: str) -> Iterator[Named]:
        """Yield the frames as RGB arrays under the video's name, numbered from 1; then close the video."""
        number = 0
        try:
            while (frame := self._next(number)) is not None:
                number += 1
                yield Named(source=cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), name=name, number=number)
        finally:
            self._capture.release()

    def _next(self, number: int) -> np.ndarray | None:
        began = time.monotonic()
        there, frame = self._capture.read()
        if there:
            return frame
        if self._live and time.monotonic() - began >= 0.9 * STALLED:
            self.error = f"the stream said nothing for {STALLED:g} s after frame {number}"
        return None


def _opened(address: str) -> cv2.VideoCapture:
    """Open a stream by FFmpeg, the one of OpenCV's readers that has time limits."""
    limit = int(1000 * STALLED)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)


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
    predict: Callable[..., Iterable[Result]], path: str, out: Path, advance: Callable[[int, int], None]
) -> tuple[int, str]:
    """Write what `predict` says of the frames; return how many there were, and why a stream broke off.

    OUT.jsonl has one line per frame, OUT.mp4 the frames drawn, OUT.files/<task>/ a mask or depth map per
    frame, OUT.coco_<task>.json COCO's results, whose `image_id` is the frame. All appear when the video is
    done. `advance(done, count)` is called after each frame. A stream that is stopped with Ctrl-C, or that
    stalls, counts as done. Raises ValueError where there is no frame.
    """
    video = Video(path)
    unfinished = out.with_name(f"{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        done = _predict_frames(predict, video, unfinished / out.name, advance)
        if not done:
            raise ValueError(video.error or "no frame of this video can be read")
        for written in sorted(unfinished.iterdir(), key=lambda p: p.suffix == ".jsonl"):  # last: it says done
            there = out.with_name(written.name)
            if there.is_dir():
                shutil.rmtree(there)
            os.replace(written, there)
    finally:
        shutil.rmtree(unfinished)
    return done, video.error


def _predict_frames(
    predict: Callable[..., Iterable[Result]], video: Video, out: Path, advance: Callable[[int, int], None]
) -> int:
    writer, done = VideoFile(out.with_name(f"{out.name}.mp4"), video.rate), 0
    coco: dict[str, list[dict[str, Any]]] = {}
    try:
        with out.with_name(f"{out.name}.jsonl").open("w", encoding="utf-8") as file:
            for result in predict(video.frames(out.name), at_once=AT_ONCE):
                body = result.to_dict()
                frame = body.pop("image_id")
                about = {"frame": frame, "seconds": round((frame - 1) / video.rate, 4)}
                file.write(as_line(about | body))
                writer.add(result.overlay())
                _write_files(result, out.with_name(f"{out.name}.files"), frame)
                for task, entries in result.coco_by_task().items():
                    coco.setdefault(task, []).extend(entries)
                done = frame
                advance(done, video.count)
    except KeyboardInterrupt:
        if video.count or not done:
            raise
    finally:
        writer.close()
    for task, entries in coco.items():
        write_json(out.with_name(f"{out.name}.coco_{task}.json"), entries, allow_nan=False)
    return done


def _write_files(result: Result, folder: Path, frame: int) -> None:
    for task, (ending, data) in result.files_by_task().items():
        (folder / task).mkdir(parents=True, exist_ok=True)
        (folder / task / f"{frame:06d}.{ending}").write_bytes(data)
