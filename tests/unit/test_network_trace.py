"""Exposed communication: what is taken from a trace of a GPU, and that no trace ends a run."""

from types import SimpleNamespace

import pytest
import torch

from ufo_large.train.network_trace import FIRST, NetworkTrace, Work, exposed, work_of


def event(start, end, name="gemm", kind="kernel"):
    """Like torch's `_KinetoEvent`, whose values are methods."""
    values = {"start_ns": start, "end_ns": end, "name": name, "activity_type": kind}
    return SimpleNamespace(**{key: lambda value=value: value for key, value in values.items()})


GATHER = "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
EVENTS = [
    event(0, 100),
    event(50, 180, GATHER),  # alone from 100 to 150
    event(150, 200),
    event(160, 170, kind="gpu_memcpy"),
    event(200, 260, "ncclKernel_ReduceScatter_RING_LL_Sum_float(ncclWorkElem)"),  # alone but for the copy
    event(205, 215, "Memcpy DtoH (Device -> Pinned)", "gpu_memcpy"),
    event(250, 300, GATHER),  # two collectives at once: alone from 260 to 300
    event(300, 400),
    event(0, 1000, "nccl:all_gather", "gpu_user_annotation"),
    event(0, 1000, "aten::mm", "cpu_op"),
]


def test_exposed_is_the_time_in_which_collectives_alone_ran():
    work = work_of(EVENTS)
    assert len(work) == 8 and sum(w.is_collective for w in work) == 3
    assert exposed(work) == 50 + 60 - 10 + 40
    assert exposed(work[::-1]) == 140
    assert exposed([Work(0, 5, False)]) == 0 == exposed([])


def test_share_is_that_of_the_traced_step(monkeypatch):
    results = SimpleNamespace(events=lambda: EVENTS)
    seen = []

    class Profiler:
        kineto_results = results

        def __init__(self, **how):
            seen.append(how)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            seen.append("over")

    monkeypatch.setattr(torch.autograd.profiler, "profile", Profiler)
    trace = NetworkTrace(1000)
    with trace.tracing():
        assert seen == [{"use_cpu": False, "use_device": "cuda", "use_kineto": True}]
    assert trace.share == 140 / 400
    with pytest.raises(KeyError), trace.tracing():
        raise KeyError("the step's own")
    assert seen[-1] == "over" and seen.count("over") == 2


def test_steps_that_are_traced():
    due = [step for step in range(1, 100) if NetworkTrace(30).is_due(step)]
    assert due == [FIRST, FIRST + 30, FIRST + 60]
    assert not any(NetworkTrace(0).is_due(step) for step in range(2000))


def test_without_a_gpu_torch_traces_nothing_and_that_is_said_once():
    trace, ran = NetworkTrace(1), []
    assert trace.is_due(FIRST)
    with pytest.warns(UserWarning, match="no share of waiting for the network"), trace.tracing():
        ran.append(1)
    assert ran == [1] and trace.share is None and not trace.is_due(FIRST)


def test_under_another_profiler_the_step_runs_all_the_same():
    trace, ran = NetworkTrace(1), []
    another = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    with another, pytest.warns(UserWarning, match="no share of waiting"), trace.tracing():
        ran.append(1)
    assert ran == [1] and trace.share is None
