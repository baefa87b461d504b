"""The server's answers: those of launchers/predict.py, and what it says of requests that are no use."""

import asyncio
import base64
import io
import json
import struct
from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from ufo_large.kinds import KINDS
from ufo_large.kinds.classification import Classification
from ufo_large.media.pictures import decode_rgb, encode_jpeg
from ufo_large.serving.guard import is_loopback
from ufo_large.serving.limits import Limits
from ufo_large.serving.pictures import named, read_picture
from ufo_large.serving.predict_paths import predict_paths
from ufo_large.serving.result import Result
from ufo_large.serving.samples import read_samples
from ufo_large.serving.server import HERE, make_app
from ufo_large.serving.service import _body_of, _plain_name
from ufo_large.structures import ClassPrediction, TaskInfo
from ufo_large.testing.untrained import untrained

LOCAL = "http://127.0.0.1:8000"
NOISE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
SMALL = Limits(max_bytes=100_000, max_pixels=20_000, places=2)


def encoded(format: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, format, **options)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", exif=exif)


PICTURES = {
    "plain.jpg": encoded("JPEG"),
    "turned.jpg": turned(),
    "a.png": encoded("PNG"),
    "b.bmp": encoded("BMP"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def app(model):
    return make_app(model, SMALL)


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app, base_url=LOCAL) as client:
        yield client


def ask(client, data=PICTURES["plain.jpg"], name="a.jpg", **fields):
    return client.post("/predict", files={"file": (name, data)}, data=fields)


@pytest.mark.parametrize("name", PICTURES)
def test_the_answer_is_the_line_of_the_predict_command(model, client, tmp_path, name):
    file = tmp_path / name
    file.write_bytes(PICTURES[name])
    predict_paths(model, [str(file)], tmp_path / "out")
    expected = json.loads((tmp_path / "out/predictions.jsonl").read_text())
    answer = ask(client, PICTURES[name], name, include="files").json()
    mask = answer.pop("files")["seg"]
    assert answer == expected
    assert answer.get("exif_turned", False) == (name == "turned.jpg")
    written = tmp_path / f"out/files/seg/{name}.{mask['ending']}"
    assert base64.b64decode(mask["base64"]) == written.read_bytes()


def test_only_the_tasks_that_were_asked_for_answer(client):
    for tasks in ("cls,seg", ["cls", "seg"], ["cls", " seg ", "cls"]):
        assert list(ask(client, tasks=tasks).json()["tasks"]) == ["cls", "seg"]
    assert list(ask(client, tasks="").json()["tasks"]) == ["cls", "dec", "seg"]


def test_what_is_drawn_is_each_kinds_own(client):
    drawn = ask(client, include="drawn").json()["drawn"]
    plain = base64.b64decode(drawn["picture"].partition(",")[2])
    shown = {task: base64.b64decode(one["picture"].partition(",")[2]) for task, one in drawn["tasks"].items()}
    assert shown["cls"] == plain != shown["seg"]
    assert {task: one["layered"] for task, one in drawn["tasks"].items()} == {
        "cls": False,
        "dec": False,  # an untrained head is sure of no box
        "seg": True,
    }
    assert len(drawn["tasks"]["cls"]["bars"]) == 3 and drawn["tasks"]["seg"]["legend"]


class Mood(Classification):
    """A kind that the server does not know: the picture upside down, in words of its own."""

    name = "mood"

    def described(self, prediction, info):
        return {"mood": "calm"}

    def draw(self, examples):
        for example in examples:
            yield example.card("calm", legend=(("sea", "#0000ff"),)), example.image_HW3[::-1]


def test_a_foreign_kind_speaks_and_draws_for_itself(monkeypatch):
    monkeypatch.setitem(KINDS, "mood", Mood())
    info = TaskInfo(name="day", kind="mood")
    picture = read_picture(named([PICTURES["a.png"]])[0])
    said = ClassPrediction(picture.sample, torch.zeros(0))
    result = Result(file_name="a.png", tasks={"day": info}, predictions={"day": said}, picture=picture)
    body = _body_of(result, ["drawn", "files"])
    assert body["tasks"] == {"day": {"mood": "calm"}} and body["files"] == {}
    drawn = body["drawn"]["tasks"]["day"]
    assert (drawn["kind"], drawn["headline"], drawn["legend"]) == ("mood", "calm", (("sea", "#0000ff"),))
    upside_down = decode_rgb(base64.b64decode(drawn["picture"].partition(",")[2]))
    assert upside_down.shape == NOISE.shape and not drawn["layered"]
    apart = lambda rgb: np.abs(rgb.astype(int) - NOISE).mean()
    assert apart(upside_down[::-1]) < apart(upside_down) / 2


def header_of(height, width):
    """A JPEG of 16x16 pixels whose header states another size."""
    data = bytearray(encode_jpeg(np.zeros((16, 16, 3), np.uint8), 90))
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


EPS = io.BytesIO()
Image.new("L", (8, 8)).save(EPS, "EPS")


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"", 422, "empty file"),
        (b"no picture", 422, "send a picture in one of the formats JPEG, PNG"),
        (PICTURES["plain.jpg"][:900], 422, "truncated"),
        (EPS.getvalue(), 422, "not a picture that can be read"),
        (header_of(5000, 10_000), 413, "10000 x 5000 pixels, more than 20000; shrink it"),
        (header_of(65_500, 65_500), 422, "it is not decoded"),
        (b"x" * 100_001, 413, "send a smaller file, or start the server with --max-bytes"),
    ],
)
def test_a_picture_that_is_no_use_is_told_with_the_remedy(client, data, status, said):
    answer = ask(client, data)
    assert answer.status_code == status and said in answer.json()["detail"]
    assert ask(client).status_code == 200


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({}, 422, "file: Field required"),
        ({"data": {"file": "text"}}, 422, "Expected UploadFile"),
        (
            {"files": {"file": b"x"}, "data": {"tasks": "sge"}},
            422,
            "'sge': the model has no such task",
        ),
        ({"files": {"file": b"x"}, "data": {"tasks": "a" * 2001}}, 422, "known: cls, dec, seg"),
        ({"files": {"file": b"x"}, "data": {"include": "all"}}, 422, "'files' or 'drawn'"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "Missing boundary"),
        ({"json": {"file": "x"}}, 422, "file of multipart/form-data"),
    ],
)
def test_a_form_that_is_no_use_is_told_with_the_remedy(client, request_, status, said):
    answer = client.post("/predict", **request_)
    assert answer.status_code == status
    assert said in answer.json()["detail"].replace("`", "") and answer.json().keys() == {"detail"}


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>.jpg", "../../etc/passwd", "..\\a\x00b", "é" * 400]
)
def test_a_name_is_only_text(client, name):
    answer = ask(client, name=name)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    found = answer.json()["file_name"]
    assert "/" not in found and "\\" not in found and len(found) <= 255


