"""The live page: what it says of a run that begins, trains, ends and is half written, and what it refuses."""

import http.client
import json
import os
import random
import re
import runpy
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ufo_large.testing.simulated_run import simulate_run, step_values
from ufo_large.tracking.live_server import LiveServer
from ufo_large.tracking.watching import WatchedRun, progress

COMMAND = Path(__file__).resolve().parents[2] / "launchers/watch.py"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("ufo_large.tracking.watching.PAUSE", 0)
    workdir = simulate_run(tmp_path / "<b>run", steps=20, scored=False)
    (workdir / "config.json").write_text(json.dumps({"config": {"steps": 40}}))
    return workdir


def append(workdir, step):
    values = step_values(step, 40, ("cls", "dec", "seg"), np.random.default_rng(0), 4)
    with (workdir / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": step} | values) + "\n")


def test_a_status_has_step_speed_time_left_and_the_last_sign_of_life(run):
    then = time.time() - 90
    for file in run.rglob("*"):
        os.utime(file, (then, then))
    watched = WatchedRun(run)
    before = watched.status()
    labels = dict(before.facts)
    assert labels["steps"] == "20 of 40" and labels["speed"] == "2.00 steps/s"
    assert re.fullmatch(r"1\d\.\d k tokens/s  MFU \d\d\.\d %", labels["rate"])
    assert labels["left, without validation"] == "0:10"
    assert labels["since the last sign of life"] in ("1:30", "1:31", "1:32")
    assert before.problem == "" and b"&lt;b&gt;run" in watched.report()
    append(run, 40)
    after = watched.status()
    labels = dict(after.facts)
    assert after.version != before.version and labels["steps"] == "40 of 40"
    assert labels["done"] == "all steps" and "left, without validation" not in labels
    assert labels["since the last sign of life"] in ("0:00", "0:01", "0:02")


def test_speed_is_that_of_the_last_steps_and_needs_figures():
    slow = [{"step": n, "train/step_seconds": 30.0} for n in range(1, 100)]
    fast = [{"step": n, "train/step_seconds": 2.0} for n in range(100, 150)]
    assert progress(slow + fast, 150) == [
        ("steps", "149 of 150"),
        ("speed", "2.00 s/step"),
        ("left, without validation", "0:02"),
    ]
    assert progress([{"step": 3}], None) == [("steps", "3")]
    assert progress([{"step": 3, "train/step_seconds": float("nan")}], 9) == [("steps", "3 of 9")]


def test_a_run_that_comes_later_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("ufo_large.tracking.watching.PAUSE", 0)
    watched = WatchedRun(tmp_path / "run")
    assert watched.status().problem.endswith("no such folder yet") and watched.status().version == ""
    (tmp_path / "run").mkdir()
    assert watched.status().problem == "no training step has been written yet"
    assert b"No training step has been logged" in watched.report()
    append(tmp_path / "run", 1)
    assert watched.status().problem == "" and dict(watched.status().facts)["steps"] == "1"


def test_half_written_files_are_told_and_the_last_report_stays(run):
    watched = WatchedRun(run)
    whole = watched.status().version
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 21, "cls/to')  # the line being written is no fault
    assert watched.status().problem == ""
    version, page = watched.status().version, watched.report()
    assert version != whole
    (run / "config.json").write_text('{"config": {"st')
    assert "config.json: not JSON" in watched.status().problem
    assert (watched.status().version, watched.report()) == (version, page)
    (run / "config.json").write_text('{"config": {"steps": 50}}')
    assert watched.status().problem == "" and dict(watched.status().facts)["steps"] == "20 of 50"


def test_a_report_is_not_made_more_often_than_the_processor_can_spare(run, monkeypatch):
    monkeypatch.setattr("ufo_large.tracking.watching.PAUSE", 1e6)
    watched = WatchedRun(run)
    first = watched.status().version
    append(run, 21)
    assert watched.status().version == first


def test_a_report_beyond_the_limit_is_told(run, monkeypatch):
    monkeypatch.setattr("ufo_large.tracking.watching.MAX_BYTES", 1000)
    assert "a page may have" in WatchedRun(run).status().problem


@pytest.fixture
def server(run):
    with LiveServer(WatchedRun(run)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def get(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def test_three_addresses_answer_and_nothing_else(server, run):
    (run / "secret.txt").write_text("s3cr3t")
    for path, kind, part in [("/", "text/html", b"<main>"), ("/report", "text/html", b"Loss of dec")]:
        status, headers, content = get(server, path)
        assert status == 200 and headers["Content-Type"].startswith(kind) and part in content
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]
    assert json.loads(get(server, "/status")[2])["name"] == "<b>run"
    assert server.server_address[0] == "127.0.0.1"
    odd = [
        "/secret.txt",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/report/",
        "/report?x",
        "/REPORT",
    ]
    odd += ["/report%00", "/./report", "http://127.0.0.1/report", f"{run}/secret.txt", "/" + "a" * 5000]
    for path in odd:
        assert get(server, path)[0] == 404
    for method in ("POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"):
        status, headers, _ = get(server, "/report", method)
        assert (status, headers["Allow"]) == (405, "GET")
    assert get(server, "/report", "BREW")[0] == 501


def test_only_requests_that_name_this_machine_are_answered(server):
    """Else DNS rebinding: a page of evil.example whose name suddenly means this machine."""
    for name in ("localhost", "localhost:9000", "127.0.0.1", "[::1]:8001", "192.168.0.7:8001"):
        assert get(server, "/status", Host=name)[0] == 200, name
    for name in ("evil.example", "127.0.0.1.evil.example", "", "localhost.", "a@localhost]", "[::1"):
        assert get(server, "/status", Host=name)[0] == 421, name


def raw(server, content, read=True):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as client:
        client.sendall(content)
        if not read:
            return b""
        client.shutdown(socket.SHUT_WR)
        found = b""
        while more := client.recv(1 << 16):
            found += more
        return found


def test_odd_requests_are_refused_and_the_server_goes_on(server, run, capsys):
    (run / "secret.txt").write_text("s3cr3t")
    host, chance = b"Host: localhost\r\n", random.Random(0)
    requests = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"Host: evil.example\r\n\r\n",
        b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n" + host + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 70000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(200)) + b"\r\n",
        b"GET / HTTP/9.9\r\n" + host + b"\r\n",
        b"GET ../secret.txt\r\n",
        b"\r\n\r\n",
    ]
    requests += [chance.randbytes(chance.randrange(1, 300)) + b"\r\n\r\n" for _ in range(100)]
    for request in requests:
        answer = raw(server, request)
        assert b" 200 " not in answer[:20] and b"s3cr3t" not in answer
    assert get(server, "/status")[0] == 200
    assert "Traceback" not in capsys.readouterr().err


def test_twenty_clients_that_hang_up_disturb_nobody(server, capsys):
    for number in range(20):
        raw(server, b"GET /report HTTP/1.1\r\nHost: localhost\r\n\r\n"[: 5 + 3 * number], read=False)
    for _ in range(20):
        raw(server, b"GET /report HTTP/1.1\r\nHost: localhost\r\n\r\n", read=False)
    assert get(server, "/report")[0] == 200
    assert "Traceback" not in capsys.readouterr().err


def test_the_command_says_where_it_serves_and_what_it_cannot(run, server, monkeypatch, capsys):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(LiveServer, "serve_forever", interrupted)
    command = ["watch.py", "--workdir", str(run), "--port"]
    monkeypatch.setattr("sys.argv", [*command, "0"])
    runpy.run_path(str(COMMAND), run_name="__main__")
    assert f"{run}: http://127.0.0.1:" in capsys.readouterr().out
    for port in (server.server_port, 70000):
        monkeypatch.setattr("sys.argv", [*command, str(port)])
        with pytest.raises(SystemExit, match="error: "):
            runpy.run_path(str(COMMAND), run_name="__main__")
