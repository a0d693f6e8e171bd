"""Matching of columns to header names, or to the names that the operator gives."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from aspencli.errors import BadInputError
from aspencli.stored_text import folded
from aspencli.tabular.delimited import REJECTED
from aspencli.tabular.table import Table

_IDENTIFIER = re.compile(r"(identi\w*|ids?)$")
_SHOWN = 300  # characters of a header in a message
_SYNONYMS = {
    "private_identifier": {"labid", "labno", "labnumber", "sampleid", "samplename", "specimenid"},
    "public_identifier": {"strain", "virusname", "covvvirusname", "gisaidname", "publicname"},
}
"""Names that laboratories use for columns; suggested, but never used automatically."""
_NEAR = 0.7  # similarity of the letters, from 0 to 1
_VERY_NEAR = 0.85  # for columns that are optional


class SavedName(str):
    """A pair from a saved column mapping, which need not apply to every file."""

    __slots__ = ()


def locate(
    source: Table, wanted: Sequence[str], kind: str = "a mapping file", *, names: Sequence[str] = ()
) -> list[int]:
    """Return the positions of the wanted columns, and note any others.

    Args:
        source: The file, with its header read.
        wanted: The names of the columns.
        kind: The kind of file, for messages.
        names: The file's names for some of them: ``Lab ID=private_identifier``, in any case.

    Raises:
        BadInputError: A column is missing or appears twice, or the file lacks a given name.
    """
    positions, problems = _placed(source, wanted, names)
    problems += [(name, 0) for name in wanted if name not in positions]
    if problems:
        raise _foreign(source, wanted, kind, problems)
    used = [positions[name] for name in wanted]
    note_further(source, used, names)
    return used


def find(
    source: Table, known: Sequence[str], kind: str, *, names: Sequence[str] = ()
) -> dict[str, int]:
    """Return the positions of the known columns that the file has.

    Args:
        source: The file, with its header read.
        known: The names of the columns that it may have.
        kind: The kind of file, for messages.
        names: The file's names for some of them: ``Lab ID=private_identifier``.

    Raises:
        BadInputError: A column appears twice, the file lacks a given name, or a header is a near
            match, so that its column would be ignored.
    """
    positions, twice = _placed(source, known, names)
    if twice:
        raise _foreign(source, known, kind, twice)
    taken = {*positions.values(), *_unwanted(source, names)}
    free = [name for place, name in enumerate(source.header) if place not in taken]
    missing = [name for name in known if name not in positions]
    near = _nearest(missing, free, _VERY_NEAR) if missing else {}
    if near:
        options = " ".join(_option(header, name) for name, header in near.items())
        raise BadInputError(
            f"Line {source.header_line} of {source.name} has "
            + ", ".join(f"{header!r} (did you mean {name}?)" for name, header in near.items()),
            hint=f"If so: {options}. To ignore it: "
            + " ".join(_option(header, "") for header in near.values()),
            details=[f"found: {_listed(source.header)}"],
        )
    return positions


def note_further(source: Table, used: Sequence[int], names: Sequence[str] = ()) -> None:
    """Record which columns are used, and note the others.

    Args:
        source: The file.
        used: The positions of the columns that are used.
        names: The file's names for some columns; those with an empty name are ignored on purpose.
    """
    parts = [place for place in range(len(source.header)) if source.column_of(place) == ""]
    used = [*used, *parts]  # the template joins these into one column
    further = [name for place, name in enumerate(source.header) if place not in used]
    if further:
        source.notes.append(f"ignored columns: {_listed(further)}")
    source.columns = used
    own = len(REJECTED) if tuple(source.header[: len(REJECTED)]) == REJECTED else 0
    known = {*used, *_unwanted(source, names), *range(own)}
    source.ignored = [place for place in range(len(source.header)) if place not in known]


def _placed(
    source: Table, wanted: Sequence[str], names: Sequence[str]
) -> tuple[dict[str, int], list[tuple[str, int]]]:
    """Return the position of each column found, and the columns found several times."""
    found = list(map(_plain, source.header))
    positions = _given(source, wanted, names)
    unwanted = _unwanted(source, names)
    twice = []
    for name in wanted:
        if name in positions:
            continue
        places = [
            place
            for place, header in enumerate(found)
            if place not in unwanted
            and place not in positions.values()
            and (header if (told := source.column_of(place)) is None else told) == name
        ]
        if len(places) == 1:
            positions[name] = places[0]
        elif places:
            twice.append((name, len(places)))
    return positions, twice


def _unwanted(source: Table, names: Sequence[str]) -> list[int]:
    """Return the positions of the columns ignored on purpose: ``--map 'Note='``."""
    ignored = {_plain(words[:-1]) for words in names if words.endswith("=")}
    return [place for place, header in enumerate(source.header) if _plain(header) in ignored]


def _given(source: Table, wanted: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Return the position of each column that the operator has named."""
    found = list(map(_plain, source.header))
    positions: dict[str, int] = {}
    for words in names:
        header, is_pair, column = (part.strip() for part in words.rpartition("="))
        name = column.lower()
        if isinstance(words, SavedName) and (
            name not in wanted or found.count(_plain(header)) == 0
        ):
            continue
        if header and is_pair and not name:
            if _plain(header) not in found:
                raise _unknown(source, header, name)
            continue
        if not (is_pair and header) or name not in wanted:
            raise BadInputError(
                f"Invalid value for --map: {words!r}",
                hint=f"Use HEADER=COLUMN, where COLUMN is one of: {', '.join(wanted)}.",
            )
        if name in positions:
            raise BadInputError(f"--map names {name} more than once.", hint="Map each column once.")
        if found.count(_plain(header)) != 1:
            raise _unknown(source, header, name)
        positions[name] = found.index(_plain(header))
    return positions