def test_a_name_that_utf_8_cannot_hold():
    assert _plain_name("a\ud800b") == "a?b" and _plain_name("") == _plain_name("a/") == "picture"


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.js/x", "/samples/-1", "/docs"]
)
def test_no_path_is_a_file(client, path):
    answer = client.get(path)
    assert answer.status_code == 404 and "openapi.json" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "a@127.0.0.1"])
def test_another_host_name_is_refused_on_this_machine(client, host):
    answer = client.get("/model", headers={"host": host})
    assert answer.status_code == 400 and "--host" in answer.json()["detail"]


def test_which_hosts_and_pages_are_served(client, model):
    for host in ("localhost:8000", "127.0.0.1", "LOCALHOST", "[::1]:8000", "127.0.0.9:8000"):
        assert client.get("/health", headers={"host": host}).json() == {"status": "ok", "waiting": 0}
    assert ask(client).status_code == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9000"):
        answer = client.post("/predict", headers={"origin": origin})
        assert answer.status_code == 403 and "another site" in answer.json()["detail"]
    assert client.get("/health", headers={"origin": LOCAL}).status_code == 200
    assert "access-control-allow-origin" not in client.get("/health", headers={"origin": LOCAL}).headers
    with TestClient(make_app(model, local=False), base_url="http://gpu.example") as other:
        assert other.get("/health").status_code == 200
    assert [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.1", "gpu.example")] == [False] * 4


def test_the_model_describes_itself(client):
    body = client.get("/model").json()
    assert body["name"] == "model" and body["limits"] == {"bytes": 100_000, "pixels": 20_000}
    assert [task["name"] for task in body["tasks"]] == ["cls", "dec", "seg"]
    first = body["tasks"][0]
    assert first["kind"] == "classification" and first["classes"][4] == {"name": "c4", "id": 4}
    assert {"height", "width", "resize"} <= first["input"].keys()


def test_the_api_describes_itself(client):
    body = client.get("/openapi.json").json()
    assert set(body["paths"]) == {"/predict", "/model", "/health", "/samples", "/samples/{number}"}
    assert set(body["paths"]["/predict"]["post"]["requestBody"]["content"]) == {"multipart/form-data"}


def test_the_page_needs_no_other_server(client):
    texts = [client.get(path).text for path in ("/", "/page.css", "/page.js")]
    assert not [text for text in texts if "http://" in text or "https://" in text]
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]
    script = (HERE / "page.js").read_text()
    assert not [
        word for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write") if word in script
    ]


