"""What may stand in a text that an operator gives; the standard library only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from aspencli.errors import BadInputError
from aspencli.services.quoting import quote
from aspencli.services.stored_text import LONGEST_TEXT, email_flaw, identifier_flaw, name_flaw

_LARGEST_ID = 2**31 - 1  # PostgreSQL's integer, which every key of the schema is
_ID = re.compile(r"0|[1-9][0-9]{0,9}")  # 0017 is an identifier of a laboratory, not a key
# Controls, halves of surrogate pairs (bytes that are no UTF-8), line and paragraph separators.
_FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
# They turn the direction of writing, and so show one name as another.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean_text(text: str, what: str) -> str:
    """The text without surrounding white space.

    Raises:
        BadInputError: It is blank, or holds a character that cannot be seen.
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
    """Return a name that is to be stored, without surrounding white space.

    Raises:
        BadInputError: It is blank, or contains what cannot be seen.
    """
    return _stored(clean_text(text, what), what, name_flaw)


def clean_identifier(text: str, what: str) -> str:
    """Return an identifier that is to be stored, without surrounding white space.

    Raises:
        BadInputError: It is blank, or cannot be told from another one.
    """
    return _stored(clean_text(text, what), what, lambda it: identifier_flaw(it, LONGEST_TEXT))


def clean_email(text: str) -> str:
    """Return the e-mail address, in the case that it was given in.

    Raises:
        BadInputError: It is not an e-mail address.
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
    """The identity provider's name for a user, such as ``auth0|5f7c8ec7c33c6c004bbafe82``.

    Raises:
        BadInputError: It is blank, or holds white space.
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
    """The text as a key of the database; None when it cannot be one."""
    if not _ID.fullmatch(text) or int(text) > _LARGEST_ID:
        return None
    return int(text)
