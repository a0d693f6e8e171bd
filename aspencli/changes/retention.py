"""Retention of the records of runs: the history, undo files, journals, and crash reports."""

from __future__ import annotations

import datetime as dt
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aspencli import files
from aspencli.changes import request_journal, statements, step_log
from aspencli.changes.journal import Journal
from aspencli.changes.runs import Event, Outcome, Run

_OPEN = frozenset({Outcome.RUNNING, Outcome.UNFINISHED, Outcome.UNKNOWN})


@dataclass(frozen=True)
class Files:
    """Files of one kind."""

    kind: str  # such as ``undo files``
    paths: tuple[Path, ...]
    size: int  # in bytes


@dataclass(frozen=True)
class Pruning:
    """A plan of what to remove."""

    before: dt.datetime  # records older than this are removed
    runs: tuple[Run, ...]  # to remove from the history, the newest first
    undoable: tuple[Run, ...]  # those of them that can be undone now, and no longer afterward
    kept: tuple[Run, ...]  # older runs that stay because they are not finished
    files: tuple[Files, ...]  # to remove, by kind

    @property
    def size(self) -> int:
        """Return the number of bytes in the files to remove."""
        return sum(found.size for found in self.files)

    @property
    def is_empty(self) -> bool:
        """Return True if there is nothing to remove."""
        return not self.runs and not any(found.paths for found in self.files)


def stored() -> list[Files]:
    """Return the files that record runs, by kind."""
    state = files.state_dir()
    return [
        _files("history", state.glob("history/journal.jsonl")),
        _files("undo files", state.glob("undo/*")),
        _files("journals of renames through the API", request_journal.folder().glob("*")),
        _files("records of deleted items", state.glob("deleted/*")),
        _files("statements of sessions", statements.folder().glob("*")),
        _files("logs of steps", step_log.folder().glob("*")),
        _files("crash reports", state.glob("crashes/*")),
    ]


def plan_pruning(runs: Sequence[Run], before: dt.datetime) -> Pruning:
    """Return what `prune` would remove, given every run in the history, the newest first.

    Runs that are not finished are kept with all their files, and so is a run that another one is
    undoing. Files that belong to no run in the history are removed by their own age.
    """
    kept: list[Run] = []
    removed: list[Run] = []
    needed: set[Path] = set()
    owned: set[Path] = set()
    undoing = {run.undo_of for run in runs if run.outcome in _OPEN}
    for run in runs:
        is_old = run.started_at < before
        stays = not is_old or run.outcome in _OPEN or bool(run.undo_begun) or run.id in undoing
        if is_old:
            (kept if stays else removed).append(run)
        (needed if stays else owned).update(path.absolute() for path in _files_of(run))
    _, *kinds = stored()
    files = tuple(
        _files(kind.kind, (path for path in kind.paths if _goes(path, owned, needed, before)))
        for kind in kinds
    )
    undoable = tuple(
        run
        for run in removed
        if run.outcome is Outcome.WRITTEN
        and not run.undone_by
        and run.undo_file
        and run.undo_file.is_file()
    )
    return Pruning(before, tuple(removed), undoable, tuple(kept), files)


def prune(journal: Journal, pruning: Pruning) -> list[Path]:
    """Remove what was planned; return the files that could not be removed.

    The history is rewritten first: a crash in between leaves files without a run, which the next
    pruning finds by their age.

    Raises:
        OSError: The history cannot be rewritten; nothing was removed.
    """
    gone = {run.id for run in pruning.runs}

    def stays(event: Event) -> bool:
        return event["run"] not in gone

    if gone:
        journal.rewrite(stays, pruning.before)
    left = []
    for path in (path for kind in pruning.files for path in kind.paths):
        try:
            path.unlink(missing_ok=True)
        except OSError:
            left.append(path)
    return left


def _files(kind: str, found: Iterable[Path]) -> Files:
    sizes = {}
    for path in sorted(found):
        try:
            found_stat = path.stat()
        except OSError:  # removed by another process in the meantime
            continue
        if stat.S_ISREG(found_stat.st_mode):
            sizes[path] = found_stat.st_size
    return Files(kind, tuple(sizes), sum(sizes.values()))


def _files_of(run: Run) -> list[Path]:
    found = [path for path in (run.undo_file, run.saved_file, run.steps) if path]
    found += [statements.path_of(run.id), request_journal.path_of(run.id)]
    return [*found, *([run.renames] if run.renames else [])]


def _goes(path: Path, owned: set[Path], needed: set[Path], before: dt.datetime) -> bool:
    if path.absolute() in needed:
        return False
    return path.absolute() in owned or path.stat().st_mtime < before.timestamp()
