"""Names in any language: drawn where a font has them, told apart where none has."""

import numpy as np
import pytest
from PIL import ImageFont

from ufo_large.media import lettering
from ufo_large.media.drawing import draw_boxes
from ufo_large.media.lettering import lettered


@pytest.fixture
def pillows_font_alone(monkeypatch):
    monkeypatch.setattr(lettering, "_fonts", lambda size: [ImageFont.load_default(size)])


def drawn(name: str, box=(4.0, 40.0, 60.0, 60.0)) -> np.ndarray:
    boxes = np.array([box])
    return draw_boxes(np.zeros((64, 160, 3), np.uint8), boxes, [name], [0], np.zeros((0, 4)))


def test_letters_of_a_font_are_drawn_as_they_are(pillows_font_alone):
    assert lettered("stop 87 %", 14)[0] == "stop 87 %"
    pictures = [drawn(name) for name in ("Strasse", "Straße", "Stra??e")]
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_names_that_no_font_has_still_differ(pillows_font_alone):
    assert lettered("行人 87 %", 14)[0] == "\\u884c\\u4eba 87 %"
    assert drawn("行人").tobytes() != drawn("車輛").tobytes()


def test_a_system_font_is_asked_for_what_pillows_lacks(pillows_font_alone, monkeypatch):
    other = ImageFont.load_default(15)
    monkeypatch.setattr(lettering, "_has", lambda font, letter: letter.isascii() or font is other)
    monkeypatch.setattr(lettering, "_fonts", lambda size: [ImageFont.load_default(size), other])
    assert lettered("行人", 14) == ("行人", other) and lettered("abc", 14)[1] is not other


@pytest.mark.parametrize(
    "box", [(0.0, 0.0, 9.0, 9.0), (150.0, 60.0, 170.0, 70.0), (-9.0, -40.0, 400.0, 90.0)]
)
def test_a_plate_that_does_not_fit_is_cut_off(box):
    assert drawn("a name that is far longer than the picture is wide", box).any()
