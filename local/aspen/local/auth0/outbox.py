"""The outbox: the e-mails that the provider sends, which never leave this machine.

``aspencli local mail`` reads it from the provider's file, whether the provider is running or not.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection

from aspen.local.auth0 import STATE_FILE
from aspencli.errors import BadInputError, NotFoundError

_MOST = 10_000  # a laptop's trials; some 10 MB


@dataclass(frozen=True)
class Message:
    """An e-mail that was sent.

    Attributes:
        id: A number that increases with each message.
        sent_at: When it was sent, in seconds since 1970.
        link: The link that it is about, which the text contains too.
    """

    id: int
    sent_at: float
    recipient: str
    subject: str
    link: str
    text: str


_NAMES = ", ".join(one.name for one in fields(Message))


def send(db: Connection, recipient: str, subject: str, text: str, *, link: str) -> None:
    """Put an e-mail in the outbox, and drop the oldest if there are too many."""
    row = (time.time(), recipient, subject, link, text)
    db.execute(
        "INSERT INTO mail (sent_at, recipient, subject, link, text) VALUES (?, ?, ?, ?, ?)", row
    )
    db.execute("DELETE FROM mail WHERE id <= (SELECT max(id) FROM mail) - ?", (_MOST,))


def in_words(moment: float) -> str:
    """Return a time as a message mentions it, such as ``March 5, 2027, 09:30 UTC``."""
    at = datetime.fromtimestamp(moment, UTC)
    return f"{at:%B} {at.day}, {at:%Y, %H:%M} UTC"


class Outbox:
    """The outbox in a provider's folder, for reading only."""

    def __init__(self, folder: Path):
        self._file = folder / STATE_FILE

    def messages(self, recipient: str | None = None) -> list[Message]:
        """Return the messages, newest first; those to one address if given, ignoring case.

        Raises:
            NotFoundError: The provider was never started.
            BadInputError: Its file cannot be read.
        """
        condition = ":recipient IS NULL OR recipient = :recipient"
        return self._found(f"{condition} ORDER BY id DESC", recipient=recipient)

    def message(self, number: int) -> Message:
        """Return a message.

        Raises:
            NotFoundError: There is none with this ID, or the provider was never started.
            BadInputError: Its file cannot be read.
        """
        for message in self._found("id = :number", number=number):
            return message
        raise NotFoundError(
            f"No message has the ID {number}.", hint="List all messages: aspencli local mail"
        )

    def _found(self, condition: str, **values: object) -> list[Message]:
        if not self._file.exists():
            raise NotFoundError(
                "No mail yet: the identity provider was never started.",
                hint="Start it: aspencli local up",
            )
        address = f"{self._file.absolute().as_uri()}?mode=rw"  # without creating it
        statement = f"SELECT {_NAMES} FROM mail WHERE {condition}"  # noqa: S608 - names are ours
        try:
            with closing(sqlite3.connect(address, uri=True)) as db:
                # An older version of this program made no such table.
                if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'mail'").fetchone():
                    return []
                return [Message(*row) for row in db.execute(statement, values)]
        except sqlite3.DatabaseError as error:
            raise BadInputError(
                f"Cannot read the identity provider's data in {self._file.parent}: {error}",
                hint="Fix the permissions, or start over: aspencli local reset",
            ) from error
