"""Text: how it is shown to people and in files, and what may be stored.

The rules for stored text are the same on every path into the database or the service: files,
options, and JSON. They follow the Unicode data of the running Python, so messages can name the code
point. A ``..._flaw`` function says what is wrong with a text; a ``clean_...`` function returns the
text to store.

- **Identifiers** (of samples, of accounts at the identity provider, and group prefixes): every
  character must be visible and distinguishable from all others. Rejected are control, format,
  private-use, and unassigned characters; spaces other than U+0020; characters that Unicode's
  compatibility normalization (NFKC) would replace, such as fullwidth letters, ligatures, and
  superscripts; dashes and quotation marks other than those of ASCII; and letters of another script
  that look like Latin ones. Letters of any script are fine in words of that script.
- **Names** (of people, groups, places, runs): any script, accents, and typographic apostrophes are
  fine. Rejected are invisible characters: control and format characters and unusual spaces.
  Exceptions are joiners where a script needs them (Persian, Indic scripts, emoji), variation
  selectors after the character they modify, and the ideographic space between two ideographs.
- **E-mail addresses**: one ``@``; before it letters, digits, and ``.!#$%&'*+/=?^_`{|}~-``; after it
  two or more labels of letters, digits, and hyphens; all characters must be valid in identifiers.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, NamedTuple

from aspencli.errors import BadInputError, NotFoundError

# C0 and C1 controls, line separators, and bidirectional marks: any of them could move the
# cursor, color the screen, or make one identifier look like another.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]"
)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
# The apostrophe is added so that `unguard` can tell which ones `guard` added.
_GUARDED = (*FORMULA_STARTS, "'")
_WHITE = "\t\n\r"
_encode = json.JSONEncoder(ensure_ascii=False).encode
_encode_ascii = json.JSONEncoder().encode
# In JSON no line break is in a text, so this one separates the values of a list.
_encode_lines = json.JSONEncoder(ensure_ascii=False, separators=("\n", ": ")).encode
_encode_ascii_lines = json.JSONEncoder(separators=("\n", ": ")).encode
_SHOWN = 80  # characters

LONGEST = 128
"""The maximum length of an identifier, which is also the limit of the service's API."""
LONGEST_TEXT = 1_000
"""The maximum length of other texts, which is the service's limit for the longest of them."""
_LONGEST_EMAIL = 254  # RFC 5321's limit for a path, minus its angle brackets
_CONTROL_NAMES = {
    0x00: "a NUL",
    0x09: "a tab",
    0x0A: "a line feed",
    0x0D: "a carriage return",
    0x1B: "an escape character",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LOST = "\ufffd"
# Characters that Python considers printable although they show nothing: Unicode's
# Default_Ignorable_Code_Point outside category Cf, and the blank braille pattern.
_BLANK_RANGES = (
    *((0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180D), (0x180F, 0x180F)),
    *((0x2800, 0x2800), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF)),
)
_BLANK = re.compile(
    "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _BLANK_RANGES) + "]"
)
_JOINERS = "\u200c\u200d"
_IDEOGRAPHIC_SPACE = "\u3000"
_LOCAL_PART = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+")
_LABEL = re.compile(r"[^\W_]+(?:-+[^\W_]+)*")
_NO_EMAIL = "is not a valid e-mail address (example: ada@lab.example.org)"
_LARGEST_ID = 2**31 - 1  # PostgreSQL's integer, the type of every key in the schema
_ID = re.compile(r"0|[1-9][0-9]{0,9}")  # 0017 is a laboratory's identifier, not a key
# Control characters, surrogates (bytes that are not UTF-8), line and paragraph separators.
_FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
# These change the writing direction, so that one name can be displayed as another.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


# Text for people and in files


def visible(text: str) -> str:
    """Return the text with control characters escaped: ESC becomes four visible characters."""
    if text.isprintable():  # true of nearly all text, and fast to check
        return text
    return _UNSAFE.sub(lambda match: _escape(match[0]), text)


def local_time(seconds: float) -> str:
    """Return a Unix timestamp as local time, to the minute."""
    return f"{dt.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"


def quote(text: str) -> str:
    """Return a text quoted for use in messages."""
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return json.dumps(shown, ensure_ascii=False)


