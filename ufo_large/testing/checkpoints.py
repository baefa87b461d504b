"""Change a checkpoint's files as chance or somebody with a purpose would."""

from pathlib import Path

from ufo_large.config import read_json, write_json
from ufo_large.distributed.checkpoint import COMPLETE
from ufo_large.distributed.checksums import sealed, stamp_of


def flip_byte(file: Path, at: float = 0.5) -> None:
    """Change one bit of the byte that lies at this share of a file."""
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 1
    file.write_bytes(content)


def reseal(checkpoint: Path) -> None:
    """Make complete.json fit the files as they are now: who plants something would not forget that."""
    written = read_json(checkpoint / COMPLETE, "train again")
    for name, entry in written["files"].items():
        stamp = stamp_of(checkpoint / name)
        entry |= {"bytes": stamp.bytes, "sha256": stamp.sha256}
    write_json(checkpoint / COMPLETE, sealed(written))


def drop_checksums(checkpoint: Path) -> None:
    """Make it a checkpoint as earlier versions wrote it."""
    written = read_json(checkpoint / COMPLETE, "train again")
    write_json(checkpoint / COMPLETE, {key: written[key] for key in ("step", "world_size", "engine")})
