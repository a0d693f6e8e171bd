"""Accidents by the hundred, and the account of how each ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from aspencli.services.runs import Outcome
from tests.accidents.kinds import KINDS
from tests.accidents.site import Site, Trial

_SHARE = 1 / 3  # of the trials change several columns


@dataclass
class Tally:
    """How the accidents of one kind ended.

    Attributes:
        faults: What must not be, in words.
        stages: How far the run had come, as the history tells.
    """

    kind: str
    times: int = 0
    before: int = 0
    after: int = 0
    between: int = 0
    completed: int = 0
    faults: list[str] = field(default_factory=list)
    stages: Counter[str] = field(default_factory=Counter)
    unavailable: str | None = None

    def add(self, trial: Trial) -> None:
        """Judge what an accident left behind, and run the command again."""
        self.times += 1
        trial.site.recover()
        state, code = trial.state(), trial.code
        wrote = state == trial.after
        self.before += state == trial.before
        self.after += wrote
        if state not in (trial.before, trial.after):
            self.between += 1
            self.faults.append("neither before nor after")
        self._hear(trial, wrote=wrote, code=code)
        if not trial.site.neighbour_is_untouched():
            self.faults.append("another group's samples were changed")
        self._complete(trial)

    def _hear(self, trial: Trial, *, wrote: bool, code: int | None) -> None:
        """Hold what the command and its history tell against what is."""
        run, verdict = trial.run(), trial.verdict()
        told = verdict in {Outcome.WRITTEN, Outcome.NOTHING}
        # Of two runs the one that came first in the history may be the one that lost.
        if told != wrote and self.kind != "two runs at once":
            self.faults.append(f"the history says {verdict}, and it is {wrote=}; {trial.said}")
        if wrote and not trial.undo_files():
            self.faults.append("it was written, and there is no undo file")
        if code is not None and code >= 0 and (code == 0) != wrote:
            self.faults.append(f"exit code {code}, and {wrote=}; {trial.said}")
        if "Traceback" in trial.said:
            self.faults.append(trial.said)
        stage = "no run yet" if run is None else "planned"
        if run and run.transaction:
            stage = "committing" if run.committing else "writing"
        if run and run.ended_at:
            stage = "ended"
        self.stages[stage] += 1

    def _complete(self, trial: Trial) -> None:
        trial.address = None
        with trial.started():
            pass
        if trial.code == 0 and trial.state() == trial.after:
            self.completed += 1
        else:
            self.faults.append(f"run again: exit code {trial.code}; {trial.said}")


def meet(site: Site, kind: str, times: int, seed: int) -> Tally:
    """Let an accident happen so many times.

    Raises:
        UnavailableError: It cannot be had on this machine.
    """
    tally = Tally(kind)
    for number in range(times):
        chance = Random(f"{seed} {kind} {number}")
        trial = site.trial(columns=chance.random() < _SHARE)
        try:
            KINDS[kind](trial, chance)
        except AssertionError as error:
            tally.faults.append(f"number {number}: {error}")
        tally.add(trial)
    return tally
