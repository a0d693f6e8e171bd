"""The mapping of private to public identifiers: read once, streamed, every bad line named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from aspencli.errors import BadInputError
from aspencli.services.decoding import Fault
from aspencli.services.tables import Source, nearly
from db.bulk.rename_types import Request

PRIVATE = "private_identifier"
PUBLIC = "public_identifier"
_SHOWN = 300  # characters of a header
LONGEST = 128  # characters; what the service's API accepts

# What passes needs no second look; control characters are Unicode's category Cc.
_GOOD = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]{1,128}").fullmatch
_LOST = "\ufffd"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_NAMES = {
    0x00: "a NUL",
    0x09: "a tab",
    0x0A: "a line feed",
    0x0D: "a carriage return",
    0x1B: "an escape character",
}


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
            reason = None if source.text.is_damaged(value) else flaw(value)
            if reason:
                fault(Fault(line, column, reason))


def locate(source: Source, wanted: Sequence[str], kind: str = "a mapping") -> list[int]:
    """The positions of the wanted columns; the further ones are noted.

    Args:
        source: The file, its header read.
        wanted: The names of the columns.
        kind: What such a file is called.

    Raises:
        BadInputError: One is missing, or stands there twice.
    """
    found = [name.lower() for name in source.header]
    problems = [
        _absent(set(found).difference(wanted), name) for name in wanted if name not in found
    ]
    problems += [
        f"the column {name} stands there {found.count(name)} times"
        for name in wanted
        if found.count(name) > 1
    ]
    if problems:
        raise BadInputError(
            f"line {source.header_line} of {source.name} is not the header of {kind}: "
            f"{'; '.join(problems)}",
            hint=f"It must be: {source.delimiter.join(wanted)}",
            details=[f"found: {_listed(source.header)}"],
        )
    further = [name for name in source.header if name.lower() not in wanted]
    if further:
        source.notes.append(f"further columns ignored: {_listed(further)}")
    return [found.index(name) for name in wanted]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name.replace("\n", " ") or "(no name)" for name in names)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def flaw(value: str) -> str | None:
    """What is wrong with an identifier, if anything."""
    if not value:
        return "is blank"
    control = _CONTROL.search(value)
    if control:
        code = ord(control[0])
        name = _CONTROL_NAMES.get(code, "a control character")
        return f"holds {name} (U+{code:04X}) at position {control.start() + 1}"
    if _LOST in value:
        return "holds a replacement character (U+FFFD): an earlier conversion lost a letter there"
    if len(value) > LONGEST:
        return f"has {len(value)} characters; {LONGEST} are allowed"
    return None


def _absent(further: Iterable[str], name: str) -> str:
    near = nearly(name, further)
    return f"no column {name}" + (f" (is {near!r} meant?)" if near else "")


def _misshapen(line: int, cells: int, width: int) -> Fault:
    kind = "too few" if cells < width else "too many"
    return Fault(line, "", f"has {kind} cells: {cells}, where the header has {width}")
