"""What happens around the steps: logging, validation and checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ufo_large.distributed.saving import Saver
from ufo_large.evaluation.evaluator import Evaluator
from ufo_large.evaluation.examples import predict_examples
from ufo_large.evaluation.reviewed import Reviewed
from ufo_large.kinds import PredictionExample
from ufo_large.tracking import Tracker
from ufo_large.train.best import Best
from ufo_large.train.trainer import Trainer


class LogHook:
    """Hand every `every`-th step's values, and the last one's, to the tracker."""

    def __init__(self, tracker: Tracker, every: int, total_steps: int):
        self.tracker = tracker
        self.every = every
        self.total_steps = total_steps

    def after_step(self, finished: int, values: dict[str, float]) -> None:
        if finished % self.every == 0 or finished == self.total_steps:
            self.tracker.log(finished, values)


class EvaluationHook:
    """Evaluate every `evaluate_every` steps and after the last, with averaged weights where there are any.

    Logs `val/<task>/<metric>` and `val/score`, whichever split it is, and `pictures` drawn predictions per
    task, the same images each time, with as many of the worst and of the most confidently wrong ones. The
    model stays sharded; training goes on as if nothing had been evaluated. An interrupted run has no time for
    it. `best` keeps the weights with the best score and says when there is nothing more to wait for.
    """

    def __init__(
        self,
        trainer: Trainer,
        evaluator: Evaluator,
        tracker: Tracker,
        pictures: int = 0,
        best: Best | None = None,
    ):
        self.trainer = trainer
        self.evaluator = evaluator
        self.tracker = tracker
        self.pictures = pictures
        self.best = best

    def after_step(self, finished: int, values: dict[str, float]) -> None:
        config = self.trainer.config
        if self.trainer.is_interrupted:
            return
        if finished % config.evaluate_every == 0 or finished == config.steps:
            with self.trainer.averaged(), self.trainer.runner.engine.predicting():
                found, reviewed = self.evaluator.validate(self.trainer.model, self.pictures)
                examples = self._examples(reviewed)
            if self.best is not None:
                with self.trainer.averaged():
                    self.best.offer(finished, found.get("score"), self.trainer.runner.engine)
                self.trainer.is_stopped = self.best.is_over(finished)
            self.tracker.log(finished, {f"val/{name}": value for name, value in found.items()})
            self.tracker.examples(finished, examples)

    def _examples(self, reviewed: Mapping[str, Reviewed]) -> list[PredictionExample]:
        """Predict on all ranks, as sharded parameters want it; only the first rank's tracker draws."""
        if not self.pictures:
            return []
        return predict_examples(self.evaluator, self.trainer.model, self.pictures, reviewed)


class CheckpointHook:
    """Save every `save_every` steps, after the last and after the one in which the run stops or must stop.

    `best`: what knows the step of the best validation, whose checkpoint then stays.
    """

    def __init__(self, trainer: Trainer, root: Path, best: Best | None = None):
        self.trainer = trainer
        self.best = best
        config, engine = trainer.config, trainer.runner.engine
        self.saver = Saver(root, engine, self._kept, in_background=config.save_async)

    def after_step(self, finished: int, values: dict[str, float]) -> None:
        config, trainer = self.trainer.config, self.trainer
        is_last = finished == config.steps or trainer.is_stopped or trainer.is_interrupted
        self.saver.poll()
        if is_last or finished % config.save_every == 0:
            self.saver.save(finished, trainer.state_dict())
        if is_last:
            self.saver.finish()

    @property
    def longest_s(self) -> float:
        """The longest that a checkpoint took to be there."""
        return self.saver.longest_s

    def _kept(self, steps: Sequence[int]) -> set[int]:
        config = self.trainer.config
        for_good = {s for s in steps if config.keep_every and s % config.keep_every == 0}
        best = set() if self.best is None or self.best.score is None else {self.best.step}
        return {*steps[-config.keep_checkpoints :], *for_good, *best}
