"""Do all that a comparison needs, in order: plan, train what is missing, choose by val, train the choice."""

import statistics
from collections.abc import Sequence

from ufo_large.comparing.hours import hours_left, measured_times, recorded_times
from ufo_large.comparing.options import CONSTANTS
from ufo_large.comparing.places import Place
from ufo_large.comparing.plan import BEST, BOTH, CHANGES, SUM, Plan, Run
from ufo_large.comparing.recording import record_of, sizes_of
from ufo_large.comparing.records import Record, Records
from ufo_large.comparing.trainings import Workshop, work
from ufo_large.config import Problems, did_you_mean
from ufo_large.data.shards import ShardSet
from ufo_large.train.pretrained import settled
from ufo_large.train.run import check


class Comparison:
    """The runs of a plan, trained in a workshop, each at one of the places, and kept as records."""

    def __init__(self, plan: Plan, workshop: Workshop, places: Sequence[Place], records: Records):
        self.plan, self.workshop, self.places, self.records = plan, workshop, places, records
        self.rows = plan.known_rows()
        labels = [*plan.single_labels, *(row[0].label for row in self.rows), *self._later()]
        only, changed = plan.options.only, [row[0].label for row in plan.changed()]
        if CHANGES in only and changed:
            only = (*(label for label in only if label != CHANGES), *changed)
        for label in only:
            if label not in labels:
                raise ValueError(f"--only {label!r}: no such row.{did_you_mean(label, labels)}")
        self.only = set(only or labels)
        chooses = self.only & {BEST, CONSTANTS}
        self.needed = [row for row in self.rows if chooses or row[0].label in self.only]

    def check(self) -> None:
        """Raise one ValueError with every wanted row whose settings do not fit, before anything is trained.

        Weights on the hub are downloaded here, once.
        """
        settled(self.plan.config)
        rows_of: dict[str, list[str]] = {}
        for run in (row[0] for row in self.needed):
            try:
                config, tasks = self.plan.config_of(run), self.plan.tasks_of(run)
                self.plan.require_change(run, config)
                check(config, tasks, ShardSet.open(run.data), self.workshop.folder(run), None, None)
                sizes_of(config, tasks)
            except ValueError as error:
                rows_of.setdefault(str(error), []).append(run.label)
        problems = Problems("rows of the comparison")
        for told, labels in rows_of.items():
            problems.add(f"{'all rows' if len(labels) == len(self.needed) else ', '.join(labels)}: {told}")
        problems.raise_if_any()
        for run in (run for row in self.needed for run in row):
            self.records.find(run, self.workshop.ranks)

    def run(self) -> list[str]:
        """Train what is missing, seed by seed, so that what an interruption leaves can be compared.

        Returns what failed, with the end of its log.
        """
        chosen = [run for row in self.rows for run in row if run.label in self.only]
        failures = self._work(sorted(chosen, key=lambda run: run.seed))
        if CONSTANTS in self.only:
            failures += self._tune()
        if BEST in self.only:
            failures += self._combine()
        return failures

    def hours(self, measure: bool = False) -> float | None:
        """Return the hours for all that is missing, None where nothing of it was timed before.

        `measure`: then train a few steps to find out.
        """
        left = self._missing([run for row in self.rows for run in row if run.label in self.only])
        times = recorded_times(self.records.rows)
        found = hours_left(left, self._count_later(), times, len(self.places))
        if found is None and measure:
            times = measured_times(self.plan, self.workshop, self.places[0]) | times
            found = hours_left(left, self._count_later(), times, len(self.places))
        return found

    def _later(self) -> list[str]:
        """Return the rows that are known once others are there."""
        tuned = [CONSTANTS] if any(c.name == CONSTANTS for c in self.plan.balancers) else []
        return [*tuned, *([BEST] if self.plan.routers and self.plan.balancers else [])]

    def _count_later(self) -> int:
        """Return how many joint runs such rows will take that are not there."""
        known = {row[0].label for row in self.rows}
        there = [record.label for record in self.records.rows if record.label not in known]
        seeds = self.plan.options.seeds
        wanted = {CONSTANTS: (CONSTANTS, 2 * len(self.plan.tasks) + seeds), BEST: (BOTH, seeds)}
        return sum(
            max(0, count - sum(label.startswith(start) for label in there))
            for name, (start, count) in wanted.items()
            if name in self.only
        )

    def _missing(self, runs: Sequence[Run]) -> list[Run]:
        return [run for run in runs if self.records.find(run, self.workshop.ranks) is None]

    def _work(self, runs: Sequence[Run]) -> list[str]:
        todo = self._missing(runs)
        done = len(runs) - len(todo)
        print(f"{len(runs)} runs: {done} are there, {len(todo)} to do{self._time_left()}", flush=True)

        def finished(run: Run, seconds: float | None) -> None:
            nonlocal done
            done += 1
            record = record_of(self.workshop, run, seconds)
            self.records.add(record)
            minutes = "" if seconds is None else f"{seconds / 60:.1f} minutes, "
            score = f"{100 * record.figures['score']:.2f} on {record.split}"
            told = f"[{done}/{len(runs)}] {run.label}, seed {run.seed}: {minutes}{score}{self._time_left()}"
            print(told, flush=True)

        return work(self.workshop, self.places, todo, finished)

    def _time_left(self) -> str:
        hours = self.hours()
        return "" if not hours else f"; about {hours:.1f} hours to go"

    def _tune(self) -> list[str]:
        """Try constants on the first seed, choose by val, train the choice on the other seeds."""
        failures = self._work(self._row(SUM)[:1])
        if not failures:
            failures = self._work([row[0] for row in self._candidates()])
        if not failures:
            best = self._tuned()
            print(f"{CONSTANTS}: {best[0].label} is best on val, first seed", flush=True)
            failures = self._work(best)
        return failures

    def _combine(self) -> list[str]:
        """Train the router and the balancer with the best mean score on val together."""
        routed = [row for row in self.rows if row[0].label.startswith("router: ")]
        balanced = [row for row in self.rows if row[0].label.startswith("balancer: ")]
        left = self._missing([run for row in routed + balanced for run in row])
        if not left and any(c.name == CONSTANTS for c in self.plan.balancers):
            left = self._missing([self._row(SUM)[0]])
            left = (
                left or self._missing([row[0] for row in self._candidates()]) or self._missing(self._tuned())
            )
            balanced += [self._tuned()] if not left and self._tuned() != self._row(SUM) else []
        if left:
            print(f"{BEST}: chosen when the other rows are there; {len(left)} runs are missing", flush=True)
            return []
        if not balanced:
            print(f"{BEST}: no row, for no constants are above the plain sum on val", flush=True)
            return []
        router, balancer = (max(rows, key=self._val)[0] for rows in (routed, balanced))
        print(f"best on val: {router.label}; {balancer.label}", flush=True)
        return self._work(self.plan.best(router, balancer))

    def _row(self, label: str) -> list[Run]:
        return next(row for row in self.rows if row[0].label == label)

    def _candidates(self) -> list[list[Run]]:
        """Return rows of constants to choose from; the first run of the plain sum is there."""
        return list(self.plan.candidates(self._record(self._row(SUM)[0]).traits["grad_norm"]))

    def _tuned(self) -> list[Run]:
        """Return the best row of constants; first runs of the plain sum and of all candidates are there."""
        return max([self._row(SUM), *self._candidates()], key=lambda row: self._val(row[:1]))

    def _val(self, row: Sequence[Run]) -> float:
        return statistics.fmean(self._record(run).scores["val"]["score"] for run in row)

    def _record(self, run: Run) -> Record:
        found = self.records.find(run, self.workshop.ranks)
        assert found is not None, run
        return found
