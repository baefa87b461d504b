"""Damaged uploads, forms and paths, from a seed: every answer is JSON with a `detail`, or a prediction."""

import random

import pytest
from starlette.testclient import TestClient

from ufo_large.media.pictures import encode_jpeg, encode_mask
from ufo_large.serving.limits import Limits
from ufo_large.serving.server import make_app
from ufo_large.testing.models import TINY_TASKS, tiny_batch
from ufo_large.testing.mutations import HOSTILE, damaged_bytes
from ufo_large.testing.untrained import untrained

IMAGE = tiny_batch(TINY_TASKS[0], 1).images_BCHW[0].permute(1, 2, 0).numpy()
GOOD = (encode_jpeg(IMAGE, 90), encode_mask(IMAGE[..., 0]))
TEXTS = [value for value in HOSTILE if isinstance(value, str)]
TEXTS += ["cls", "cls,", ",,", "cls\r\nX: y", "+2AA-"]  # the last is half a character in UTF-7
PATHS = ("/../../etc/passwd", "//etc/passwd", "/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/samples/%00")
CHARSETS = ("", "", "; charset=utf-7", "; charset=utf-16", "; charset=rot13", "; charset=x")
TOLD = {400, 404, 405, 413, 422}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Raises what the application raises: an error that nobody expected fails the test."""
    model = untrained(tmp_path_factory.mktemp("model"))
    with TestClient(make_app(model, Limits(wait_s=0)), base_url="http://127.0.0.1") as client:
        yield client


def body_of(rng: random.Random) -> bytes:
    """A form with a damaged picture and fields of any text."""
    word = lambda: rng.choice(TEXTS).encode("utf-8", "surrogatepass")
    picture = (
        damaged_bytes(rng.choice(GOOD), rng) if rng.random() < 0.8 else rng.randbytes(rng.randrange(300))
    )
    parts = [(b"file", b'; filename="' + word() + b'"', picture)]
    parts += [(rng.choice((b"tasks", b"include", word())), b"", word()) for _ in range(rng.randrange(3))]
    rng.shuffle(parts)
    return b"".join(
        b'--b\r\nContent-Disposition: form-data; name="' + name + b'"' + more + b"\r\n\r\n" + value + b"\r\n"
        for name, more, value in parts
    ) + (b"--b--\r\n")


def checked(answer) -> int:
    body = answer.json()
    if answer.status_code == 200:
        assert body["tasks"]
    else:
        assert answer.status_code in TOLD
        assert body.keys() == {"detail"} and isinstance(body["detail"], str) and len(body["detail"]) < 1500
    return answer.status_code


def test_damaged_uploads_are_answered(client):
    seen = set()
    for number in range(120):
        rng = random.Random(number)
        body = body_of(rng)
        body = damaged_bytes(body, rng) if rng.random() < 0.5 else body
        headers = {"content-type": f"multipart/form-data; boundary=b{rng.choice(CHARSETS)}"}
        seen.add(checked(client.post("/predict", content=body, headers=headers)))
    assert {200, 400, 422} <= seen
    assert client.get("/health").json() == {"status": "ok", "waiting": 0}


def test_odd_paths_and_methods_are_answered(client):
    rng = random.Random(0)
    words = [text.encode("utf-8", "surrogatepass") for text in TEXTS]
    odd = [f"/samples/{''.join(f'%{byte:02x}' for byte in word)}" for word in words]
    odd += [f"/{rng.randbytes(9).hex('/')}" for _ in range(20)]
    for path in (*PATHS, *odd):
        for method in ("GET", "POST", "DELETE"):
            assert checked(client.request(method, path)) in TOLD
    for path in ("/predict", "/model", "/samples/0"):
        assert checked(client.request("PUT", path, content=b"x")) == 405
