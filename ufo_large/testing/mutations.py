"""Damage files as a fuzzer does: their bytes, or single values of their JSON.

The same generator gives the same damage, so that an input that broke something is found again.
"""

import copy
import json
import random
from typing import Any

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 10**19, -(10**19), 10**400, 1e308, float("nan"), float("inf")),
    *("", " ", "0", "1", "-1", "\x00", "é\ud800", "../../etc/passwd", "/etc/passwd", "a" * 300, "<b>"),
    *([], {}, [[]], [1], {"a": 1}, [None], [True, False], [[1, 2], [[]]], {"": None}),
)
NESTED, DEPTHS = "nested ", (3, 70, 900, 100_000)
BYTES = (b"\x00", b"\xff", b"\xff\xd8", b"[", b"}", b'"', b"9" * 400, b"\n", b"NaN", b"<!DOCTYPE a>", b"../")


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return `content` after one to four of: a flipped bit, a cut, a repeat, an insertion, an overwriting."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, length = rng.randrange(len(found) + 1), rng.choice((1, 2, 4, 16, 256))
        match rng.randrange(5):
            case 0 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 1:
                del found[at : rng.choice((at + length, len(found)))]
            case 2:
                found[at:at] = found[at : at + length] * rng.choice((1, 2, 50))
            case 3:
                found[at:at] = rng.choice(BYTES)
            case _:
                found[at : at + length] = rng.choice(BYTES)
    return bytes(found)


def damaged_json(content: bytes, rng: random.Random) -> bytes:
    """Return JSON of which one or two values are exchanged, gone, doubled or nested; or its bytes damaged."""
    if rng.random() < 0.2:
        return damaged_bytes(content, rng)
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 2))):
        value = _with_damage(value, rng)
    text = json.dumps(value)
    for depth in DEPTHS:
        text = text.replace(f'"{NESTED}{depth}"', "[" * depth + "1" + "]" * depth)
    return text.encode("utf-8", "surrogatepass")


def _with_damage(value: Any, rng: random.Random) -> Any:
    places = list(_places(value))
    if not places:
        return rng.choice(HOSTILE)
    holder, key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del holder[key]
        case 1:
            holder[key] = f"{NESTED}{rng.choice(DEPTHS)}"
        case 2 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        case 2:
            holder[rng.choice(("", "x", "__class__", "format"))] = holder.pop(key)
        case 3:
            other, place = rng.choice(places)
            holder[key] = copy.deepcopy(other[place])
        case _:
            holder[key] = copy.deepcopy(rng.choice(HOSTILE))
    return value


def _places(value: Any):
    """Yield (container, key) of every value inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)
