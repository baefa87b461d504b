"""Names from the disk, whose bytes may be no UTF-8."""

import os


def as_utf8(name: str | os.PathLike) -> str:
    """Return a name that can be printed and written into JSON: bytes that are no UTF-8 as \\x.."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
