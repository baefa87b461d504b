"""Our JPEG decoding against OpenCV's on real photographs."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ufo_large.media.decode import decode_image

DATA = Path(os.environ.get("UFO_DATA", Path(__file__).resolve().parents[2] / "../shared/data/mini"))
FILES = sorted(DATA.glob("track1_train_data/*/train/*.jpg"))[::40]


@pytest.mark.skipif(not FILES, reason=f"no photographs under {DATA}; set UFO_DATA to the folder of real data")
def test_photographs_decode_like_opencv():
    """The fast upsampling differs by 0.6 of 255 on average, 1.8 in the worst picture, and tints nothing."""
    differences, tints = [], []
    for file in FILES:
        data = file.read_bytes()
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        theirs = cv2.imdecode(np.frombuffer(data, np.uint8), flags).astype(int)
        ours = decode_image(data)
        differences.append(np.abs(ours - theirs).mean())
        tints.append((ours - theirs).mean((0, 1)))
        scratch = np.empty(ours.size + 99, np.uint8)
        assert np.array_equal(decode_image(data, scratch=scratch), ours)
    assert len(FILES) >= 10
    assert np.mean(differences) <= 1.0
    assert max(differences) <= 2.5
    assert np.abs(np.mean(tints, 0)).max() <= 0.1
