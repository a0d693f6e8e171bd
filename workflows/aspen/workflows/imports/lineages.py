"""The lists of lineages of pathogens.

For SARS-CoV-2 it is lineage_notes.txt of pango-designation, for others lineages.json of
mpxv-lineages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa

from aspen.database.sessions import WriteSession
from aspen.workflows.programs import named
from aspen.workflows.reading import reading
from aspen.workflows.steps import StepError

_SC2 = "SC2"
_HEADER = ["Lineage", "Description"]
_WITHDRAWN = "*"
_PANGO = re.compile(r"[A-Z]{1,4}(?:\.\d+)*")
_LONGEST = 64  # characters
# A list never loses half of its lineages; a file that ended early does.
_LARGE, _LEAST = 1_000, 0.5
_COUNT = "SELECT count(*) FROM aspen.pathogen_lineages WHERE pathogen_id = :pathogen"
_LOCK = "SELECT FROM aspen.pathogens WHERE id = :pathogen FOR NO KEY UPDATE"
_DELETE = """
DELETE FROM aspen.pathogen_lineages
 WHERE pathogen_id = :pathogen AND lineage <> ALL(CAST(:names AS varchar[]))
"""
_INSERT = """
INSERT INTO aspen.pathogen_lineages (pathogen_id, lineage)
SELECT :pathogen, name FROM unnest(CAST(:names AS varchar[])) AS name
    ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True)
class Replaced:
    """The result of an import: the numbers of lineages added, removed, and in the list now."""

    added: int
    removed: int
    total: int

    def __str__(self) -> str:
        return f"{self.total:,} lineages: {self.added:,} added, {self.removed:,} removed"


def read_lineages(path: Path, pathogen: str) -> list[str]:
    """Return the lineages in a file, sorted, each once.

    Raises:
        StepError: It is not the list that the pathogen has.
    """
    with reading(path) as file:
        found = set(_notes(path, file) if pathogen == _SC2 else _json(path, file))
    if not found:
        raise StepError(f"{path.name} has no lineages.")
    return sorted(found)


def _notes(path: Path, file: IO[str]) -> Iterator[str]:
    """Yield the lineages of lineage_notes.txt that were not withdrawn."""
    if file.readline().rstrip("\r\n").split("\t")[:2] != _HEADER:
        raise StepError(
            f"{path.name} is not lineage_notes.txt of pango-designation: its first line is not "
            "Lineage, a tab, and Description."
        )
    wrong = []
    for number, line in enumerate(file, start=2):
        name = line.split("\t")[0].strip()
        if not name or name.startswith(_WITHDRAWN):
            continue
        if _PANGO.fullmatch(name):
            yield name
        else:
            wrong.append(f"{number} ({name[:20]!r})")
    if wrong:
        raise StepError(f"{path.name} has names that are not lineages, on lines {named(wrong)}.")


def _json(path: Path, file: IO[str]) -> Iterator[str]:
    """Yield the names and aliases in lineages.json."""
    try:
        document: Any = json.load(file)
    except json.JSONDecodeError as error:
        raise StepError(
            f"{path.name} is not lineages.json of mpxv-lineages, or is incomplete: {error}."
        ) from error
    entries = document.get("lineages") if isinstance(document, dict) else document
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
    ):
        raise StepError(f"{path.name} is not lineages.json of mpxv-lineages: it has no names.")
    for entry in entries:
        for name in (entry["name"], entry.get("alias")):
            if name is not None and not (isinstance(name, str) and 0 < len(name) <= _LONGEST):
                raise StepError(f"{path.name} has a name that is not a lineage: {name!r}.")
            if name:
                yield name


def replace_lineages(session: WriteSession, pathogen: int, names: Collection[str]) -> Replaced:
    """Make names the list of a pathogen's lineages; imports of one pathogen take turns.

    Raises:
        StepError: Most of the lineages would be removed, so the file is probably incomplete.
    """
    values = {"pathogen": pathogen, "names": list(names)}
    session.execute(sa.text(_LOCK), values)
    before = session.execute(sa.text(_COUNT), values).scalar_one()
    if before >= _LARGE and len(names) < _LEAST * before:
        raise StepError(
            f"The file has {len(names):,} lineages, and the database {before:,}; the file is "
            "probably incomplete. Nothing was changed."
        )
    removed = session.execute(sa.text(_DELETE), values)
    added = session.execute(sa.text(_INSERT), values)
    assert isinstance(removed, sa.CursorResult)  # noqa: S101 - these statements have no other
    assert isinstance(added, sa.CursorResult)  # noqa: S101 - same
    total = session.execute(sa.text(_COUNT), values).scalar_one()
    if total != len(names):
        raise StepError(
            f"The list has {total:,} lineages after the import instead of {len(names):,}. "
            "Nothing was changed."
        )
    return Replaced(added.rowcount, removed.rowcount, total)
