"""The SQL of an assistant: one statement that reads, and that calls no function with side effects.

A read-only session does not write to tables, but functions can still read the server's files, end
other sessions, or connect to other servers. PostgreSQL marks such functions as volatile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aspencli.errors import BadInputError, RefusedError

if TYPE_CHECKING:
    from aspen.database.engine import Database

_READING = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
_HARMLESS = frozenset(
    {
        *("random", "clock_timestamp", "timeofday", "gen_random_uuid", "pg_relation_size"),
        *("pg_total_relation_size", "pg_table_size", "pg_indexes_size", "pg_database_size"),
    }
)
_LONGEST_NAME = 63  # bytes; PostgreSQL cuts longer ones
_VOLATILE = """
SELECT DISTINCT proname::text FROM pg_catalog.pg_proc
 WHERE provolatile = 'v' AND proname = ANY (CAST(:names AS text[]))
"""


def called_names(sql: str) -> list[str]:
    """Return the names that a statement may call as functions.

    Raises:
        BadInputError: It is not one statement that reads.
        RefusedError: It has a form that hides names.
    """
    from aspen.database.driver import tokens

    found = [(kind, text) for kind, text, _start in tokens(sql) if kind != "gap"]
    while found and found[-1] == ("sign", ";"):
        found.pop()
    _require_one(found)
    names = []
    following = [*found[1:], ("", "")]
    for number, ((kind, text), after) in enumerate(zip(found, following, strict=True)):
        if kind != "name":
            continue
        before = "".join(part for _, part in found[max(0, number - 2) : number])
        if text.startswith('"') and before.upper() == "U&":
            raise RefusedError(
                "Names with Unicode escapes are refused.", hint="Write the name itself."
            )
        if after == ("sign", "("):
            names.append(_name(text))
    return names


def _require_one(found: Sequence[tuple[str, str]]) -> None:
    """Check that the tokens are those of one statement that reads."""
    if not found:
        raise BadInputError("No SQL statement was given.", hint="For example: SELECT 1")
    signs = {text for kind, text in found if kind == "sign"}
    if "\\" in signs:
        raise BadInputError("psql commands are not SQL.", hint="Pass one SELECT statement.")
    first = next((text.upper() for kind, text in found if text != "("), "")
    if ";" in signs or first not in _READING:
        raise BadInputError(
            "Only one statement that reads can be profiled: SELECT, WITH, VALUES, or TABLE.",
            hint="Profile each statement by itself. For its plan, pass explain.",
        )


def _name(text: str) -> str:
    name = text[1:-1].replace('""', '"') if text.startswith('"') else text.lower()
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore")


def require_reading(database: Database, sql: str) -> None:
    """Check that a statement only reads, and calls no function with side effects.

    Raises:
        BadInputError: It is not one statement that reads.
        RefusedError: It calls such a function, or has a form that hides names.
    """
    names = sorted(set(called_names(sql)) - _HARMLESS)
    if not names:
        return
    import sqlalchemy as sa

    with database.connected() as reader:
        volatile = list(reader.execute(sa.text(_VOLATILE), {"names": names}).scalars())
    if volatile:
        raise RefusedError(
            f"Assistants may not call functions with side effects: {', '.join(sorted(volatile))}. "
            "Nothing was run.",
            hint="Leave it out, or ask a person to run the statement.",
        )
