"""JSON of strangers: each of these once raised another error than the project's own, or was accepted."""

import json

import pytest

from ufo_large.config import Unreadable, parse_json, read_json
from ufo_large.config.json_files import MAX_DEPTH

DEEP = 100_000
HOSTILE = {
    "empty": b"",
    "no JSON": b"{'a': 1}",
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": 1}'.encode("utf-16")[:-1],
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "as deep as Python parses": b"[" * 500 + b"]" * 500,
    "just too deep": b"[" * (MAX_DEPTH + 2) + b"1" + b"]" * (MAX_DEPTH + 2),
    "400 digits": b'{"bbox": [1' + b"0" * 400 + b", 1, 2, 2]}",
    "more digits than Python converts": b"[" + b"9" * 10_000 + b"]",
    "negative": b"[-1" + b"0" * 30 + b"]",
    "NaN": b'{"a": [NaN]}',
    "infinity": b"[-Infinity]",
    "infinity as a number": b"[1e999]",
    "key twice": b'{"a": 1, "b": 2, "a": 3}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_refused_with_file_and_remedy(tmp_path, name):
    file = tmp_path / "some.json"
    file.write_bytes(HOSTILE[name])
    with pytest.raises(Unreadable) as caught:
        read_json(file, "write it again")
    assert str(file) in str(caught.value) and str(caught.value).endswith("; write it again")
    assert len(str(caught.value)) < 500 + len(str(file))


def test_a_large_file_is_not_parsed(tmp_path):
    file = tmp_path / "some.json"
    file.write_text(" " * 100 + "1")
    with pytest.raises(Unreadable, match="larger than 100 bytes"):
        read_json(file, "write it again", limit=100)
    assert read_json(file, "write it again", limit=101) == 1


def test_what_is_usual_is_read():
    nested = "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH
    assert parse_json(nested, "x", "y") == json.loads(nested)
    text = '\ufeff{"id": 18446744073709551615, "name": "\u00e4", "x": [1e-400, -0.5, null, true, {}]}'
    assert parse_json(text.encode(), "x", "y")["id"] == 2**64 - 1
    assert str(parse_json("[NaN]", "x", "y", finite=False)) == "[nan]"