def _unknown(source: Table, header: str, name: str) -> BadInputError:
    if _plain(header) in map(_plain, source.header):
        return BadInputError(
            f"{source.name} has more than one column {header}",
            hint="Give the columns different names.",
        )
    from difflib import get_close_matches

    headers = {_plain(other): other for other in source.header}
    near = get_close_matches(_plain(header), list(headers), n=1)
    return BadInputError(
        f"Invalid value for --map: {source.name} has no column {header!r}",
        hint=f"Did you mean {_option(headers[near[0]], name)}?" if near else "Check its header.",
        details=[f"found: {_listed(source.header)}"],
    )


def _foreign(
    source: Table, wanted: Sequence[str], kind: str, problems: Sequence[tuple[str, int]]
) -> BadInputError:
    near = _nearest(wanted, source.header)
    reasons = []
    for name, count in problems:
        meant = f" (did you mean {near[name]!r}?)" if name in near else ""
        reasons.append(f"{count} columns {name}" if count else f"no column {name}{meant}")
    absent = [name for name, count in problems if not count]
    options = [_option(near.get(name, "YOUR HEADER"), name) for name in absent]
    hint = f"Expected: {source.delimiter.join(wanted)}"
    later = source.line_of(absent) if absent else None
    if later is not None:
        hint = f"Line {later} looks like the header: --skip-lines {later - 1}"
        options = []
    return BadInputError(
        f"Line {source.header_line} of {source.name} is not the header of {kind}: "
        f"{'; '.join(reasons)}",
        hint=f"{hint}. To map other names: {' '.join(options)}" if options else hint,
        details=[f"found: {_listed(source.header)}"],
    )


def _nearest(
    wanted: Sequence[str], header: Sequence[str], near: float = _NEAR
) -> Mapping[str, str]:
    """Return, by column, the header that was probably meant, if there is one."""
    from difflib import SequenceMatcher

    best: dict[str, tuple[float, str]] = {}
    for other in header:
        letters = _letters(other)
        likeness, name = max(
            (
                1.0
                if letters in _SYNONYMS.get(name, ()) and near < _VERY_NEAR
                else SequenceMatcher(None, _stem(other, name), _stem(name, other)).ratio(),
                name,
            )
            for name in wanted
        )
        if likeness >= max(near, best.get(name, (0.0, ""))[0]) and _plain(other) not in wanted:
            best[name] = likeness, other
    return {name: other for name, (_likeness, other) in best.items()}


def _plain(header: str) -> str:
    return " ".join((header if header.isascii() else folded(header)).split()).lower()


def _letters(header: str) -> str:
    return re.sub(r"[\W_]", "", _plain(header))


def _stem(header: str, other: str) -> str:
    """Return the part to compare: Private ID is like private_identifier, Sample ID is not."""
    stem, others = (_IDENTIFIER.sub("", _letters(each)) for each in (header, other))
    are_both = stem != _letters(header) and others != _letters(other)
    return stem if are_both and stem and others else _letters(header)


def _option(header: str, name: str) -> str:
    return f"--map {shlex.quote(f'{header}={name}')}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name.replace("\n", " ") or "(no name)" for name in names)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
