"""Fetch shards from HTTP, S3, a pipe or any other webdataset opener into a local cache, checked and retried.

A root is a URL prefix (`https://host/shards`, `s3://bucket/shards`, `gs://...`) or `pipe:COMMAND {}`,
where `{}` stands for the file's path below the root. Files are kept under the sha256 that dataset.json
states, so a file in the cache is known to be whole, and two data sets never mix.
"""

import contextlib
import errno
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from webdataset.gopen import gopen

from ufo_large.config import held, without_credentials, write_whole
from ufo_large.data.errors import DataError

CHUNK = 1 << 20
REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
PERMANENT = re.compile(
    r"error: 40[134]|\(40[134]\)|NoSuchKey|NoSuchBucket|AccessDenied|locate credentials|InvalidAccessKeyId"
)


class FetchError(DataError):
    """A remote file could not be had; the message names it, the reason and the remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """How often to try and how long to wait: first_delay_s, then twice as long each time."""

    attempts: int = 6
    first_delay_s: float = 0.5


def is_remote(location: str) -> bool:
    """Tell a URL or pipe from a folder."""
    return location.startswith("pipe:") or "://" in location


def join_url(root: str, name: str) -> str:
    """Return the URL of the file `name` below `root`; raises ValueError for a pipe without `{}`."""
    if not root.startswith("pipe:"):
        return f"{root.rstrip('/')}/{name}"
    if "{}" not in root:
        told = "write {} where the file's path goes, as in 'pipe:ssh host cat /shards/{}'"
        raise ValueError(f"{without_credentials(root)}: {told}")
    return root.replace("{}", shlex.quote(name))


def default_cache() -> Path:
    """Return $UFO_CACHE, or ufo_large in the user's cache folder."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ufo_large"
    return Path(os.environ.get("UFO_CACHE", fallback))


def fetch_bytes(url: str, retry: Retry) -> bytes:
    """Return the content of a small file; raises FetchError when it cannot be had."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "content"
        _fetch_with_retry(url, target, None, retry)
        return target.read_bytes()


def fetch_to_cache(url: str, sha256: str, cache: Path, retry: Retry, size: int | None = None) -> Path:
    """Return the cached copy of `url`, fetching it when it is not there yet, or not of the right `size`.

    Safe between processes: one fetches, the others wait. Raises FetchError naming the file when the server
    keeps failing or the bytes keep differing from `sha256`.
    """
    target = cache / sha256[:2] / sha256
    is_there = lambda: target.is_file() and size in (None, target.stat().st_size)
    if is_there():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with held(target.with_suffix(".lock")):
            if not is_there():
                _fetch_whole(url, target, sha256, retry)
    except OSError as error:
        told = f"{url}: cannot be kept in the cache {cache}: {error.strerror}"
        raise FetchError(f"{told}; make room there, or set UFO_CACHE to another folder") from error
    return target


def _fetch_whole(url: str, target: Path, sha256: str, retry: Retry) -> None:
    """Fetch under another name and rename when whole."""
    with write_whole(target) as partial:
        _fetch_with_retry(url, partial, sha256, retry)
        with open(partial, "rb") as whole:
            os.fsync(whole.fileno())  # a name must not outlive its bytes when the power fails


def _fetch_with_retry(url: str, target: Path, sha256: str | None, retry: Retry) -> None:
    for attempt in range(1, retry.attempts + 1):
        try:
            _fetch_once(url, target, sha256)
            return
        except OSError as error:
            if error.errno in REFUSED:  # by this machine's disk
                raise
            if PERMANENT.search(str(error)):
                raise FetchError(f"{url}: {error}; check the address and the rights to read it") from None
            if attempt == retry.attempts:
                raise FetchError(
                    f"{url}: failed {attempt} times, last with: {error}; when the server answers again, "
                    "start again with --resume auto"
                ) from None  # the opener's own error tells the whole address
            time.sleep(retry.first_delay_s * 2 ** (attempt - 1))


def _fetch_once(url: str, target: Path, sha256: str | None) -> None:
    digest, refused = hashlib.sha256(), None
    with tempfile.NamedTemporaryFile("r", prefix="ufo-fetch-") as messages:
        try:
            with _open(url, messages.name) as stream:
                try:
                    with open(target, "wb") as out:
                        while chunk := stream.read(CHUNK):
                            digest.update(chunk)
                            out.write(chunk)
                except OSError as error:
                    refused = error if error.errno in REFUSED else None
                    raise
        except OSError as error:
            if refused is not None:  # closing the stream early then fails too
                raise refused from None
            if error.errno is not None:
                raise
            raise OSError(messages.read().strip() or str(error)) from error
    if sha256 is not None and digest.hexdigest() != sha256:
        raise OSError(
            f"sha256 {digest.hexdigest()[:12]}... instead of {sha256[:12]}... ({target.stat().st_size} "
            "bytes): cut short, or replaced since dataset.json was written"
        )


def _open(url: str, messages: str) -> IO[bytes]:
    """Open `url` with webdataset's openers; what the command prints to stderr goes to the file `messages`.

    curl is called through a pipe because webdataset's own curl opener retries 30 times in silence.
    """
    if url.startswith(("http://", "https://")):
        command = f"curl -fsSL --connect-timeout 20 --speed-limit 1 --speed-time 60 {shlex.quote(url)}"
        return gopen(f"pipe:{command} 2>{shlex.quote(messages)}")
    if url.startswith("s3://"):
        return _open_s3(url, messages)
    return gopen(url)


def _open_s3(url: str, messages: str) -> IO[bytes]:
    """Open an S3 object with boto3, else with the aws command; both read the usual AWS_* variables."""
    if importlib.util.find_spec("boto3") is None:
        if shutil.which("aws") is None:
            told = "reading S3 needs `pip install boto3` or the aws command-line tool"
            raise ValueError(f"{without_credentials(url)}: {told}")
        return gopen(f"pipe:aws s3 cp {shlex.quote(url)} - 2>{shlex.quote(messages)}")
    return _S3Object(url)


class _S3Object(contextlib.AbstractContextManager):
    """An S3 object as a stream whose failures are OSErrors, as those of the other openers."""

    def __init__(self, url: str):
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        self._failures = (BotoCoreError, ClientError, HTTPError)
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self._body = self._call(lambda: boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"])

    def read(self, size: int) -> bytes:
        return self._call(lambda: self._body.read(size))

    def _call(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except self._failures as error:
            raise OSError(str(error)) from error

    def __exit__(self, *_: object) -> None:
        self._body.close()
