"""SIGTERM to a loader's worker, from a launcher and from the trainer."""

import multiprocessing
import subprocess
import time

from ufo_large.data.loader import quiet_worker


def work(ready, steps) -> None:
    quiet_worker(0)
    ready.set()
    while True:
        time.sleep(0.01)
        steps.value += 1


def test_a_worker_outlives_the_launchers_sigterm_and_not_the_trainers():
    context = multiprocessing.get_context("fork")  # as DataLoader makes its workers
    ready, steps = context.Event(), context.Value("i", 0)
    worker = context.Process(target=work, args=(ready, steps), daemon=True)
    worker.start()
    try:
        assert ready.wait(20)
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
        seen = steps.value
        deadline = time.monotonic() + 20
        while steps.value < seen + 20:
            assert worker.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        worker.terminate()
        worker.join(20)
        assert worker.exitcode == 0
    finally:
        worker.kill()
