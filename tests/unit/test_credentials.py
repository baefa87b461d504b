"""Credentials in data addresses are used and never written down."""

import json
import sys
import traceback

import pytest

from ufo_large.config import without_credentials
from ufo_large.data.errors import DataError
from ufo_large.data.opener import FetchError, Retry
from ufo_large.data.shard_index import FORMAT, fingerprint_of, parse_dataset
from ufo_large.data.shards import ShardSet
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import RunFolder
from ufo_large.structures import TaskInfo
from ufo_large.tracking import save_environment
from ufo_large.train.facts import next_commands

SECRET = "s3cr3t"
ADDRESSES = {
    "s3://AKIA123:s3cr3t@bucket/shards": "s3://***@bucket/shards",
    "s3://AKIA123:s3c/s3cr3t@bucket/shards": "s3://***@bucket/shards",
    "https://user:s3cr3t@host:8443/a/b": "https://***@host:8443/a/b",
    "https://s3cr3t@host/a": "https://***@host/a",
    "https://host/a?X-Amz-Signature=s3cr3t&X-Amz-Date=2020": "https://host/a?X-Amz-Signature=***&X-Amz-Date=***",
    "https://u:s3cr3t@host:80/a?token=s3cr3t": "https://***@host:80/a?token=***",
    "pipe:curl -H 'Authorization: Bearer s3cr3t' https://h/{}": "pipe:curl -H 'Authorization: ***' https://h/{}",
    "pipe:curl -H 'Authorization: Bearer s3cr3t' h/{}": "pipe:curl -H 'Authorization: ***' h/{}",
    "pipe:get --password s3cr3t {}": "pipe:get --password *** {}",
    "pipe:curl -u user:s3cr3t https://host/{}": "pipe:curl -u *** https://host/{}",
}
HARMLESS = (
    "s3://bucket/shards",
    "https://host:8443/a@v1/b",
    "https://host/a@v1",
    "/data/shards?a=b",
    "a user@host: no token there",
    "pipe:ssh user@host cat /shards/{}",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_credentials_are_hidden_and_the_place_is_not(address):
    assert without_credentials(address) == ADDRESSES[address]
    told = f"python train.py --data '{address}' --workdir RUN, and {address}: failed"
    assert SECRET not in without_credentials(told) and "--workdir RUN" in without_credentials(told)
    assert without_credentials(ADDRESSES[address]) == ADDRESSES[address]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_holds_none_stays(text):
    assert without_credentials(text) == text


TASK = TaskInfo(name="cls", kind="classification", class_names=("a",), class_ids=(0,))


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_run_folder_holds_none_and_is_read_again(tmp_path, monkeypatch, address):
    monkeypatch.setattr(sys, "argv", ["launchers/train.py", "--data", address, "--workdir", "RUN"])
    folder = RunFolder(tmp_path)
    folder.write(load_recipe("mini"), (TASK,), "f" * 64, address, None)
    save_environment(tmp_path)
    for file in tmp_path.iterdir():
        assert SECRET not in file.read_text() and "***" in file.read_text()
    assert folder.read().fingerprint == "f" * 64  # what a resumed run holds the given address against
    assert SECRET not in str(next_commands(folder, address, (TASK,)))


@pytest.mark.parametrize(
    "address",
    [
        "http://user:s3cr3t@127.0.0.1:9/shards",
        "http://127.0.0.1:9/shards?token=s3cr3t",
        "pipe:false --token s3cr3t {}",
    ],
)
def test_a_fetch_that_fails_tells_none(address):
    with pytest.raises(FetchError) as caught:
        ShardSet.open(address, retry=Retry(attempts=1))
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET not in told and "***" in str(caught.value)


def test_messages_about_shards_tell_none(tmp_path):
    address = "https://user:s3cr3t@host/shards"
    body = {"format": FORMAT, "tasks": [], "splits": {}}
    body["fingerprint"] = fingerprint_of(body)
    shards = ShardSet(parse_dataset(json.dumps(body), address), tmp_path, Retry())
    assert shards.root == address  # which is fetched from
    for fails in (
        lambda: shards.task("cls"),
        lambda: shards.split("cls", "train"),
        lambda: parse_dataset("{", address),
        lambda: parse_dataset("{}", address),
    ):
        with pytest.raises(ValueError, match=r"https://\*\*\*@host/shards") as caught:
            fails()
        assert SECRET not in str(caught.value)
    assert SECRET not in str(DataError(f"{address}: gone"))
