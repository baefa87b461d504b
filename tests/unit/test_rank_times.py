"""Ranks that wait for data are named, each time that they are others."""

from ufo_large.train import data_wait
from ufo_large.train.data_wait import DataWaitHook


def test_the_ranks_that_wait_are_named_once(monkeypatch, capsys):
    others = iter([(9.0, 9.0), (0.1, 4.0), (3.0, 4.0), (3.0, 4.0), (0.1, 4.0), (3.0, 4.0)])
    monkeypatch.setattr(data_wait.comm, "all_gather_objects", lambda mine: [mine, next(others)])
    hook, said = DataWaitHook(2), []
    for step in range(1, 13):
        hook.after_step(step, {"train/step_seconds": 2.0, "train/data_wait_share": 0.05})
        said.append(capsys.readouterr().out)
    assert [step for step, text in enumerate(said, 1) if text] == [6, 12]
    assert said[5].startswith("step 6: waited for data since step 4: rank 1 3.0 of 4.0 s; ")


def test_one_process_names_itself(capsys):
    hook = DataWaitHook(1)
    for step in (1, 2):
        hook.after_step(step, {"train/step_seconds": 2.0, "train/data_wait_share": 0.75})
    assert capsys.readouterr().out.count("rank 0 1.5 of 2.0 s") == 1