def sql_name(name: str) -> str:
    """Return a name as an SQL identifier, quoted if necessary."""
    plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name)
    return name if plain else '"' + name.replace('"', '""') + '"'


def csv_cell(text: str) -> str:
    """Return the text as one CSV cell (RFC 4180), without terminal control characters.

    Line breaks and tabs are kept, inside quotes; `csv.writer` leaves a bare carriage return
    unquoted, which no reader accepts.
    """
    if not text.isprintable():
        text = _UNSAFE.sub(lambda m: m[0] if m[0] in _WHITE else _escape(m[0]), text)
    if "," in text or '"' in text or "\n" in text or "\r" in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """Return the value as JSON on one line, without terminal control characters.

    Escaped text reads back unchanged. The value must consist of JSON types.
    """
    text = _encode_ascii(value) if ascii_only else _encode(value)
    return (
        text if text.isprintable() else _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    )


def json_document(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Return the value as JSON, perhaps indented, without terminal control characters."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    return _UNSAFE.sub(
        lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text
    )


def json_texts(values: Sequence[Any], *, ascii_only: bool = False) -> list[str]:
    """Return each of the values as `json_text` does, but many times as fast."""
    whole = (_encode_ascii_lines if ascii_only else _encode_lines)(values)[1:-1]
    texts = whole.split("\n")
    if len(texts) == len(values) and "".join(texts).isprintable():
        return texts
    # The values inside a list or an object are also separated by line breaks.
    return [json_text(value, ascii_only=ascii_only) for value in values]


def no_formula(text: str) -> str:
    """Return the text, with an apostrophe before a spreadsheet formula (OWASP)."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def guard(text: str) -> str:
    """Return the text, prefixed with an apostrophe if a spreadsheet would evaluate it."""
    return f"'{text}" if text.startswith(_GUARDED) else text


def unguard(text: str) -> str:
    """Return the text that was passed to `guard`."""
    return text[1:] if text.startswith("'") and text.startswith(_GUARDED, 1) else text


def counted(number: int, noun: str) -> str:
    """Return a count and its noun, in the plural where needed."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def size_text(size: int) -> str:
    """Return a number of bytes in a readable unit: ``7.4 MB`` (powers of 1,000)."""
    amount, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1_000:  # noqa: PLR2004 - the step from unit to unit
            break
        amount, unit = amount / 1_000, larger
    return f"{size} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """Return a duration in readable units: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``5 h 02 min``."""
    if seconds < 10:  # noqa: PLR2004 - below it the tenths matter
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def not_found(noun: str, key: str, known: Iterable[str]) -> NotFoundError:
    """Return an error that suggests similar names and lists the existing ones."""
    names = sorted(known)
    near = nearest(key, names)
    lead = f"Did you mean {' or '.join(near)}? " if near else ""
    return NotFoundError(
        f"No such {noun}: {key!r}",
        hint=f"{lead}Choose from: {', '.join(names)}." if names else "There are none.",
    )


def nearest(key: str, names: Sequence[str]) -> list[str]:
    """Return the names that resemble the key, best first, then those that contain it."""
    folded = {name.lower(): name for name in names}
    near = get_close_matches(key.lower(), folded, n=3)
    near += [name for name in folded if key.lower() in name and name not in near][:3]
    return [folded[name] for name in near]


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


# Stored text


class UnusualCharacter(NamedTuple):
    """A character that a text may not contain, its position from 0, and why not."""

    place: int
    char: str
    why: str

    def __str__(self) -> str:
        return f"{code_point(self.char)} at position {self.place + 1}, {self.why}"


def code_point(char: str) -> str:
    """Return a character's code point and name: ``U+200B ZERO WIDTH SPACE``."""
    name = unicodedata.name(char, "")
    return f"U+{ord(char):04X}" + (f" {name}" if name else "")


def identifier_flaw(text: str, longest: int = LONGEST) -> str | None:
    """Return what is wrong with an identifier, as the end of a sentence; None if valid."""
    if text.isprintable() and 0 < len(text) <= longest and _LOST not in text:
        return _contains(unusual_in_identifier(text))
    return line_flaw(text, longest) or _contains(unusual_in_identifier(text))


def name_flaw(text: str, longest: int = LONGEST_TEXT) -> str | None:
    """Return what is wrong with a name or other display text; None if valid."""
    return line_flaw(text, longest) or _contains(unusual_in_name(text))


