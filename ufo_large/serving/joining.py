"""One thread that predicts: requests that wait at the same time share one forward."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from ufo_large.serving.limits import Limits
from ufo_large.serving.pictures import Named
from ufo_large.serving.predictor import UFO
from ufo_large.serving.result import Result


@dataclass(frozen=True, slots=True)
class Asked:
    """A picture's bytes, the name to answer under, and tasks. Cancel `answer` where nobody waits for it."""

    data: bytes
    name: str
    tasks: tuple[str, ...]
    answer: Future[Result] = field(default_factory=Future)


Predict = Callable[[Sequence[Asked]], list[Result]]
"""From requests for the same tasks to one result each."""


def predict_asked(model: UFO, asked: Sequence[Asked]) -> list[Result]:
    """Predict the pictures of requests for the same tasks; each result is numbered as of a picture alone."""
    given = [Named(source=one.data, name=one.name, number=n) for n, one in enumerate(asked, 1)]
    found = model.stream(given, asked[0].tasks, at_once=len(given))
    return [replace(result, number=1) for result in found]


class Joiner:
    """Takes requests from any thread and answers them in order, up to `limits.joined` in one call.

    How many may wait is for the caller to limit.
    """

    def __init__(self, predict: Predict, limits: Limits):
        self._predict, self._limits = predict, limits
        self._waiting: list[Asked] = []
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="predict", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        return sum(not one.answer.cancelled() for one in self._waiting)

    def ask(self, asked: Asked) -> Future[Result]:
        """Line up a request. RuntimeError after `close`."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the server is stopping")
            self._waiting = [one for one in self._waiting if not one.answer.cancelled()]
            self._waiting.append(asked)
            self._changed.notify()
        return asked.answer

    def close(self) -> None:
        """Let the thread end after the forward it is at; who still waits is told."""
        with self._changed:
            self._closed = True
            left, self._waiting = self._waiting, []
            self._changed.notify()
        for one in left:
            _answer(one, RuntimeError("the server is stopping"))
        self._thread.join()

    def _work(self) -> None:
        while asked := self._next():
            groups: dict[tuple[str, ...], list[Asked]] = {}
            for one in asked:
                if one.answer.set_running_or_notify_cancel():
                    groups.setdefault(one.tasks, []).append(one)
            for group in groups.values():
                self._answer(group)

    def _next(self) -> list[Asked]:
        """Wait for requests and return them; none when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            full = lambda: len(self._waiting) >= self._limits.joined or self._closed
            self._changed.wait_for(full, self._limits.wait_s)
            asked, self._waiting = self._waiting[: self._limits.joined], self._waiting[self._limits.joined :]
            return asked

    def _answer(self, group: Sequence[Asked]) -> None:
        try:
            results: Sequence[Result | Exception] = self._predict(group)
        except Exception as error:  # it goes to who asked; this thread serves the others
            if len(group) > 1:  # one picture must not cost the others their answer
                for one in group:
                    self._answer([one])
                return
            results = [error]
        for one, result in zip(group, results, strict=True):
            _answer(one, result)


def _answer(asked: Asked, result: Result | Exception) -> None:
    if not asked.answer.running() and not asked.answer.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        asked.answer.set_exception(result)
    else:
        asked.answer.set_result(result)
