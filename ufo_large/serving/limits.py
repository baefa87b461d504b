"""What the server takes from a client at most."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """`max_bytes` per request and `max_pixels` per picture; `places`: requests that are there at once.

    `joined`: pictures in one forward at most; `wait_s`: how long the first of them waits for others.
    `upload_s`: how long a client may take to send a request.
    """

    max_bytes: int = 20 << 20
    max_pixels: int = 40_000_000
    places: int = 32
    joined: int = 8
    wait_s: float = 0.01
    upload_s: float = 60.0

    def __post_init__(self):
        for name in ("max_bytes", "max_pixels", "places", "joined"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} {getattr(self, name)}: give a whole number from 1 on")
