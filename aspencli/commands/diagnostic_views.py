"""What the commands that look at a server share: ages and statements as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aspencli.output.console import Output
from aspencli.output.text import duration_text, size_text

if TYPE_CHECKING:
    from aspencli.services.diagnostics.looking import Rights

_LONGEST = 300  # characters of a statement in a table, which the terminal cuts further


def seconds_text(out: Output, seconds: float | None) -> float | str | None:
    """Seconds: in words in a table, as a number elsewhere."""
    if seconds is None or out.chosen_form != "table":
        return seconds
    return duration_text(seconds)


def bytes_text(out: Output, size: int | None) -> int | str | None:
    """Bytes: in words in a table, as a number elsewhere."""
    return size_text(size) if size is not None and out.chosen_form == "table" else size


def query_text(out: Output, query: str | None) -> str | None:
    """A statement: on one line in a table, as it is elsewhere."""
    if query is None or out.chosen_form != "table":
        return query
    return " ".join(query[: 4 * _LONGEST].split())[:_LONGEST]


def tell_hidden(out: Output, rights: Rights, count: int, what: str) -> None:
    """Say what the server does not show to this user, and how it would."""
    if count:
        out.warn(f"hidden from the user {rights.user}: {count} {what}")
        out.hint(f"Have an administrator run: {rights.cure}")
