"""The results that an assistant gets: limited, with personal data replaced, and what was left out.

Equal values have equal replacements while the server runs, so an assistant can still tell that two
samples or two people are the same. The key for that is created when the server starts, and kept
nowhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aspencli.changes.masking import masked_text
from aspencli.cli.assistant.tools import MOST_ROWS, Listed
from aspencli.text import counted, visible

MOST_CHARACTERS = 40_000
"""The characters of a result, about 10,000 tokens."""
PERSONAL = frozenset(
    {
        *("private_identifier", "email", "auth0_user_id", "gisaid_submitter_id", "uploaded_by"),
        *("authors", "sample_collector_contact_email", "sample_collector_contact_address"),
        *("original_submission", "matched_private_identifier"),
    }
)
"""The keys with personal data in the results of every command."""
_SQL_KEYS = frozenset({"query", "statement"})  # of other sessions, with the values in them
_LONGEST = 4_000  # characters of one text
_USER, _DOMAIN = r"(?P<user>[\w.+%'-]+)", r"@(?P<domain>[\w-]+(?:\.[\w-]+)+)"
_EMAIL = re.compile(_USER + _DOMAIN)
# A word that has no domain is found too, so that a long one, such as a sequence, is read only once.
_WORD = re.compile(f"{_USER}(?:{_DOMAIN})?")
_QUOTED = re.compile(r'"([^"\n]*)"')
_NAMED_VALUES = re.compile(r"\([^()]*\)=\([^()]*\)")
_ALL_ROWS = "Show all with "
_NEXT_PAGE = re.compile(r"--after (\d+)")
_INNER = frozenset({"DETAIL", "CONTEXT", "WHERE"})


@dataclass
class Masking:
    """The replacement of personal data."""

    is_off: bool = False
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def rows(self, value: Any, listed: Listed) -> Any:
        """Return a result without personal data."""
        return self._inside(value, listed.personal, "")

    def text(self, text: str) -> str:
        """Return a text without e-mail addresses; control characters are made visible."""
        return self._without_addresses("\n".join(map(visible, text.split("\n"))))

    def _without_addresses(self, text: str) -> str:
        return text if self.is_off else _WORD.sub(self._address, text)

    def error(self, text: str, sql: str) -> str:
        """Return an error of the database without values that the statement itself does not have.

        An error may quote a value of a row, such as ``invalid input syntax for type integer: "x"``.
        """
        if self.is_off:
            return self.text(text)
        lines = [line for line in text.split("\n") if line.split(":")[0].strip() not in _INNER]
        known = sql.lower()

        def masked(found: re.Match[str]) -> str:
            return found[0] if found[1].lower() in known else '"***"'

        return self.text(_NAMED_VALUES.sub("(***)", _QUOTED.sub(masked, "\n".join(lines))))

    def _inside(self, value: Any, keys: Collection[str], above: str) -> Any:
        if isinstance(value, dict):
            return {key: self._of(key, each, keys, above) for key, each in value.items()}
        if isinstance(value, list):
            return [self._inside(each, keys, above) for each in value]
        # JSON escapes control characters itself.
        return self._without_addresses(value) if isinstance(value, str) else value

    def _of(self, key: str, value: Any, keys: Collection[str], above: str) -> Any:
        if key in _SQL_KEYS and isinstance(value, str):
            from aspencli.changes.masking import masked_sql

            return value if self.is_off else masked_sql(value, placeholders=True)
        if not self.is_off and (key in PERSONAL or f"{above}.{key}".lstrip(".") in keys):
            return self._replaced(value)
        return self._inside(value, keys, key)

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._replaced(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._replaced(each) for each in value]
        if value is None or isinstance(value, bool) or value == "":
            return value
        if isinstance(value, str) and _EMAIL.fullmatch(value):
            return self._without_addresses(value)
        return f"masked-{self._digest(str(value))}"

    def _address(self, found: re.Match[str]) -> str:
        if found["domain"] is None:
            return found[0]
        return f"masked-{self._digest(found['user'].lower())}@{found['domain']}"

    def _digest(self, text: str) -> str:
        return hmac.new(self._key, text.encode(errors="replace"), hashlib.sha256).hexdigest()[:10]


@dataclass(frozen=True)
class Answer:
    """The result of a tool: a text for the assistant, and notes about it."""

    text: str
    notes: tuple[str, ...] = ()


def answer_of(output: str, listed: Listed, masking: Masking) -> Answer:
    """Return the answer for a command's output, and what was left out of it."""
    try:
        found = json.loads(output)
    except ValueError:
        return _of_text(masking.text(output), ends=listed.ends)
    rows = masking.rows(found, listed)
    if not isinstance(rows, list):
        return _of_text(_as_json(_cut(rows)), ends=False)
    return _of_rows(rows)


def _of_rows(rows: Sequence[Any]) -> Answer:
    lines: list[str] = []
    size = 0
    for row in rows[:MOST_ROWS]:
        line = _as_json(_cut(row))
        size += len(line) + 2
        if lines and size > MOST_CHARACTERS:
            break
        lines.append(line)
    text = "[" + ",\n".join(lines) + "]"
    if len(text) > MOST_CHARACTERS:  # a single row
        return _of_text(text, ends=False)
    if len(lines) == len(rows):
        return Answer(text)
    left = len(rows) - len(lines)
    note = (
        f"{len(lines):,} of {counted(len(rows), 'row')} shown; {left:,} left out (a result has at "
        f"most {MOST_ROWS} rows and {MOST_CHARACTERS:,} characters). Narrow the request, or pass "
        "a smaller limit and the argument after, if there are such arguments."
    )
    return Answer(text, (note,))


def _of_text(text: str, *, ends: bool) -> Answer:
    left = len(text) - MOST_CHARACTERS
    if left <= 0:
        return Answer(text)
    kept = text[-MOST_CHARACTERS:] if ends else text[:MOST_CHARACTERS]
    which = "first" if ends else "last"
    return Answer(kept, (f"The {which} {left:,} of {len(text):,} characters were left out.",))


def _cut(value: Any) -> Any:
    """Return a value with its long texts cut, which say how long they were."""
    if isinstance(value, dict):
        return {key: _cut(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_cut(each) for each in value]
    if isinstance(value, str) and len(value) > _LONGEST:
        return f"{value[:_LONGEST]}... ({len(value):,} characters)"
    return value


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def note_lines(notes: Sequence[Mapping[str, Any]], masking: Masking) -> Iterator[str]:
    """Yield the messages of a command for the assistant."""
    for note in notes:
        if note["kind"] == "hint" and _ALL_ROWS in note["text"]:  # by options that it has not
            if page := _NEXT_PAGE.search(note["text"]):
                yield f"For the next page, pass after: {page[1]}"
            continue
        lead = "Warning: " if note["kind"] == "warn" else ""
        yield masking.text(f"{lead}{masked_text(note['text'])}")
