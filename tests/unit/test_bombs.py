"""Pictures whose header states more pixels than their bytes hold: refused before a decoder is called."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageFile, UnidentifiedImageError

from ufo_large.data.datasets.parquet_files import _suffix as parquet_suffix
from ufo_large.data.doctor_pictures import thumbnail
from ufo_large.data.transforms.window import load, whole_window
from ufo_large.kinds.depth import decode_depth, encode_depth
from ufo_large.media.decode import decode_image, decode_labels, decode_part
from ufo_large.media.opening import MAX_PIXELS, open_picture, stated_size
from ufo_large.media.pictures import (
    color_mask_facts,
    decode_rgb,
    encode_jpeg,
    encode_mask,
    inspect_file,
    mask_facts,
    mask_values,
    picture_facts,
)
from ufo_large.serving.pictures import Unread, named, read_picture
from ufo_large.structures import BadSample, RawSample, SampleInfo, TaskInfo


def jpeg(height, width):
    """A JPEG of 16x16 pixels whose header states another size."""
    data = bytearray(encode_jpeg(np.zeros((16, 16, 3), np.uint8), 90))
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def png(height, width, data=None):
    """A grey PNG of 16x16 pixels whose header states another size, with the right checksum."""
    data = bytearray(encode_mask(np.zeros((16, 16), np.uint8)) if data is None else data)
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def bmp(height, width):
    data = bytearray(cv2.imencode(".bmp", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


DEPTH = encode_depth(np.zeros((16, 16), np.uint16))
BOMBS = {"jpeg": jpeg(65_500, 65_500), "png": png(30_000, 30_000), "bmp": bmp(30_000, 30_000)}


@pytest.fixture(autouse=True)
def no_decoder(monkeypatch):
    """Let every decoder of pixels fail the test when it is called."""
    forbidden = lambda name: lambda *_, **__: pytest.fail(f"{name} was called")
    monkeypatch.setattr(simplejpeg, "decode_jpeg", forbidden("simplejpeg.decode_jpeg"))
    monkeypatch.setattr(cv2, "imdecode", forbidden("cv2.imdecode"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", forbidden("PIL's load"))


def test_the_guard_sees_a_decoder():
    with pytest.raises(pytest.fail.Exception, match="was called"):
        decode_image(png(16, 16))


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("look", [picture_facts, mask_facts, color_mask_facts, mask_values, decode_rgb])
def test_looking_into_a_file_refuses_bombs(look, bomb):
    assert len(BOMBS[bomb]) < 1100
    with pytest.raises(ValueError, match="pixels"):
        look(BOMBS[bomb])


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_a_bad_file_to_doctor_shards_and_predict(tmp_path, bomb):
    file = tmp_path / f"a.{bomb}"
    file.write_bytes(BOMBS[bomb])
    for look in (picture_facts, mask_facts, color_mask_facts):
        assert "pixels" in inspect_file(file, look).error
    info = TaskInfo(name="cls", kind="classification", class_names=("a",), class_ids=(0,))
    assert thumbnail(file, None, 100) is None and thumbnail(file, (info, None), 100) is None
    (unread,) = map(read_picture, named([file]))
    assert isinstance(unread, Unread) and "pixels" in unread.error
    assert parquet_suffix(BOMBS[bomb]) == ".jpg"


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_a_bad_sample(bomb):
    for decode in (decode_image, decode_labels, lambda data: decode_part(data, (0, 0, 8, 8), 8)):
        with pytest.raises(BadSample, match="pixels"):
            decode(BOMBS[bomb])


def test_a_depth_map_is_held_against_the_limit_and_is_a_png():
    with pytest.raises(BadSample, match="pixels"):
        decode_depth(png(30_000, 30_000, DEPTH))
    with pytest.raises(BadSample, match="unreadable depth map"):
        decode_depth(b"BM" + DEPTH)


def sample(image, target=None):
    info = SampleInfo(key="a", file_name="a.jpg", height=16, width=16, image_id=1, order=0)
    return RawSample(
        image=image, sample=info, labeled=target is not None, labels=np.zeros(0, np.int64), target=target
    )


SEG = TaskInfo(name="seg", kind="segmentation", class_names=("a",), class_ids=(0,))


@pytest.mark.parametrize("image", [jpeg(2000, 2000), png(2000, 2000), bmp(16, 2000)])
def test_a_picture_of_another_size_than_the_index_is_not_decoded(image):
    with pytest.raises(BadSample, match="2000, the index says 16x16"):
        load(sample(image), whole_window(16, 16, (8, 8), False), SEG)


def test_a_mask_of_another_size_than_its_image_is_not_decoded():
    with pytest.raises(BadSample, match="mask is 2000x2000, the index says 16x16"):
        load(sample(png(16, 16), png(2000, 2000)), whole_window(16, 16, (8, 8), False), SEG)


def test_only_named_formats_are_opened(monkeypatch):
    eps = io.BytesIO()
    Image.new("L", (8, 8)).save(eps, "EPS")
    assert Image.open(io.BytesIO(eps.getvalue())).format == "EPS"
    with pytest.raises(UnidentifiedImageError):
        open_picture(eps.getvalue())
    for decode in (decode_image, decode_labels):
        with pytest.raises(BadSample, match="cannot identify"):
            decode(eps.getvalue())


@pytest.mark.parametrize("name", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF"])
def test_the_named_formats_are_opened(tmp_path, name):
    file = tmp_path / "a"
    Image.new("RGB", (9, 8)).save(file, name)
    assert stated_size(file.read_bytes()) == (8, 9)
    with open_picture(Path(file)) as image:
        assert image.format == name


def test_the_limit_itself_is_allowed():
    assert stated_size(png(10, MAX_PIXELS // 10)) == (10, MAX_PIXELS // 10)
    with pytest.raises(ValueError, match="not decoded"):
        stated_size(png(10, MAX_PIXELS // 10 + 1))
    with pytest.raises(ValueError, match="more than"):
        stated_size(jpeg(13_378, 13_378))
