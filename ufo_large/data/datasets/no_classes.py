"""Folders of pictures that are no classes: by their names, or because one holds the masks of another."""

import re
from itertools import combinations, islice
from pathlib import Path
from typing import NamedTuple

from ufo_large.data.datasets.base import list_images
from ufo_large.data.datasets.pairs import Files
from ufo_large.data.datasets.split_names import SPLIT_NAMES, split_folders, subfolders
from ufo_large.media.opening import open_picture

MOST_FOLDERS = 4  # pictures, masks and perhaps other views of the same; more are classes
PAIRS = 5
MASK_COLORS = 64  # a mask has a colour per class, a photograph has thousands
SPLIT = "|".join(SPLIT_NAMES)
NO_CLASS = re.compile(
    rf"(({SPLIT})[-_ ]?)?(images?|imgs?|labels?|masks|annotations?|annots?)"
    rf"|({SPLIT})[-_ ]?(mask|data|set|\d{{4}}|[ab])"
    r"|jpegimages|segmentation(class|object)",
    re.IGNORECASE,
)
AS_MASKS = "for masks, name the folders images/ and masks/"


def no_class_folders(root: Path) -> str:
    """Return which folder is no class by its name or content, with the remedy; empty where all may be."""
    for place in split_folders(root).values() or [root]:
        folders = subfolders(place)
        for folder in folders:
            if NO_CLASS.fullmatch(folder.name):
                told = "no name of a class; for classes, put pictures into a folder per class"
                return f"{folder}: {told}; {AS_MASKS}"
        listed = [list_images(folder) for folder in folders] if len(folders) <= MOST_FOLDERS else []
        for one, other in combinations(filter(None, listed), 2):
            if told := _picture_and_mask(one, other) or _picture_and_mask(other, one):
                return told
    return ""


def _picture_and_mask(images: Files, masks: Files) -> str:
    """Tell masks by three signs: both folders have the same stems, sizes agree, masks have few colours."""
    if [Path(name).stem for name in images] != [Path(name).stem for name in masks]:
        return ""
    pairs = list(islice(zip(images.values(), masks.values(), strict=True), PAIRS))
    for image, mask in ((_look(image), _look(mask)) for image, mask in pairs):
        if not (image and mask and image.size == mask.size and mask.few_colors and not image.few_colors):
            return ""
    image, mask = pairs[0]
    shown = f"{mask.parent.name}/{mask.name} is a mask of {image.parent.name}/{image.name}"
    return f"{mask.parents[1]}: {shown} by its size and colours, and no class; {AS_MASKS}"


class _Look(NamedTuple):
    size: tuple[int, int]
    few_colors: bool


def _look(path: Path) -> _Look | None:
    """Return None where the picture cannot be read: that is reported where files are checked."""
    try:
        with open_picture(path) as image:
            return _Look(image.size, image.convert("RGB").getcolors(MASK_COLORS) is not None)
    except (OSError, ValueError, SyntaxError):
        return None
