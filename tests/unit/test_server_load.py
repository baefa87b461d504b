"""Many clients at once: joined into few forwards, one by one in the answer, and gone without a trace."""

import runpy
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from ufo_large.media.pictures import encode_jpeg
from ufo_large.runs.folder import RunFolder
from ufo_large.serving import service
from ufo_large.serving.joining import Asked, Joiner, predict_asked
from ufo_large.serving.limits import Limits
from ufo_large.serving.result import Result
from ufo_large.serving.serve import bound, make_server, require_packages, serve
from ufo_large.testing.models import TINY_TASKS, tiny_batch
from ufo_large.testing.untrained import served, untrained

ROOT = Path(__file__).resolve().parents[2]
WAITS = Limits(wait_s=60, joined=4)
IMAGES = tiny_batch(TINY_TASKS[0], 8).images_BCHW
PICTURES = [encode_jpeg(image.permute(1, 2, 0).numpy(), 90) for image in IMAGES]


def named(asked: Asked) -> Result:
    return Result(file_name=asked.name, error="not predicted")


class Recorder:
    """Stands in for the model: notes which requests came together, and waits where it is told to."""

    def __init__(self):
        self.calls, self.go, self.begun = [], threading.Event(), threading.Event()
        self.go.set()

    def __call__(self, asked):
        self.calls.append([one.name for one in asked])
        self.begun.set()
        assert self.go.wait(60)
        if any(one.name == "bad" for one in asked):
            raise RuntimeError("no memory")
        return [named(one) for one in asked]


def asked(name: str, *tasks: str) -> Asked:
    return Asked(b"", name, tasks or ("cls",))


def test_requests_for_the_same_tasks_share_a_call_and_keep_their_order():
    recorder = Recorder()
    joiner = Joiner(recorder, WAITS)
    lined_up = [asked("a"), asked("b", "seg"), asked("c"), asked("d")]
    answers = [joiner.ask(one) for one in lined_up]
    assert [answer.result(60).file_name for answer in answers] == ["a", "b", "c", "d"]
    assert recorder.calls == [["a", "c", "d"], ["b"]]
    joiner.close()
    with pytest.raises(RuntimeError, match="stopping"):
        joiner.ask(asked("e"))


def test_a_request_that_fails_costs_no_other_its_answer():
    recorder = Recorder()
    joiner = Joiner(recorder, replace(WAITS, joined=3))
    answers = [joiner.ask(asked(name)) for name in ("a", "bad", "c")]
    assert answers[0].result(60).file_name == "a" and answers[2].result(60).file_name == "c"
    with pytest.raises(RuntimeError, match="no memory"):
        answers[1].result(60)
    assert recorder.calls == [["a", "bad", "c"], ["a"], ["bad"], ["c"]] and joiner.is_alive
    joiner.close()


def test_who_gave_up_is_not_predicted_and_takes_no_room():
    recorder = Recorder()
    joiner = Joiner(recorder, replace(WAITS, joined=1))
    recorder.go.clear()
    first = joiner.ask(asked("first"))
    assert recorder.begun.wait(60)
    for number in range(20):
        joiner.ask(asked(str(number))).cancel()
    assert joiner.waiting == 0 and len(joiner._waiting) <= 1
    last = joiner.ask(asked("last"))
    recorder.go.set()
    assert first.result(60).file_name == "first" and last.result(60).file_name == "last"
    assert recorder.calls == [["first"], ["last"]]
    joiner.close()


def test_a_closed_joiner_tells_who_still_waits():
    recorder = Recorder()
    joiner = Joiner(recorder, replace(WAITS, joined=1))
    recorder.go.clear()
    joiner.ask(asked("first"))
    assert recorder.begun.wait(60)
    left = joiner.ask(asked("left"))
    closing = threading.Thread(target=joiner.close)
    closing.start()
    with pytest.raises(RuntimeError, match="stopping"):
        left.result(60)
    recorder.go.set()
    closing.join(60)
    assert not joiner.is_alive


