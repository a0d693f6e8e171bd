"""The mapping of private to public identifiers: read once, streamed, every bad line named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from aspencli.services.decoding import Fault
from aspencli.services.headers import locate
from aspencli.services.tables import Table
from aspencli.services.unusable import Unusable
from db.bulk.rows import Request, make_request

PRIVATE = "private_identifier"
PUBLIC = "public_identifier"
LONGEST = 128  # characters; what the service's API accepts

PassOn = Callable[[Iterator[tuple[int, list[str]]]], Iterator[tuple[int, list[str]]]]
"""Hands rows on as they come, and may do something with them."""

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


def read_mapping(
    source: Table,
    fault: Callable[[Fault], None],
    names: Sequence[str] = (),
    pass_on: PassOn = iter,
) -> Iterator[Request]:
    """The good rows of a mapping, as they come; what is wrong with the others goes to ``fault``.

    Args:
        source: The file.
        fault: Is told of each bad line.
        names: What the file calls the columns: ``Lab ID=private_identifier``.
        pass_on: Sees every row on its way.

    Raises:
        BadInputError: The header is not that of a mapping.
    """
    private, public = locate(source, (PRIVATE, PUBLIC), names=names)
    width = len(source.header)
    for line, record in pass_on(source.records(fault)):
        if len(record) != width:
            fault(misshapen(line, len(record), width))
            continue
        lab, new = record[private].strip(), record[public].strip()
        if _GOOD(lab) and _GOOD(new):
            yield make_request((line, lab, (new,), None, None, None))
            continue
        for column, cell in ((PRIVATE, record[private]), (PUBLIC, record[public])):
            reason = _reason(source, cell)
            if reason:
                fault(Fault(line, column, reason))


def _reason(source: Table, cell: str) -> str | None:
    if isinstance(cell, Unusable):
        return cell.reason
    return None if source.is_told(cell) else flaw(cell.strip())


def flaw(value: str, longest: int = LONGEST) -> str | None:
    """What is wrong with an identifier, or another text of one line, if anything."""
    if longest >= LONGEST and _GOOD(value):
        return None
    if not value:
        return "is blank"
    control = _CONTROL.search(value)
    if control:
        code = ord(control[0])
        name = _CONTROL_NAMES.get(code, "a control character")
        return f"holds {name} (U+{code:04X}) at position {control.start() + 1}"
    if _LOST in value:
        return "holds a replacement character (U+FFFD): an earlier conversion lost a letter there"
    if len(value) > longest:
        return f"has {len(value)} characters; {longest} are allowed"
    return None


def misshapen(line: int, cells: int, width: int) -> Fault:
    """The fault of a row that is not as wide as the header."""
    kind = "too few" if cells < width else "too many"
    return Fault(line, "", f"has {kind} cells: {cells}, where the header has {width}")
