"""What ranks say to each other when one of them cannot go on."""

from ufo_large.testing.distributed import run_ranks


def ask(failing: tuple[int, ...]) -> tuple[str, str]:
    """Return what `agreed` gives on this rank: a value, or the words of the error."""
    from ufo_large.distributed import comm, zero

    zero.init_distributed()

    def action() -> str:
        if comm.rank() in failing:
            raise ValueError(f"no data here: {comm.rank()}" if len(failing) < 3 else "no data")
        return f"value {comm.rank()}"

    try:
        return "value", comm.agreed(action)
    except ValueError as error:
        return "error", str(error)


def test_all_ranks_stop_where_one_fails_and_say_which():
    assert run_ranks(ask, 3, ()) == [("value", f"value {rank}") for rank in range(3)]
    assert run_ranks(ask, 3, (1,)) == [("error", "no data here: 1 (on rank 1)")] * 3
    assert run_ranks(ask, 3, (0, 1, 2)) == [("error", "no data")] * 3
    assert run_ranks(ask, 1, (0,)) == [("error", "no data here: 0")]
