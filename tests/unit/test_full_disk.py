"""A full disk is told with the file, what was wanted there and what is free; /dev/full refuses every byte."""

import errno
import pickle

import pytest

from ufo_large.config import note_full_disk, write_text_whole, write_whole

TOLD = "disk full: {}: 1,000 bytes were wanted, "


def test_a_text(tmp_path):
    file = tmp_path / "config.json"
    (tmp_path / "config.json.part").symlink_to("/dev/full")
    with pytest.raises(OSError) as stop:
        write_text_whole(file, 1000 * "a")
    (note,) = stop.value.__notes__
    assert stop.value.errno == errno.ENOSPC and note.startswith(TOLD.format(file))
    assert not list(tmp_path.iterdir())
    assert pickle.loads(pickle.dumps(stop.value)).__notes__ == [note]  # on its way out of a process


def test_what_somebody_else_writes(tmp_path):
    with pytest.raises(OSError) as stop, write_whole(tmp_path / "a") as unfinished:
        unfinished.symlink_to("/dev/full")
        unfinished.write_bytes(b"a")
    assert stop.value.__notes__[0].startswith(f"disk full: {tmp_path / 'a'}: ")


def test_other_errors_get_no_note(tmp_path):
    error = PermissionError(errno.EACCES, "no")
    note_full_disk(error, tmp_path / "a", 1)
    assert not hasattr(error, "__notes__")
