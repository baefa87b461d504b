"""Shards over HTTP, S3 and pipes from servers on this machine: retried, checked, named when they fail."""

import os
import shutil
import threading
from collections import Counter
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ufo_large.data.opener import FetchError, Retry, _fetch_with_retry
from ufo_large.data.shard_index import read_dataset
from ufo_large.data.shards import ShardSet
from ufo_large.testing.tiny_shards import tiny_shards

QUICK = Retry(attempts=3, first_delay_s=0.01)

pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None, reason="webdataset opens http with curl, not found"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_shards(tmp_path_factory.mktemp("tiny"), count=6)


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; `faults[path]` lists what to do wrong for the next requests of that path."""

    faults: dict[str, list[str]] = {}
    requests: Counter = Counter()

    def do_GET(self):
        self.requests[self.path] += 1
        fault = self.faults.get(self.path, []).pop(0) if self.faults.get(self.path) else None
        if fault == "503":
            self.send_error(503)
        elif fault == "drop":
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@contextmanager
def serve(folder: Path, faults: dict[str, list[str]] | None = None):
    handler = type("Faulty", (Handler,), {"faults": faults or {}, "requests": Counter()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.requests
    finally:
        server.shutdown()
        server.server_close()


def contents(shards: ShardSet) -> list:
    readers = [shards.split(task.name, "train") for task in shards.tasks]
    return [(s.image, s.target, s.sample) for r in readers for s in map(r.read, range(len(r)))]


def test_http_equals_disk_and_fetches_each_file_once(folder, tmp_path):
    with serve(folder) as (url, requests):
        remote = ShardSet.open(url, cache=tmp_path, retry=QUICK)
        assert remote.fingerprint == ShardSet.open(folder).fingerprint
        assert contents(remote) == contents(ShardSet.open(folder))
        assert contents(ShardSet.open(url + "/", cache=tmp_path, retry=QUICK)) == contents(remote)
        assert requests.pop("/dataset.json") == 2
        assert set(requests.values()) == {1}
        assert not list(tmp_path.rglob("*.part"))


def test_503_and_dropped_connections_are_retried(folder, tmp_path):
    faults = {"/dataset.json": ["503"], "/cls/train-000000.tar": ["drop", "503"]}
    with serve(folder, faults) as (url, requests):
        assert contents(ShardSet.open(url, cache=tmp_path, retry=QUICK)) == contents(ShardSet.open(folder))
        assert requests["/cls/train-000000.tar"] == 3


@pytest.mark.parametrize(("fault", "reason"), [("503", "503"), ("drop", "transfer closed|partial|exit 18")])
def test_a_server_that_keeps_failing_is_named(folder, tmp_path, fault, reason):
    with serve(folder, {"/cls/train-000000.tar": [fault] * 9}) as (url, requests):
        reader = ShardSet.open(url, cache=tmp_path, retry=QUICK).split("cls", "train")
        with pytest.raises(FetchError, match=rf"cls/train-000000.tar: failed 3 times.*({reason})"):
            reader.read(0)
        assert requests["/cls/train-000000.tar"] == 3
        assert not [p for p in tmp_path.rglob("*") if p.suffix == ".part"]


def test_a_missing_file_is_not_asked_for_again(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "shards")
    (copy / "seg" / "train-000000.tar").unlink()
    with serve(copy) as (url, requests):
        reader = ShardSet.open(url, cache=tmp_path / "cache", retry=QUICK).split("seg", "train")
        with pytest.raises(FetchError, match="seg/train-000000.tar: .*404.*check the address"):
            reader.read(0)
        assert requests["/seg/train-000000.tar"] == 1


def test_a_replaced_remote_shard_is_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "shards")
    shard = copy / "dec" / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    with serve(copy) as (url, _):
        reader = ShardSet.open(url, cache=tmp_path / "cache", retry=QUICK).split("dec", "train")
        with pytest.raises(FetchError, match="dec/train-000000.tar.*sha256.*cut short, or replaced"):
            reader.read(0)


def test_a_dead_server_is_named(tmp_path):
    with serve(tmp_path) as (url, _):
        pass
    with pytest.raises(FetchError, match=r"127.0.0.1:\d+/dataset.json: failed 3 times.*onnect"):
        ShardSet.open(url, cache=tmp_path, retry=QUICK)


def test_a_full_cache_is_named_and_not_asked_for_again(folder, tmp_path):
    """/dev/full refuses every byte as a full disk does."""
    sha256 = read_dataset(folder).split("cls", "train").shards[0].sha256
    with serve(folder) as (url, requests):
        reader = ShardSet.open(url, cache=tmp_path, retry=QUICK).split("cls", "train")
        (tmp_path / sha256[:2]).mkdir(exist_ok=True)
        (tmp_path / sha256[:2] / f"{sha256}.part").symlink_to("/dev/full")
        with pytest.raises(
            FetchError, match="train-000000.tar: .*cache .*No space left.*make room .*UFO_CACHE"
        ):
            reader.read(0)
        assert requests["/cls/train-000000.tar"] == 1
        assert reader.read(0).image == ShardSet.open(folder).split("cls", "train").read(0).image


def test_a_full_cache_is_named_when_the_server_is_cut_off(tmp_path):
    """A file larger than a pipe holds: curl too then fails, for want of a reader."""
    (tmp_path / "big").write_bytes(bytes(8 << 20))
    (tmp_path / "full").symlink_to("/dev/full")
    with serve(tmp_path) as (url, requests):
        with pytest.raises(OSError, match="No space left"):
            _fetch_with_retry(f"{url}/big", tmp_path / "full", None, QUICK)
        assert requests["/big"] == 1


def test_a_damaged_cache_is_fetched_again(folder, tmp_path):
    entry = read_dataset(folder).split("cls", "train").shards[0]
    with serve(folder) as (url, requests):
        first = ShardSet.open(url, cache=tmp_path, retry=QUICK).split("cls", "train").read(0)
        for sha256 in (entry.sha256, entry.index_sha256):
            os.truncate(tmp_path / sha256[:2] / sha256, 100)
        again = ShardSet.open(url, cache=tmp_path, retry=QUICK).split("cls", "train").read(0)
        assert again.image == first.image
        assert requests[f"/{entry.file}"] == requests[f"/{entry.index}"] == 2


def test_a_cache_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with (
        serve(folder) as (url, _),
        pytest.raises(FetchError, match="cache .*file.*Not a directory.*UFO_CACHE"),
    ):
        ShardSet.open(url, cache=tmp_path / "file", retry=QUICK).split("cls", "train")


def test_pipe(folder, tmp_path):
    remote = ShardSet.open(f"pipe:cat {folder}/{{}}", cache=tmp_path, retry=QUICK)
    assert contents(remote) == contents(ShardSet.open(folder))
    with pytest.raises(ValueError, match="where the file's path goes"):
        ShardSet.open("pipe:cat shards", cache=tmp_path)


@pytest.fixture
def s3_url(folder, monkeypatch):
    """A bucket on a moto server on this machine that holds the folder."""
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    client = boto3.client("s3")
    client.create_bucket(Bucket="road")
    for file in folder.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), "road", f"sets/tiny/{file.relative_to(folder)}")
    yield "s3://road/sets/tiny"
    server.stop()


def test_s3_retries_a_dropped_connection(folder, tmp_path, monkeypatch):
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    (tmp_path / "road").symlink_to(folder)
    with serve(tmp_path, {"/road/cls/train-000000.tar": ["drop"]}) as (url, requests):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        remote = ShardSet.open("s3://road", cache=tmp_path / "cache", retry=QUICK)
        assert contents(remote) == contents(ShardSet.open(folder))
        assert requests["/road/cls/train-000000.tar"] == 2


def test_s3(folder, tmp_path, s3_url):
    assert contents(ShardSet.open(s3_url, cache=tmp_path, retry=QUICK)) == contents(ShardSet.open(folder))
    with pytest.raises(FetchError, match="s3://road/other/dataset.json: .*NoSuchKey.*check the address"):
        ShardSet.open("s3://road/other", cache=tmp_path, retry=QUICK)


def test_s3_without_credentials_is_not_tried_again(monkeypatch, tmp_path):
    boto3 = pytest.importorskip("boto3")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # remembers credentials
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(FetchError, match="s3://road/a/dataset.json: Unable to locate credentials; check"):
        ShardSet.open("s3://road/a", cache=tmp_path, retry=QUICK)