def email_flaw(text: str) -> str | None:
    """Return what is wrong with an e-mail address; None if valid."""
    reason = line_flaw(text, LONGEST_TEXT)
    if reason:
        return reason
    if text.lower().startswith("mailto:"):
        return "starts with 'mailto:'; use only the address"
    reason = _contains(unusual_in_identifier(text))
    if reason:
        return reason
    local, _at, domain = text.rpartition("@")
    labels = domain.split(".")
    is_address = (
        len(text) <= _LONGEST_EMAIL
        and _LOCAL_PART.fullmatch(local)
        and not (local.startswith((".", "'")) or local.endswith(".") or ".." in local)
        and len(labels) > 1
        and all(map(_LABEL.fullmatch, labels))
    )
    return None if is_address else _NO_EMAIL


def line_flaw(text: str, longest: int = LONGEST) -> str | None:
    """Return why a text is not a valid one-line value, stored or searched for; None if valid."""
    if not text:
        return "is blank"
    control = _CONTROL.search(text)
    if control:
        code = ord(control[0])
        name = _CONTROL_NAMES.get(code, "a control character")
        return f"contains {name} (U+{code:04X}) at position {control.start() + 1}"
    if _LOST in text:
        return (
            "contains a replacement character (U+FFFD): an earlier conversion lost a letter there"
        )
    if len(text) > longest:
        return f"is too long: {len(text)} characters (maximum {longest})"
    return None


def unusual_in_identifier(text: str) -> list[UnusualCharacter]:
    """Return the characters of an identifier that are invisible or look like others."""
    if text.isascii():
        return []
    if (
        text.isprintable()
        and unicodedata.is_normalized("NFKC", text)
        and _suspects().isdisjoint(text)
    ):
        return []
    return list(_unusual_in_identifier(text))


def _unusual_in_identifier(text: str) -> Iterator[UnusualCharacter]:
    scripts = {_script(char) for char in text if char.isalpha() and char not in _alike()}
    for place, char in enumerate(text):
        if char.isascii():
            continue
        why = _invisibility(char)
        if why is None and char in _alike() and not _belongs(text, place, scripts):
            why = f"which looks like {_alike()[char]!r}"
        if why is None and not unicodedata.is_normalized("NFKC", char):
            why = f"which looks like {folded(char)!r}"
        if why is not None:
            yield UnusualCharacter(place, char, why)
    if not unicodedata.is_normalized("NFC", text):
        for place in range(1, len(text)):
            pair = text[place - 1 : place + 1]
            if unicodedata.combining(pair[1]) and not unicodedata.is_normalized("NFC", pair):
                whole = unicodedata.normalize("NFC", pair)
                yield UnusualCharacter(
                    place, pair[1], f"which looks the same as {code_point(whole[0])}"
                )


def _belongs(text: str, place: int, scripts: set[str]) -> bool:
    """Return True if a letter is part of a word in its own script without Latin letters."""
    if not text[place].isalnum() or _script(text[place]) not in scripts:
        return False
    start, end = place, place + 1
    while start > 0 and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum():
        end += 1
    return not any(char.isalpha() and _script(char) == "LATIN" for char in text[start:end])


def unusual_in_name(text: str) -> list[UnusualCharacter]:
    """Return the characters of a name that are invisible or have no defined appearance."""
    if text.isascii() or (text.isprintable() and not _BLANK.search(text)):
        return []
    return [
        UnusualCharacter(place, char, why)
        for place, char in enumerate(text)
        if (why := _invisibility(char)) is not None and not _is_needed(text, place)
    ]


def _is_needed(text: str, place: int) -> bool:
    """Return True if a script or an emoji requires this invisible character at this position."""
    char, before = text[place], text[place - 1 : place]
    after = text[place + 1 : place + 2]
    if char == _IDEOGRAPHIC_SPACE:
        return _kind(before) == "Lo" and _kind(after) == "Lo"
    if char in _JOINERS:
        if _kind(before) in {"So", "Sk"} or before == "\ufe0f":
            return _kind(after) == "So"
        return _is_joined(before) and _is_joined(after)
    if _BLANK.match(char) and unicodedata.category(char) == "Mn":
        return _kind(before) in {"Lo", "So"}
    return False


