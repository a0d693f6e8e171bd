"""The mapping of private to public identifiers: read once, streamed, every bad line named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from aspencli.errors import BadInputError
from aspencli.services.tables import Fault, Source, nearly
from db.bulk.renames import Request

PRIVATE = "private_identifier"
PUBLIC = "public_identifier"
LONGEST = 128  # characters; what the service's API accepts

# What passes needs no second look; control characters are Unicode's category Cc.
_GOOD = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,128}").fullmatch
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_NAMES = {0: "NUL", 9: "tab", 10: "line feed", 13: "carriage return", 27: "escape"}


def read_mapping(source: Source, fault: Callable[[Fault], None]) -> Iterator[Request]:
    """The good rows of a mapping, as they come; what is wrong with the others goes to ``fault``.

    Raises:
        BadInputError: The header is not that of a mapping.
    """
    private, public = locate(source, (PRIVATE, PUBLIC))
    width = len(source.header)
    for line, record in source.records(fault):
        if len(record) != width:
            fault(_misshapen(line, len(record), width))
            continue
        lab, new = record[private].strip(), record[public].strip()
        if _GOOD(lab) and _GOOD(new):
            yield Request(line, lab, new)
            continue
        for column, value in ((PRIVATE, lab), (PUBLIC, new)):
            reason = flaw(value)
            if reason:
                fault(Fault(line, column, reason))


def locate(source: Source, wanted: Sequence[str]) -> list[int]:
    """The positions of the wanted columns; the further ones are noted.

    Raises:
        BadInputError: One is missing, or stands there twice.
    """
    found = [name.lower() for name in source.header]
    problems = [_absent(source, name) for name in wanted if name not in found]
    problems += [
        f"the column {name} stands there {found.count(name)} times"
        for name in wanted
        if found.count(name) > 1
    ]
    if problems:
        raise BadInputError(
            f"the header of {source.name} is not that of a mapping: {'; '.join(problems)}",
            hint=f"The first line must be: {source.delimiter.join(wanted)}",
        )
    further = [name or "(no name)" for name in source.header if name.lower() not in wanted]
    if further:
        source.notes.append(f"further columns ignored: {', '.join(further)}")
    return [found.index(name) for name in wanted]


def flaw(value: str) -> str | None:
    """What is wrong with an identifier, if anything."""
    if not value:
        return "is blank"
    control = _CONTROL.search(value)
    if control:
        code = ord(control[0])
        name = _CONTROL_NAMES.get(code, "control character")
        return f"holds a {name} (U+{code:04X}) at position {control.start() + 1}"
    if len(value) > LONGEST:
        return f"has {len(value)} characters; {LONGEST} are allowed"
    return None


def _absent(source: Source, name: str) -> str:
    near = nearly(name, [column.lower() for column in source.header])
    return f"no column {name}" + (f" (is {near!r} meant?)" if near else "")


def _misshapen(line: int, cells: int, width: int) -> Fault:
    kind = "too few" if cells < width else "too many"
    return Fault(line, "", f"has {kind} cells: {cells}, where the header has {width}")
