"""Write text on pictures in a font that has its letters: names of classes are in any language."""

import functools

from PIL import ImageFont
from PIL.ImageFont import FreeTypeFont

SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "Arial Unicode.ttf",
    "Arial.ttf",
)
"""Asked in this order, where they are installed, for letters that Pillow's own font lacks."""
NO_LETTER = "\U0010fffd"


def lettered(text: str, size: int) -> tuple[str, FreeTypeFont]:
    """Return the text with the first font that has all of it.

    Where none has, letters outside ASCII are written as \\u4eba and the like, which still differ.
    """
    fonts = _fonts(size)
    for font in fonts:
        if all(_has(font, letter) for letter in text):
            return text, font
    return text.encode("ascii", "backslashreplace").decode(), fonts[0]


@functools.cache
def _fonts(size: int) -> list[FreeTypeFont]:
    found = [ImageFont.load_default(size)]
    for name in SYSTEM_FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return found


@functools.cache
def _has(font: FreeTypeFont, letter: str) -> bool:
    return letter.isspace() or _shape(font, letter) != _shape(font, NO_LETTER)


def _shape(font: FreeTypeFont, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
