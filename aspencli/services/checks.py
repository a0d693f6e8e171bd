"""Validation of text that operators enter; uses only the standard library."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from aspencli.errors import BadInputError
from aspencli.services.quoting import quote
from aspencli.services.stored_text import LONGEST_TEXT, email_flaw, identifier_flaw, name_flaw

_LARGEST_ID = 2**31 - 1  # PostgreSQL's integer, the type of every key in the schema
_ID = re.compile(r"0|[1-9][0-9]{0,9}")  # 0017 is a laboratory's identifier, not a key
# Control characters, surrogates (bytes that are not UTF-8), line and paragraph separators.
_FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
# These change the writing direction, so that one name can be displayed as another.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean_text(text: str, what: str) -> str:
    """Return the text without surrounding white space.

    Raises:
        BadInputError: The text is blank or contains an invisible character.
    """
    for char in text:
        if unicodedata.category(char) in _FORBIDDEN or char in _TURNING:
            raise BadInputError(
                f"{what} holds a character that cannot be seen: U+{ord(char):04X}",
                hint="Type it instead of pasting it.",
            )
    if not text.strip():
        raise BadInputError(f"{what} is blank", hint="Give at least one visible character.")
    return text.strip()


def clean_name(text: str, what: str) -> str:
    """Return a name to store, without surrounding white space.

    Raises:
        BadInputError: The name is blank, too long, or contains an invisible character.
    """
    return _stored(clean_text(text, what), what, name_flaw)


def clean_identifier(text: str, what: str) -> str:
    """Return an identifier to store, without surrounding white space.

    Raises:
        BadInputError: The identifier is blank, too long, or could be mistaken for another one.
    """
    return _stored(clean_text(text, what), what, lambda it: identifier_flaw(it, LONGEST_TEXT))


def clean_email(text: str) -> str:
    """Return the e-mail address without changing its letter case.

    Raises:
        BadInputError: The e-mail address is invalid.
    """
    email = clean_text(text, "the e-mail address")
    reason = email_flaw(email)
    if reason:
        raise BadInputError(
            f"Invalid e-mail address {quote(email)}: it {reason}",
            hint="Expected is something like ada@lab.example.org.",
        )
    return email


def clean_account(text: str) -> str:
    """Return the identity provider's ID of a user, such as ``auth0|5f7c8ec7c33c6c004bbafe82``.

    Raises:
        BadInputError: The ID is blank or contains white space.
    """
    account = clean_identifier(text, "the Auth0 user id")
    if any(char.isspace() for char in account):
        raise BadInputError(
            f"the Auth0 user id {account!r} holds white space",
            hint="Copy it from the user's page in Auth0; in a shell, put it in quotes.",
        )
    return account


def _stored(text: str, what: str, flaw: Callable[[str], str | None]) -> str:
    reason = flaw(text)
    if reason:
        raise BadInputError(f"{what} {reason}", hint="Type it instead of pasting it.")
    return text


def as_id(text: str) -> int | None:
    """Return the text as a database key, or None if it is not a valid one."""
    if not _ID.fullmatch(text) or int(text) > _LARGEST_ID:
        return None
    return int(text)
