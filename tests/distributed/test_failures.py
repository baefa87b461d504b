"""What the other ranks say when one fails: its words, not a stack of a collective that lost a connection."""

import os

import pytest

from ufo_large.testing.distributed import run_ranks


def fail_on_one(workdir: str, rank_that_fails: int, leaves_words: bool) -> str:
    """Fail on one rank while the other waits in a collective; return what this one raised, notes included."""
    from pathlib import Path

    import torch
    import torch.distributed as dist

    from ufo_large.distributed import comm, zero
    from ufo_large.train.failures import told_by_all_ranks

    zero.init_distributed()
    try:
        with told_by_all_ranks(Path(workdir)):
            comm.all_reduce_sum(torch.ones(1))
            if comm.rank() == rank_that_fails:
                if not leaves_words:
                    raise SystemExit  # as little as a killed one says
                Path("/nowhere/at/all").read_text()
            comm.all_reduce_sum(torch.ones(1))
    except BaseException as error:
        if comm.rank() == rank_that_fails:
            dist.destroy_process_group()
        return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    return "nothing"


@pytest.mark.parametrize("rank", [0, 1])
def test_the_words_of_the_rank_that_failed(tmp_path, rank):
    (tmp_path / "failed-rank-7.txt").write_text("of an earlier start")
    told = run_ranks(fail_on_one, 2, str(tmp_path), rank, True)
    words = "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/at/all'"
    assert told[rank] == words
    file = tmp_path / f"failed-rank-{rank}.txt"
    assert told[1 - rank].startswith(
        f"OtherRankFailed: rank {rank} on {os.uname().nodename} failed: {words}\n"
    )
    assert told[1 - rank].endswith(f"(its traceback: {file})")
    assert 'Path("/nowhere/at/all").read_text()' in file.read_text()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_rank_that_left_no_words(tmp_path):
    told = run_ranks(fail_on_one, 2, str(tmp_path), 1, False)[0]
    assert told.startswith("RuntimeError: ") and "another rank is gone and left no message" in told
    assert not list(tmp_path.iterdir())