def assert_near(found, expected):
    """Equal but for the rounding of a batch of another size."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_near(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected)


def ask(address, picture, name="a.jpg"):
    return httpx.post(f"{address}/predict", files={"file": (name, picture)}, timeout=60)


def test_clients_at_once_share_forwards_and_get_what_each_gets_alone(tmp_path, monkeypatch):
    model, sizes = untrained(tmp_path), []

    def counted(model, group):
        sizes.append(len(group))
        return predict_asked(model, group)

    monkeypatch.setattr(service, "predict_asked", counted)
    with served(model, Limits(wait_s=60, joined=8)) as (address, _):
        with ThreadPoolExecutor(8) as clients:
            found = list(clients.map(lambda picture: ask(address, picture).json(), PICTURES))
        assert sizes == [8]
    for answer, picture in zip(found, PICTURES, strict=True):
        assert_near(answer, model.predict(picture).to_dict() | {"file_name": "a.jpg"})


def test_twenty_clients_that_hang_up_leave_their_places(tmp_path, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(service, "predict_asked", lambda model, group: recorder(group))
    with served(untrained(tmp_path), Limits(places=25, joined=1, wait_s=0)) as (address, _):
        recorder.go.clear()
        with ThreadPoolExecutor(1) as other:
            first = other.submit(ask, address, PICTURES[0], "first")
            assert recorder.begun.wait(60)
            for _ in range(2):  # more than there are places, if they were kept
                hang_up(address, 20)
                until(lambda: httpx.get(f"{address}/health").json()["waiting"] == 0)
            last = other.submit(ask, address, PICTURES[0], "last")
            recorder.go.set()
            assert "not predicted" in first.result(60).json()["detail"]
            assert "not predicted" in last.result(60).json()["detail"]
        assert recorder.calls == [["first"], ["last"]]


def hang_up(address: str, count: int) -> None:
    """Send whole requests, and the halves of some, and close the connections before there is an answer."""
    built = httpx.Request("POST", f"{address}/predict", files={"file": ("gone", PICTURES[0])})
    built.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in built.headers.items())
    whole = f"POST /predict HTTP/1.1\r\n{head}\r\n".encode() + built.content
    open_ones = []
    for number in range(count):
        client = socket.create_connection(("127.0.0.1", built.url.port))
        client.sendall(whole[: len(whole) // 2] if number % 4 == 0 else whole)
        open_ones.append(client)
    until(lambda: httpx.get(f"{address}/health").json()["waiting"] == count - count // 4)
    for client in open_ones:
        client.close()


def until(done) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_large_upload_is_read_to_its_end_and_told(tmp_path):
    """A connection that is cut while the client still sends would hide the reason from it."""
    with served(untrained(tmp_path), Limits(max_bytes=1000)) as (address, _):
        pieces = (b"x" * 1_000_000 for _ in range(10))
        for content in (b"x" * 10_000_000, pieces):  # with its length, and without
            headers = {"content-type": "multipart/form-data; boundary=b"}
            answer = httpx.post(f"{address}/predict", content=content, headers=headers, timeout=60)
            assert answer.status_code == 413 and "--max-bytes" in answer.json()["detail"]


def test_the_command_says_what_a_run_lacks(tmp_path, monkeypatch, capsys):
    saved = untrained(tmp_path).saved
    RunFolder(tmp_path).write(saved.config, saved.tasks, "", "", None)
    for folder, said in ((tmp_path, "saved no whole checkpoint yet"), (tmp_path / "a", "no such folder")):
        monkeypatch.setattr(sys, "argv", ["serve.py", "--workdir", str(folder), "--port", "0"])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "launchers/serve.py"), run_name="__main__")
        assert end.value.code == 2 and said in capsys.readouterr().err


def test_an_address_that_cannot_be_had_is_told_before_the_model_is_opened():
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"127.0.0.1 port {port} .*give a free --port"):
            serve(lambda: pytest.fail("was opened"), "127.0.0.1", port, Limits())
    for host, port in (("no.such.host.invalid", 0), ("127.0.0.1", 70_000), ("203.0.113.7", 0)):
        with pytest.raises(ValueError, match="cannot listen on"):
            bound(host, port)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ValueError, match=r"uvicorn.*pip install ufo_large\[serve\]"):
        require_packages()


def test_another_host_is_warned_of(tmp_path, capsys):
    make_server(untrained(tmp_path), "127.0.0.1", Limits())
    assert capsys.readouterr().err == ""
    make_server(untrained(tmp_path), "0.0.0.0", Limits())
    assert "warning: --host 0.0.0.0: whoever reaches this port may predict" in capsys.readouterr().err
