"""What Parquet files hold: columns as Hugging Face describes them, and pictures, unpacked into the cache.

pyarrow is imported where it is used: most data needs none of it.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufo_large.config import give_usual_rights, parse_json
from ufo_large.data.opener import default_cache
from ufo_large.media.opening import open_picture

ROWS_AT_ONCE = 64
BYTES, PATH = "bytes", "path"
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """`pictures`: columns of pictures; `others`: of plain values; `features`: what the file says of each."""

    pictures: tuple[str, ...]
    others: tuple[str, ...]
    features: dict[str, Any]

    def class_names(self, column: str, *keys: str) -> tuple[str, ...]:
        """Return the names of a ClassLabel; in a column of objects, of the first of `keys` that they have."""
        feature = _inside(self.features.get(column))
        for key in keys:
            if isinstance(feature, dict) and key in feature:
                feature = _inside(feature[key])
                break
        is_label = isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        names = feature.get("names") if is_label else None
        return tuple(map(str, names)) if isinstance(names, list) else ()


def _inside(feature: Any) -> Any:
    """Return what a list of the features holds; `datasets` has written lists in three ways."""
    if isinstance(feature, list):
        return _inside(feature[0]) if feature else None
    is_list = isinstance(feature, dict) and {"feature", "_type"} <= feature.keys()
    return _inside(feature["feature"]) if is_list else feature


def columns_of(file: Path) -> Columns:
    """Raises ValueError where the file is no Parquet."""
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
        said = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"), "its metadata", "save it again")
    except (ValueError, OSError) as error:
        remedy = "download it again, with `git lfs pull` where it came by git"
        raise ValueError(f"{file}: not Parquet that can be read ({error}); {remedy}") from None
    features = _mapping(_mapping(said).get("info")).get("features")
    return _columns(schema, _mapping(features))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _columns(schema: Any, features: dict[str, Any]) -> Columns:
    """Sort the columns of an arrow schema."""
    import pyarrow as pa

    def holds_pictures(field: pa.Field) -> bool:
        if isinstance(kind := features.get(field.name), dict):  # sounds are bytes with a path too
            return kind.get("_type") == "Image"
        inner = field.type
        if pa.types.is_struct(inner) and inner.get_field_index(BYTES) >= 0:
            inner = inner.field(BYTES).type
        return pa.types.is_binary(inner) or pa.types.is_large_binary(inner)

    pictures = tuple(field.name for field in schema if holds_pictures(field))
    others = tuple(field.name for field in schema if field.name not in pictures)
    return Columns(pictures=pictures, others=others, features=features)


def cells_of(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        return opened.read(columns=list(columns), use_threads=False).to_pylist()


def unpacked(root: Path, files: Sequence[Path], column: str) -> Path:
    """Return a folder of the cache that holds <file without suffix>/<row from 1>.<suffix> of all files.

    They are unpacked at the first call; another one follows where a file has another size or time. Raises
    ValueError where a file holds none.
    """
    stamps = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    digest = hashlib.sha256(repr((column, stamps)).encode()).hexdigest()
    place = default_cache() / "parquet" / digest[:16]
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        begun = Path(tempfile.mkdtemp(prefix=f"{place.name}-", dir=place.parent))
        try:
            for file in files:
                _unpack(file, column, begun / file.relative_to(root).with_suffix(""))
            give_usual_rights(begun)
            begun.rename(place)
        except OSError as error:
            if not place.is_dir():  # another process may have been first
                told = f"{place}: the pictures of {files[0]} cannot be unpacked there ({error})"
                raise ValueError(f"{told}; make room, or set UFO_CACHE to another folder") from error
        finally:
            shutil.rmtree(begun, ignore_errors=True)
    return place


def _unpack(file: Path, column: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, content in enumerate(_contents(file, column), 1):
        if content:
            (folder / f"{number:06d}{_suffix(content)}").write_bytes(content)
    if not any(os.scandir(folder)):
        told = f"{file}: column {column} holds no picture, perhaps only paths of another machine"
        raise ValueError(f"{told}; save the pictures into it, or as files with a metadata.jsonl")


def _contents(file: Path, column: str) -> Iterator[bytes | None]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(ROWS_AT_ONCE, columns=[column], use_threads=False):
            for cell in batch.column(0).to_pylist():
                yield cell.get(BYTES) if isinstance(cell, dict) else cell


def _suffix(content: bytes) -> str:
    """Return the suffix of the format; what is no picture gets that of most, and is reported later."""
    try:
        with open_picture(content) as image:
            return SUFFIXES.get(image.format or "", ".png")
    except (OSError, ValueError, SyntaxError):
        return ".jpg"
