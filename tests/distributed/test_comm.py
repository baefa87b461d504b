"""What ranks say to each other when one of them cannot go on."""

from pathlib import Path

from ufo_large.testing.distributed import run_ranks


def ask(failing: tuple[int, ...], kind: type[Exception] = ValueError) -> tuple[str, str]:
    """Return what `agreed` gives on this rank: a value, or the kind and words of the error."""
    from ufo_large.distributed import comm, zero

    zero.init_distributed()

    def action() -> str:
        if comm.rank() in failing:
            raise kind(f"no data here: {comm.rank()}" if len(failing) < 3 else "no data")
        return f"value {comm.rank()}"

    try:
        return "value", comm.agreed(action)
    except ValueError as error:
        return "error", str(error)
    except OSError as error:
        return "OSError", str(error)


def go_on_from(names: tuple[str | None, ...]) -> str:
    """Return the words of the refusal on this rank, where every rank has a checkpoint of its own name."""
    from ufo_large.distributed import comm, zero
    from ufo_large.train.run import require_same

    zero.init_distributed()
    name = names[comm.rank()]
    try:
        require_same(None if name is None else Path(name))
    except ValueError as error:
        return str(error)
    return ""


def test_all_ranks_stop_where_one_fails_and_say_which():
    assert run_ranks(ask, 3, ()) == [("value", f"value {rank}") for rank in range(3)]
    assert run_ranks(ask, 3, (1,)) == [("error", "no data here: 1 (on rank 1)")] * 3
    assert run_ranks(ask, 3, (0, 1, 2)) == [("error", "no data")] * 3
    assert run_ranks(ask, 3, (1,), OSError) == [
        ("error", "no data here: 1 (on rank 1)"),
        ("OSError", "no data here: 1"),
        ("error", "no data here: 1 (on rank 1)"),
    ]
    assert run_ranks(ask, 1, (0,)) == [("error", "no data here: 0")]


def wait_for_a_slow_rank(slowly: bool) -> str:
    """Return what comes of an action of 3 seconds on rank 0 where a collective waits for 1."""
    import time
    from datetime import timedelta

    import torch.distributed as dist

    from ufo_large.distributed import comm

    dist.init_process_group("gloo", timeout=timedelta(seconds=1))
    comm.MEETING_S = 0.2
    try:
        action = lambda: time.sleep(0 if comm.rank() else 3) or f"value {comm.rank()}"
        return comm.agreed_slowly(action) if slowly else comm.agreed(action)
    except RuntimeError:
        return "not waited for"


def refuse_slowly() -> str:
    from ufo_large.distributed import comm, zero

    zero.init_distributed()
    comm.MEETING_S = 0.2

    def action() -> None:
        if comm.is_main():
            raise ValueError("no such weights")

    try:
        comm.agreed_slowly(action)
    except comm.AgreedError as error:
        return str(error)
    return ""


def test_a_download_may_take_longer_than_ranks_wait_for_each_other():
    assert run_ranks(wait_for_a_slow_rank, 2, True) == ["value 0", "value 1"]
    assert "not waited for" in run_ranks(wait_for_a_slow_rank, 2, False)
    assert run_ranks(refuse_slowly, 2) == ["no such weights (on rank 0)"] * 2
    assert run_ranks(refuse_slowly, 1) == ["no such weights"]


def test_ranks_that_see_different_checkpoints_stop_together():
    assert run_ranks(go_on_from, 2, ("step-1", "step-1")) == [""] * 2
    for told in run_ranks(go_on_from, 2, ("step-1", None)):
        assert "different checkpoints (step-1, None)" in told and "--workdir must lie on a disk" in told