async def _send(app, receive) -> tuple[int, dict, int]:
    """Send a request without Content-Length by hand; return status, body and how often it was read from."""
    scope = {
        "type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"",
        "scheme": "http", "http_version": "1.1", "root_path": "", "server": ("127.0.0.1", 8000),
        "headers": [(b"host", b"127.0.0.1:8000"), (b"content-type", b"multipart/form-data; boundary=b")],
    }  # fmt: skip
    sent, reads = [], 0

    async def counted():
        nonlocal reads
        reads += 1
        return await receive()

    async def send(message):
        sent.append(message)

    await app(scope, counted, send)
    return sent[0]["status"], json.loads(sent[1]["body"]), reads


def test_a_body_without_a_length_is_cut_at_the_limit(app):
    async def endless():
        data = b"--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n" + b"x" * 10_000
        return {"type": "http.request", "body": data, "more_body": True}

    status, body, reads = asyncio.run(_send(app, endless))
    assert status == 413 and "--max-bytes" in body["detail"] and reads <= 11


def test_a_body_that_does_not_come_is_given_up(model):
    hasty = make_app(model, replace(SMALL, upload_s=0.2))
    status, body, _ = asyncio.run(_send(hasty, lambda: asyncio.sleep(60)))
    assert status == 408 and "within 0.2 s" in body["detail"]


def test_a_full_house_says_when_to_come_again(app):
    async def three():
        sending, hang_up = asyncio.Semaphore(0), asyncio.Event()

        async def held():
            sending.release()
            await hang_up.wait()
            return {"type": "http.disconnect"}

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:
            slow = [asyncio.create_task(_send(app, held)) for _ in range(2)]
            for _ in slow:
                await sending.acquire()
            told = await client.post("/predict", files={"file": PICTURES["a.png"]})
            healthy = await client.get("/health")
            hang_up.set()
            await asyncio.gather(*slow)
            later = await client.post("/predict", files={"file": PICTURES["a.png"]})
        return told, healthy, later

    told, healthy, later = asyncio.run(three())
    assert told.status_code == 503 and told.headers["retry-after"] == "1"
    assert "ask again in 1 s" in told.json()["detail"]
    assert healthy.status_code == later.status_code == 200


def test_samples_are_of_the_runs_own_shards(tmp_path, tiny_shards):
    model = untrained(tmp_path / "run", data=str(tiny_shards))
    samples = read_samples(model.saved, tmp_path)
    moved = replace(model.saved, data="elsewhere/shards")
    assert read_samples(moved, tiny_shards.parent) == samples
    assert read_samples(replace(model.saved, fingerprint="of others"), tmp_path) == []
    with TestClient(make_app(model, samples=samples), base_url=LOCAL) as client:
        listed = client.get("/samples").json()
        assert listed == [{"name": one.name, "task": one.task} for one in samples]
        for number, one in enumerate(samples):
            assert client.get(f"/samples/{number}").content == one.data
        assert ask(client, samples[0].data, samples[0].name).status_code == 200
    assert [one.task for one in samples] == ["cls", "cls", "dec", "dec", "seg", "seg"]


@pytest.mark.parametrize("data", ["", "/nowhere", "https://example.org/shards", "pipe:touch HERE"])
def test_without_shards_on_this_machine_there_are_no_samples(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    assert read_samples(untrained(tmp_path, data=data).saved, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels"])
def test_limits_are_positive(name):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} 0"):
        Limits(**{name: 0})
