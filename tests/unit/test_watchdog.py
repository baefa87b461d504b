"""The watchdog of one process: who gives no sign of life ends, and so does who is interrupted twice."""

import multiprocessing
import os
import signal
import time

import pytest

from ufo_large.processes.heartbeat import HEARTBEAT, SLOW, beat
from ufo_large.train.watchdog import TWICE_S, Watchdog


def in_a_process(work, *args) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=work, args=args)
    process.start()
    return process


def code_of(process) -> int:
    process.join(30)
    assert not process.is_alive(), process.kill()
    return process.exitcode


def fall_silent(folder) -> None:
    with Watchdog(0.4, folder):
        beat("step 7, task dec, micro-batch 2 of 3: waiting for data")
        time.sleep(60)


def test_silence_ends_the_process_and_its_stack_is_kept(tmp_path):
    assert code_of(in_a_process(fall_silent, tmp_path / "hangs")) == os.EX_TEMPFAIL
    told = (tmp_path / "hangs/rank-0.txt").read_text()
    assert "this rank has been at: step 7, task dec, micro-batch 2 of 3: waiting for data. " in told
    assert "in fall_silent" in told


def test_signs_of_life_keep_it_alive(tmp_path):
    def work():
        with Watchdog(1.0, tmp_path):
            for _ in range(15):
                beat("step")
                time.sleep(0.1)
        time.sleep(1.2)  # nobody watches any more

    assert code_of(in_a_process(work)) == 0 and not list(tmp_path.iterdir())


def test_a_long_work_may_take_longer_and_no_work_any_time(tmp_path):
    def work():
        with Watchdog(0.8, tmp_path):
            time.sleep(1.0)
            with HEARTBEAT.slowly():
                beat("saving")
            time.sleep(0.8 * (SLOW - 1))

    assert code_of(in_a_process(work)) == 0 and not list(tmp_path.iterdir())


def test_a_pause_of_the_whole_process_is_no_silence(tmp_path):
    def work():
        with Watchdog(1.0, tmp_path):
            for _ in range(10):
                beat("step")
                time.sleep(0.3)

    process = in_a_process(work)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(2.0)
    os.kill(process.pid, signal.SIGCONT)
    assert code_of(process) == 0


@pytest.mark.parametrize(("pause", "code"), [(2 * TWICE_S, 130), (0.0, 0)], ids=["two", "one, told twice"])
def test_a_second_interrupt_ends_it_though_the_main_thread_does_not_look(tmp_path, pause, code):
    ready = multiprocessing.get_context("fork").Event()

    def work():
        signal.signal(signal.SIGINT, lambda number, frame: None)
        with Watchdog(None, tmp_path):
            ready.set()
            busy = time.monotonic() + 3
            while time.monotonic() < busy:
                time.sleep(0.05)

    process = in_a_process(work)
    assert ready.wait(20)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(pause)
    os.kill(process.pid, signal.SIGINT)
    assert code_of(process) == code
