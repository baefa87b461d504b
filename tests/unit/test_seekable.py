"""Restart markers change no pixel, and what is cut out between them decodes as the whole does, to the bit.

PIL decodes both files for the first; for the second the whole file is decoded and cropped.
"""

import io

import numpy as np
import pytest
from PIL import Image

from ufo_large.data.seekable import HuffmanTable, choose_interval, make_seekable
from ufo_large.data.stored_sample import Transcode, store
from ufo_large.kinds import KINDS
from ufo_large.media.decode import BadSample, decode_image, decode_part
from ufo_large.media.jpeg import cut, read_frame
from ufo_large.media.pictures import picture_facts
from ufo_large.structures import Example

SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth shapes, edges and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [127 + 100 * np.sin(x / rng.uniform(9, 90) + y / rng.uniform(9, 90)) for _ in range(3)]
    pixels = np.stack(planes, 2) + rng.normal(0, 12, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 88, **options})
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("size", [(96, 128), (241, 319), (33, 200)], ids=str)
def test_no_pixel_changes(size, subsampling, optimize):
    data = jpeg(photograph(*size), subsampling=SUBSAMPLINGS[subsampling], optimize=optimize)
    seekable = make_seekable(data)
    assert read_frame(seekable).is_seekable and not read_frame(data).is_seekable
    assert np.array_equal(pixels(seekable), pixels(data))
    assert len(seekable) < 1.06 * len(data)
    assert make_seekable(seekable) is seekable


def test_grey_pictures_and_other_segments_stay():
    data = jpeg(photograph(120, 200).convert("L"), comment=b"by hand", dpi=(72, 72))
    seekable = make_seekable(data)
    assert np.array_equal(pixels(seekable), pixels(data)) and read_frame(seekable).is_seekable
    assert Image.open(io.BytesIO(seekable)).info["comment"] == b"by hand"


def test_codes_that_a_table_lacks_are_added():
    """A slow wave from grey to grey: an optimised table has codes for small differences only."""
    wave = 128 + 100 * np.sin(np.arange(640) / 640 * 2 * np.pi)
    noisy = wave + np.random.default_rng(0).normal(0, 6, (64, 640))
    data = jpeg(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), optimize=True, quality=98)
    seekable = make_seekable(data)
    assert read_frame(seekable).is_seekable
    assert seekable.count(b"\xff\xc4") == data.count(b"\xff\xc4") + 1
    assert np.array_equal(pixels(seekable), pixels(data))


def test_a_longer_code_keeps_the_others():
    """Symbols 3 and 4 as 0 and 10, all ones left free: 5 becomes 110, 6 becomes 1110."""
    table = HuffmanTable((1, 1, *[0] * 14), bytes([3, 4]))
    wider = table.with_symbols({3, 6, 5})
    assert wider.codes() == {3: (0b0, 1), 4: (0b10, 2), 5: (0b110, 3), 6: (0b1110, 4)}
    full = HuffmanTable((*[0] * 15, 2), bytes([3, 4]))
    assert full.with_symbols({5}) is None


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_a_part_decodes_as_the_whole_does(subsampling, shrink):
    image = photograph(301, 450)
    seekable = make_seekable(jpeg(image, subsampling=SUBSAMPLINGS[subsampling]))
    whole, rng, parts = decode_image(seekable, shrink), np.random.default_rng(1), 0
    for _ in range(20):
        top, left = int(rng.integers(301)), int(rng.integers(450))
        height, width = int(rng.integers(1, 302 - top)), int(rng.integers(1, 451 - left))
        found, (y, x), stated = decode_part(seekable, (top, left, height, width), shrink)
        assert stated in ((301, 450), None) and y <= top and x <= left
        expected = whole[y // shrink :, x // shrink :][: found.shape[0], : found.shape[1]]
        assert np.array_equal(found, expected)
        assert y + found.shape[0] * shrink >= top + height and x + found.shape[1] * shrink >= left + width
        parts += stated is not None and found.size < 0.8 * whole.size
    assert parts >= 10, "most rectangles must not decode everything"


def test_the_whole_picture_is_not_cut():
    seekable = make_seekable(jpeg(photograph(96, 128)))
    assert cut(seekable, read_frame(seekable), 0, 0, 96, 128) is None
    assert decode_part(seekable, (3, 3, 90, 120))[2] is None


def test_what_cannot_be_helped_stays_as_it_is():
    image = photograph(96, 128)
    progressive = jpeg(image, progressive=True)
    baseline = jpeg(image)
    png = io.BytesIO()
    image.save(png, "PNG")
    for data in (progressive, png.getvalue(), b"", b"\xff\xd8", b"\xff\xd8\xff\xc0\x00", baseline[:-900]):
        assert make_seekable(data) is data
    middle = len(baseline) // 2
    noise = baseline[:middle] + np.random.default_rng(0).bytes(len(baseline) - middle)
    assert make_seekable(noise) is noise
    assert decode_part(progressive, (0, 0, 16, 16))[2] is None


def test_damage_is_still_found():
    """A cut file, and one with a marker too few, are decoded whole, so the decoder refuses or fills them."""
    seekable = make_seekable(jpeg(photograph(241, 320)))
    frame = read_frame(seekable)
    short = seekable[: len(seekable) // 2]
    marker = seekable.index(b"\xff\xd3", frame.scan_at)
    for data in (short, seekable[:marker] + seekable[marker + 2 :]):
        assert cut(data, frame, 0, 0, 40, 40) is None
    with pytest.raises(BadSample):
        decode_part(short, (0, 0, 40, 40))


def test_intervals_divide_a_row_and_are_not_tiny():
    assert choose_interval(48, 4000.0) == 4
    assert choose_interval(50, 4000.0) == 5
    assert choose_interval(48, 480.0) == 12, "a marker for at least 100 bytes"
    assert choose_interval(43, 4000.0) == 43, "no divisor: markers between rows only"


def test_shards_store_it_on_wish(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(photograph(200, 300)))
    example = Example(image=path, file_name="a.jpg", image_id=0, where="")
    facts = picture_facts(path.read_bytes())
    plain = store(example, KINDS["classification"], facts, Transcode())
    seekable = store(example, KINDS["classification"], facts, Transcode(seekable=True))
    small = store(example, KINDS["classification"], facts, Transcode(seekable=True, short_side=96))
    assert plain.image == path.read_bytes() and seekable.image == make_seekable(plain.image)
    assert read_frame(small.image).is_seekable and min(small.picture.size) == 96
