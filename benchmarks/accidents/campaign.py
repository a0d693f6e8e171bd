"""Inject failures by the hundred and tally how each one ended."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from aspencli.changes.runs import Outcome
from benchmarks.accidents.kinds import KINDS, WORKS
from benchmarks.accidents.site import STAGES, Site, Trial

_TOLD = ("report", "telling")  # stages that exist, or last longer, only in a run with a report
_SHARE = 1 / 3  # the share of other runs that also write a report


@dataclass
class Tally:
    """The tally of all failures of one kind.

    Attributes:
        right: Number of times that the command, its history, and its files all told the truth.
        faults: Descriptions of what went wrong.
        stages: Number of failures by the stage that they hit.
    """

    kind: str
    times: int = 0
    before: int = 0
    after: int = 0
    between: int = 0
    right: int = 0
    completed: int = 0
    faults: list[str] = field(default_factory=list)
    stages: Counter[str] = field(default_factory=Counter)
    unavailable: str | None = None

    def add(self, trial: Trial) -> None:
        """Check what a failure left behind, then run the command again."""
        self.times += 1
        trial.site.recover()
        state, work = trial.state(), trial.work
        wrote = state == work.after
        self.before += state == work.before
        self.after += wrote
        if state not in (work.before, work.after):
            self.between += 1
            self.faults.append("neither before nor after")
        self.stages[_stage(trial, wrote=wrote)] += 1
        faults = list(_false(trial, wrote=wrote))
        self.right += not faults
        self.faults += [f"{fault}; {trial.said}" for fault in faults]
        if not trial.site.neighbour_is_untouched():
            self.faults.append("another group's samples were changed")
        self._complete(trial)

    def _complete(self, trial: Trial) -> None:
        trial.address = None
        with trial.started():
            pass
        if trial.code == 0 and trial.state() == trial.work.after:
            self.completed += 1
        else:
            self.faults.append(f"run again: exit code {trial.code}; {trial.said}")


def _stage(trial: Trial, *, wrote: bool) -> str:
    """Return the stage that the failure hit; for a killed process, judge by what it left behind."""
    if trial.code is not None and trial.code >= 0 and trial.met:
        return trial.met
    stage = trial.stage()
    return "after the commit" if stage == "committing" and wrote else stage


def _false(trial: Trial, *, wrote: bool) -> Iterator[str]:
    """Yield each false statement of the command, its history, or its report."""
    verdicts = [trial.verdict(run) for run in trial.runs()]
    told = any(verdict in {Outcome.WRITTEN, Outcome.NOTHING} for verdict in verdicts)
    if told != wrote or verdicts.count(Outcome.WRITTEN) > 1:
        yield f"the history says {', '.join(verdicts) or 'nothing'}, and it is {wrote=}"
    if wrote and not trial.undo_files():
        yield "it was written, and there is no undo file"
    if trial.code is not None and trial.code >= 0 and (trial.code == 0) != wrote:
        yield f"exit code {trial.code}, and {wrote=}"
    if trial.report.exists():
        yield from _false_report(trial, wrote=wrote)
    if "Traceback" in trial.said:
        yield "it ended with a traceback"


def _false_report(trial: Trial, *, wrote: bool) -> Iterator[str]:
    with trial.report.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if trial.work.values not in (None, len(rows)):
        yield f"the report has {len(rows)} rows, not {trial.work.values}"
    changed = any(row["outcome"] in {"updated", "created"} for row in rows)
    if changed != wrote:
        yield f"the report says {changed=}, and it is {wrote=}"


def meet(site: Site, kind: str, times: int, seed: int) -> Tally:
    """Inject one kind of failure the given number of times, at each stage in turn.

    Raises:
        UnavailableError: This machine cannot produce the failure.
    """
    tally, works = Tally(kind), WORKS[kind]
    first = Random(f"{seed} {kind}").randrange(len(STAGES))
    for number in range(times):
        chance = Random(f"{seed} {kind} {number}")
        turn, aim = number // len(STAGES), STAGES[(first + number) % len(STAGES)]
        report = aim in _TOLD or chance.random() < _SHARE
        trial = site.trial(works[(turn + number) % len(works)], aim, report=report)
        try:
            KINDS[kind](trial, chance)
        except AssertionError as error:
            tally.faults.append(f"number {number}: {error}")
        tally.add(trial)
    return tally
