"""Values given for samples: identifiers, days, and records."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aspencli.cli.context import AppContext
from aspencli.errors import BadInputError

NONE = "none"
"""The word that clears a date."""


@dataclass
class Change:
    """The changes given by options, validated on creation, before any request is made.

    Attributes:
        context: Application context.
        texts: Identifiers.
        days: Dates as typed.
        location: ID or name.
        private: Whether to hide the samples from other groups.
        missing_words: Whether to accept words such as ``NA`` as identifiers.
    """

    context: AppContext
    texts: Mapping[str, str | None]
    days: Mapping[str, str | None]
    location: str | None
    private: bool | None
    missing_words: bool = False

    def __post_init__(self) -> None:
        self._checked: dict[str, Any] = {}
        for name, text in self.texts.items():
            if text is not None:
                self._checked[name] = checked_identifier(
                    name, text, missing_words=self.missing_words
                )
        for name, said in self.days.items():
            if said is not None and said.strip().lower() == NONE and name == "sequencing_date":
                self._checked[name] = None
            elif said is not None:
                self._checked[name] = parse_day(self.context, name, said)

    @property
    def is_empty(self) -> bool:
        """Return True if no change was given."""
        return not self._checked and self.location is None and self.private is None

    def values(self) -> dict[str, Any]:
        """Return the changes under the API's names, with the location looked up."""
        from aspencli.reference.locations import Gazetteer

        found = dict(self._checked)
        if self.location is not None:
            places = Gazetteer(self.context.api().locations)
            found["collection_location"] = places.find(self.location)["id"]
        if self.private is not None:
            found["private"] = self.private
        return found


def checked_identifier(name: str, text: str, *, missing_words: bool = False) -> str:
    """Return an identifier without surrounding white space.

    Raises:
        BadInputError: If it is not a valid identifier.
    """
    from aspencli.changes.cells import identifier

    _value, reason = identifier(text.strip(), missing_words=missing_words)
    if reason is not None:
        raise BadInputError(f"--{name.replace('_', '-')} {reason}", hint="Use a different value.")
    return text.strip()


def parse_day(context: AppContext, name: str, said: str) -> str:
    """Return a date in the API's format, and print how it was understood if it was not exact."""
    from aspencli.tabular.dates import understand_day

    found = understand_day(said)
    words = name.replace("_", " ")
    if not found.is_exact:
        context.out.info(f'{words[0].upper()}{words[1:]}: "{found.said}" -> {found.day}')
    if found.day > dt.datetime.now().astimezone().date():
        context.out.info(f"Note: {words} {found.day} is in the future.")
    return found.day.isoformat()


def read_records(
    text: str | None, change: Change, any_keys: bool
) -> Sequence[Mapping[str, Any]] | None:
    """Return the samples of ``--json-data``, or None if it was not given.

    Raises:
        BadInputError: If the JSON is invalid, or is combined with other options.
    """
    if text is None:
        return None
    if any_keys or not change.is_empty:
        raise BadInputError(
            "--json-data cannot be combined with keys or other updates.",
            hint="Use one or the other.",
        )
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadInputError(
            f"Invalid JSON for --json-data: {error}",
            hint='Expected: {"samples": [{"id": 7, ...}]}.',
        ) from error
    samples = found.get("samples") if isinstance(found, dict) else None
    if not isinstance(samples, list):
        raise BadInputError(
            "Invalid value for --json-data: no list of samples",
            hint='Expected: {"samples": [{"id": 7, ...}]}.',
        )
    return samples
