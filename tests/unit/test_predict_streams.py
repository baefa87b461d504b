"""Addresses of streams: read from a server on this machine that ends, breaks off or falls silent."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from ufo_large.serving import video
from ufo_large.serving.video import Video

FRAMES = 12


def jpeg(number: int) -> bytes:
    return cv2.imencode(".jpg", np.full((48, 64, 3), 20 * number, np.uint8))[1].tobytes()


class Camera(BaseHTTPRequestHandler):
    """Sends MJPEG as cameras do; the path says what happens after the last frame."""

    over = threading.Event()

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/silent":
            self.over.wait(30)
            return
        if self.path == "/none":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(FRAMES):
            data = jpeg(number)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")
        if self.path == "/broken":
            self.wfile.write(head.encode() + data[: len(data) // 2])
        if self.path == "/stalled":
            self.wfile.flush()
            self.over.wait(30)


@pytest.fixture
def camera(monkeypatch) -> Iterator[str]:
    monkeypatch.setattr(video, "STALLED", 2.0)
    with serving() as address:
        yield address


@contextmanager
def serving() -> Iterator[str]:
    Camera.over.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        Camera.over.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("end", ["ended", "broken"])
def test_a_stream_ends_with_its_last_whole_frame(camera, end):
    opened = Video(f"{camera}/{end}")
    frames = list(opened.frames("cam"))
    assert opened.count == 0 and opened.error == ""
    whole = frames[:FRAMES]
    assert [frame.number for frame in whole] == list(range(1, FRAMES + 1))
    assert [round(frame.source.mean() / 20) for frame in whole] == list(range(FRAMES))
    assert len(frames) == FRAMES or end == "broken"


def test_a_stream_that_falls_silent_is_left_after_the_time_limit(camera):
    began, opened = time.monotonic(), Video(f"{camera}/stalled")
    frames = list(opened.frames("cam"))
    assert time.monotonic() - began < 10
    assert FRAMES - 2 <= len(frames) <= FRAMES  # a reader may wait for the end of the last ones
    assert opened.error == f"the stream said nothing for 2 s after frame {len(frames)}"


@pytest.mark.parametrize("end", ["silent", "none"])
def test_an_address_that_gives_nothing_is_told(camera, end):
    began = time.monotonic()
    with pytest.raises(ValueError, match="no stream that OpenCV can read was there within 2 s"):
        Video(f"{camera}/{end}")
    assert time.monotonic() - began < 10