def _is_joined(char: str) -> bool:
    """Return True for letters and marks of scripts in which joiners change the form of a word."""
    return _kind(char) in {"Lo", "Mn", "Mc"} and not char.isascii()


def _kind(char: str) -> str:
    return unicodedata.category(char) if char else ""


def _invisibility(char: str) -> str | None:
    kind = unicodedata.category(char)
    if kind == "Zs" and char != " ":
        return "which looks like a space"
    if kind in {"Cf", "Zl", "Zp"} or _BLANK.match(char):
        return "which is invisible"
    if kind == "Cc":
        return "which is a control character"
    if kind in {"Co", "Cs"}:
        return "which has no meaning outside the program that wrote it"
    return "which is not assigned in Unicode" if kind == "Cn" else None


def strip_invisible(text: str) -> tuple[str, list[str]]:
    """Return the text without invisible characters, and those removed; line breaks are kept."""
    if text.isprintable() and not _BLANK.search(text):
        return text, []
    unseen = [char for char in text if _invisibility(char) == "which is invisible"]
    return "".join(char for char in text if char not in unseen), unseen


def folded(text: str) -> str:
    """Return the text with look-alikes replaced by ASCII and invisible characters removed."""
    plain = unicodedata.normalize("NFKC", text)
    seen = (
        _alike().get(char, char)
        for char in plain
        if char == " " or _invisibility(char) in {None, "which looks like a space"}
    )
    return "".join(" " if unicodedata.category(char) == "Zs" else char for char in seen).strip()


@cache
def _alike() -> dict[str, str]:
    """Return the ASCII character that each look-alike resembles."""
    from importlib.resources import files

    table = files("aspencli").joinpath("look_alikes.txt").read_text("utf-8").splitlines()
    rows = [line.split(" ") for line in table if not line.startswith("# ")]
    return {chr(int(code, 16)): plain for plain, *codes in rows for code in codes}


@cache
def _suspects() -> frozenset[str]:
    # A set is faster: a regular expression tests characters beyond U+FFFF one at a time.
    blank = {chr(code) for first, last in _BLANK_RANGES for code in range(first, last + 1)}
    return frozenset(_alike()) | blank


def _script(char: str) -> str:
    return unicodedata.name(char, "").partition(" ")[0]


def _contains(odd: list[UnusualCharacter]) -> str | None:
    if not odd:
        return None
    more = len(odd) - 1
    return f"contains {odd[0]}" + (f" (and {more} more)" if more else "")


def clean_text(text: str, what: str) -> str:
    """Return the text without surrounding white space.

    Raises:
        BadInputError: The text is blank or contains an invisible character.
    """
    for char in text:
        if unicodedata.category(char) in _FORBIDDEN or char in _TURNING:
            raise BadInputError(
                f"{_title(what)} contains an invisible character: U+{ord(char):04X}",
                hint="Type it instead of pasting it.",
            )
    if not text.strip():
        raise BadInputError(
            f"{_title(what)} is blank.", hint="Give at least one visible character."
        )
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
            f"Invalid e-mail address: {quote(email)}"
            + ("" if reason == _NO_EMAIL else f" {reason}"),
            hint="Use an address such as ada@lab.example.org.",
        )
    return email


def clean_account(text: str) -> str:
    """Return the identity provider's ID of a user, such as ``auth0|5f7c8ec7c33c6c004bbafe82``.

    Raises:
        BadInputError: The ID is blank or contains white space.
    """
    account = clean_identifier(text, "the Auth0 user ID")
    if any(char.isspace() for char in account):
        raise BadInputError(
            f"The Auth0 user ID {account!r} contains white space.",
            hint="Copy it from the user's page in Auth0. In a shell, put it in quotes.",
        )
    return account


def _stored(text: str, what: str, flaw: Callable[[str], str | None]) -> str:
    reason = flaw(text)
    if reason:
        raise BadInputError(f"{_title(what)} {reason}.", hint="Type it instead of pasting it.")
    return text


def _title(what: str) -> str:
    """Return the subject of a sentence as its beginning; names of settings stay as they are."""
    return f"The {what[4:]}" if what.startswith("the ") else what


def as_id(text: str) -> int | None:
    """Return the text as a database key, or None if it is not a valid one."""
    if not _ID.fullmatch(text) or int(text) > _LARGEST_ID:
        return None
    return int(text)
