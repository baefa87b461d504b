"""Ranks that wait for data, or that the others wait for, are named, each time that they are others."""

import pytest

from ufo_large.train import rank_times
from ufo_large.train.collective_waits import CollectiveWaits
from ufo_large.train.rank_times import RankTimesHook
from ufo_large.train.stragglers import RankTimes, Stragglers


def times(worked_s: float, waited_s: float = 0.0, total_s: float = 4.0, host: str = "h") -> RankTimes:
    return RankTimes(host=host, total_s=total_s, waited_s=waited_s, worked_s=worked_s)


def test_the_ranks_that_wait_are_named_once(monkeypatch, capsys):
    others = iter([times(0, 9.0, 9.0), *(times(3.8, s) for s in (0.1, 3.0, 3.0, 0.1, 3.0))])
    monkeypatch.setattr(rank_times.comm, "all_gather_objects", lambda mine: [mine, next(others)])
    hook, said = RankTimesHook(CollectiveWaits(), 2), []
    for step in range(1, 13):
        hook.after_step(step, {"train/step_seconds": 2.0, "train/data_wait_share": 0.05})
        said.append(capsys.readouterr().out)
    assert [step for step, text in enumerate(said, 1) if text] == [6, 12]
    assert said[5].startswith("step 6: waited for data since step 4: rank 1 3.0 of 4.0 s; ")


def test_one_process_names_itself(capsys):
    hook = RankTimesHook(CollectiveWaits(), 1)
    for step in (1, 2, 3, 4, 5):
        hook.after_step(step, {"train/step_seconds": 2.0, "train/data_wait_share": 0.75})
    out = capsys.readouterr().out
    assert out.count("rank 0 1.5 of 2.0 s") == 1 and "median" not in out


@pytest.mark.parametrize(
    ("worked", "named"),
    [
        ((2.0, 3.0, 2.0, 2.1), {1: "1.5"}),
        ((2.0, 3.0), {1: "1.5"}),
        ((3.0, 2.0, 3.6, 2.0, 2.0), {0: "1.5", 2: "1.8"}),
        ((0.0, 3.0), {1: "inf"}),
        ((2.0, 2.4, 2.0), {}),  # 1.2 times
        ((0.1, 0.3, 0.1), {}),  # less than a tenth of the steps
        ((2.0, 2.0), {}),
    ],
)
def test_who_is_slow(worked, named):
    stragglers = Stragglers()
    ranks = [times(s, host=f"host{rank}") for rank, s in enumerate(worked)]
    said = [stragglers.told(ranks) for _ in range(4)]
    assert [bool(text) for text in said] == [False, False, bool(named), False]
    words = [f"rank {r} on host{r} works {f} times as long as the median rank" for r, f in named.items()]
    assert said[2] == "; ".join(words)


def test_only_a_rank_that_is_slow_in_a_row_is_named_and_again_after_it_was_not():
    stragglers = Stragglers()
    slow, even = [times(2.0), times(3.0)], [times(2.0), times(2.0)]
    said = [
        bool(stragglers.told(ranks)) for ranks in (slow, slow, even, slow, slow, slow, even, slow, slow, slow)
    ]
    assert [place for place, told in enumerate(said) if told] == [5, 9]
