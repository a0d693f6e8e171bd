"""Renames through the API that are killed at some point, and what the program then suggests.

At any point, the history, the lock on the group, and the suggested commands have to agree, every
suggested command has to work as printed, and no group may stay locked.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shlex
import signal
import time
from collections import Counter
from pathlib import Path

from benchmarks.accidents_api.crasher import Crash, Crasher, Side
from benchmarks.accidents_api.site import Site
from benchmarks.accidents_api.trying import RENAME, TEMPORARY
from tests.cli.commands.ending import Ended
from tests.cli.commands.renames_lab import tangled, write_mapping

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
_SUGGESTED = re.compile(r"aspencli (?:--\S+ \S+ )*samples (?:resume|undo) \S+")
_OUTCOMES = {"written", "rolled back", "nothing to do", "unfinished"}
_VERBS = {"resume", "undo", "update-public-ids"}
_SIDES: tuple[Side, ...] = ("before", "after")
_IDS = itertools.count()


class Killing:
    """One group whose renames are killed.

    Args:
        site: The group, and the service.
        crasher: The runner of the commands.
        folder: The folder for files; each run has its own home under it.
        dice: The source of randomness.
        thorough: True to also check the counterpart of each suggestion: the refusal of other
            renames, and the undo of what was written.

    Attributes:
        met: The number of times that each event was seen.
    """

    def __init__(
        self,
        site: Site,
        crasher: Crasher,
        folder: Path,
        dice: random.Random,
        *,
        thorough: bool = True,
    ):
        self._thorough = thorough
        self._site = site
        self._crasher = crasher
        self._folder = folder
        self._dice = dice
        self._home = folder
        self.met: Counter[str] = Counter()
        self.seconds = 0.0

    def calm(self) -> None:
        """Rename once without a kill, to measure how long that takes."""
        self._prepare()
        began = time.monotonic()
        assert self._rename().code == 0
        self.seconds = time.monotonic() - began
        self._put_back()

    def kill(self, crash: Crash) -> bool:
        """Rename, be killed, and follow the suggestions; return False if it was not killed."""
        self._prepare()
        began = self._site.renames.names()
        ended = self._rename(crash)
        if ended.code == 0:
            assert self._site.renames.names() == began | self._wanted
            self._put_back()
            return False
        self._recover(began, ended)
        self._put_back()
        return True

    def kill_at_random(self) -> bool:
        """Do the same at a random moment, and perhaps also kill the commands that continue it."""
        number = self._dice.choice(SIGNALS)
        if self._dice.random() < 0.5:
            side: Side = self._dice.choice(_SIDES)
            return self.kill(Crash(number, self._dice.randint(1, 22), side))
        return self.kill(Crash(number, delay_s=self._dice.uniform(0, self.seconds)))

    # Parts

    def _prepare(self) -> None:
        names = self._site.renames.names()
        keys = list(names)
        self._dice.shuffle(keys)
        self._before = names
        size = self._dice.randint(12, 16)
        wanted = tangled({key: names[key] for key in keys[:size]}, size)
        mark = next(_IDS)
        self._wanted = {
            key: f"{name}-{mark}" if name.startswith("new-") else name
            for key, name in wanted.items()
        }
        self._home = self._folder / f"home-{mark}"
        self._home.mkdir()
        self._mapping = write_mapping(self._home / "ids.csv", self._wanted)

    def _rename(self, crash: Crash | None = None) -> Ended:
        return self._run(*RENAME, str(self._mapping), crash=crash)

    def _recover(self, before: dict[str, str], last: Ended) -> None:
        """Follow the suggestions until the run has ended, and check the history each time."""
        for attempt in itertools.count():
            runs = self._history()
            if not runs:
                self.met["killed before the history knew it"] += 1
                assert self._site.renames.names() == before
                break
            first = runs[-1]
            assert {run["outcome"] for run in runs} <= _OUTCOMES, (runs, last)
            unfinished = [run["run"] for run in runs if run["outcome"] == "unfinished"]
            if not unfinished:
                self.met[f"ended: {first['outcome']}"] += 1
                self._is_whole(before, first["outcome"], first["run"])
                break
            choices = list(itertools.chain(*map(self._shown, unfinished)))
            if self._thorough:
                choices += self._refused()
            if self._thorough and len(unfinished) == 1:  # otherwise, the rename is being undone
                choices.append(shlex.join(["aspencli", *RENAME, str(self._mapping)]))
            words = shlex.split(self._dice.choice(choices))[1:]
            verb = next(word for word in words if word in _VERBS)
            self.met[f"suggested: {verb}"] += 1
            crash = self._next_crash(attempt)
            last = self._run(*words, *([] if "--yes" in words else ["--yes"]), crash=crash)
            assert last.code == 0 or crash, (words, last)
        self._is_free()

    def _is_free(self) -> None:
        """Check that another rename succeeds and that no sample has a temporary name."""
        names = self._site.renames.names()
        assert not [name for name in names.values() if name.startswith(TEMPORARY)]
        key = next(iter(names))
        other = write_mapping(self._home / "other.csv", {key: f"free-{next(_IDS)}"})
        ended = self._run(*RENAME, str(other))
        assert ended.code == 0, ended

    def _next_crash(self, attempt: int) -> Crash | None:
        """Return where to kill the next command: one in three, and at most twice in a row."""
        if not self._thorough or attempt > 1 or self._dice.random() > 1 / 3:
            return None
        self.met["killed again"] += 1
        return Crash(self._dice.choice(SIGNALS), delay_s=self._dice.uniform(0, self.seconds))

    def _shown(self, run: str) -> list[str]:
        """Return the commands that the history suggests for a run."""
        shown = self._run("history", "show", run)
        assert shown.code == 0, shown
        found = _SUGGESTED.findall(shown.err)
        assert found, shown
        return found

    def _refused(self) -> list[str]:
        """Return the commands suggested to a user who wants to rename other samples."""
        key = next(iter(self._before))
        other = write_mapping(self._home / "other.csv", {key: f"refused-{next(_IDS)}"})
        refused = self._run(*RENAME, str(other))
        assert refused.code == 7, refused
        found = _SUGGESTED.findall(refused.err)
        assert found, refused
        return found

    def _is_whole(self, before: dict[str, str], outcome: str, run: str) -> None:
        """Check that the names match the history, and that the undo it suggests works."""
        if outcome == "rolled back":
            assert self._site.renames.names() == before
            return
        assert outcome == "written"
        assert self._site.renames.names() == before | self._wanted
        if not self._thorough:
            return
        (undo,) = self._shown(run)
        ended = self._run(*shlex.split(undo)[1:], "--yes")
        assert ended.code == 0, ended
        assert self._site.renames.names() == before

    def _history(self) -> list[dict[str, str]]:
        ended = self._run("history", "-o", "json")
        assert ended.code == 0, ended
        found: list[dict[str, str]] = ended.json
        return found

    def _put_back(self) -> None:
        now = self._site.renames.names()
        moved = [key for key, name in self._before.items() if now[key] != name]
        self._site.renames.set_names({key: f"aside-{key}" for key in moved})
        self._site.renames.set_names({key: self._before[key] for key in moved})

    def _run(self, *words: str, crash: Crash | None = None) -> Ended:
        foreign = ("ASPEN_", "CZGE_", "PG")
        clean = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        env = clean | self._site.environment(self._site.api.url, self._home)
        return self._crasher.run(env, *words, crash=crash)
