"""The rules for all stored text: identifiers, e-mail addresses, and names.

They are the same on every path into the database or the service: files, options, and JSON. They
follow the Unicode data of the running Python, so messages can name the code point. A ``..._flaw``
function says what is wrong with a text; a ``clean_...`` function returns the text to store.

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

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from aspencli.errors import BadInputError
from aspencli.text import quote

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
# Single characters whose prototype in Unicode's confusables.txt (UTS #39) is ASCII, without those
# that NFKC replaces anyway and without ideographs and kana; and all dashes of category Pd.
_LOOKS_LIKE = {
    "!": "\u01c3\u2d51",
    '"': "\u02ee\u05f4\u201c\u201d\u201e\u201f\u2033",
    "&": "\ua778",
    "'": (
        "\u02b9\u02bb\u02bc\u02bd\u02be\u02c8\u02ca\u02cb\u02f4\u055a\u055d\u144a"
        "\u16cc\u2018\u2019\u201b\u2032\u2035\ua78c"
    ),
    "(": "\u2768\u2772\u3014\ufd3e",
    ")": "\u2769\u2773\u3015\ufd3f",
    "*": "\u204e\u2217\U0001031f",
    "+": "\u16ed\u2795\U0001029b",
    ",": "\u201a\ua4f9",
    "-": (
        "\u02d7\u058a\u05be\u1400\u1806\u2010\u2012\u2013\u2014\u2015\u2043\u2212"
        "\u2796\u2cba\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u2e5d\u3030\U00010ead"
    ),
    ".": "\u06f0\ua4f8\ua60e",
    "/": "\u1735\u2041\u2044\u2215\u2571\u27cb\u29f8\u2cc6\U0001d23a",
    "2": "\u01a7\u03e8\u14bf\ua644\ua6ef\ua75a",
    "3": "\u01b7\u021c\u0417\u04e0\u2ccc\ua76a\ua7ab\U000118ca\U00016f3b\U0001d206",
    "4": "\u13ce\U000118af",
    "5": "\u01bc\U000118bb",
    "6": "\u0431\u13ee\u2cd2\U000118d5",
    "7": "\U000104d2\U000118c6\U0001d212",
    "8": "\u0222\u0223\u09ea\u0a6a\U0001031a",
    "9": "\u09ed\u0a67\u0b68\u0d6d\u2cca\ua76e\U000118ac\U000118cc\U000118d6",
    ":": "\u02d0\u02f8\u0589\u16ec\u1803\u1809\u205a\u2236\ua4fd\ua789",
    "<": "\u02c2\u1438\u16b2\u2039\u276e\U0001d236",
    "=": "\ua4ff",
    ">": "\u02c3\u1433\u203a\u276f\U00016f3f\U0001d237",
    "?": "\u0241\u0294\u097d\u13ae\ua6eb",
    "A": "\u0391\u0410\u13aa\u15c5\ua4ee\U000102a0\U00016f40",
    "B": "\u0392\u0412\u13f4\u15f7\ua4d0\ua7b4\U00010282\U000102a1\U00010301",
    "C": (
        "\u0421\u13df\u2ca4\ua4da\U000102a2\U00010302\U00010415\U0001051c"
        "\U000118e9\U000118f2\U0001f74c"
    ),
    "D": "\u13a0\u15de\u15ea\ua4d3",
    "E": "\u0395\u0415\u13ac\u22ff\u2d39\ua4f0\U00010286\U000118a6\U000118ae",
    "F": ("\u03dc\u15b4\ua4dd\ua798\U00010287\U000102a5\U00010525\U000118a2\U000118c2\U0001d213"),
    "G": "\u050c\u13c0\u13f3\ua4d6",
    "H": "\u0397\u041d\u13bb\u157c\u2c8e\ua4e7\U000102cf",
    "J": "\u037f\u0408\u13ab\u148d\ua4d9\ua7b2",
    "K": "\u039a\u041a\u13e6\u16d5\u2c94\ua4d7\U00010518",
    "L": ("\u13de\u14aa\u2cd0\ua4e1\U0001041b\U00010526\U000118a3\U000118b2\U00016f16\U0001d22a"),
    "M": "\u039c\u03fa\u041c\u13b7\u15f0\u16d6\u2c98\ua4df\U000102b0\U00010311",
    "N": "\u039d\u2c9a\ua4e0\U00010513",
    "O": (
        "\u039f\u041e\u0555\u09e6\u0b20\u0b66\u12d0\u2c9e\u2d54\ua4f3\U00010292"
        "\U000102ab\U00010404\U000104c2\U00010516\U000114d0\U000118b5\U000118e0"
    ),
    "P": "\u03a1\u0420\u13e2\u146d\u2ca2\ua4d1\U00010295",
    "Q": "\u2d55",
    "R": "\u01a6\u13a1\u13d2\u1587\ua4e3\U000104b4\U00016f35\U0001d216",
    "S": "\u0405\u054f\u13d5\u13da\ua4e2\U00010296\U00010420\U00016f3a",
    "T": (
        "\u03a4\u0422\u13a2\u22a4\u27d9\u2ca6\ua4d4\U00010297\U000102b1\U00010315"
        "\U000118bc\U00016f0a\U0001f768"
    ),
    "U": "\u054d\u1200\u144c\u222a\u22c3\ua4f4\U000104ce\U000118b8\U00016f42",
    "V": ("\u0474\u06f7\u13d9\u142f\u2d38\ua4e6\ua6df\U0001051d\U000118a0\U00016f08\U0001d20d"),
    "W": "\u051c\u13b3\u13d4\ua4ea\U000118e6\U000118ef",
    "X": (
        "\u03a7\u0425\u166d\u16b7\u2573\u2cac\u2d5d\ua4eb\ua7b3\U00010290"
        "\U000102b4\U00010317\U00010322\U00010527\U000118ec"
    ),
    "Y": "\u03a5\u0423\u04ae\u13a9\u13bd\u2ca8\ua4ec\U000102b2\U000118a4\U00016f43",
    "Z": "\u0396\u13c3\ua4dc\U000102f5\U000118a9\U000118e5",
    "\\": "\u2216\u27cd\u29f5\u29f9\U0001d20f\U0001d23b",
    "^": "\u02c4\u02c6",
    "a": "\u0251\u03b1\u0430\u237a",
    "b": "\u0184\u042c\u13cf\u1472\u15af",
    "c": "\u0441\u1d04\u2ca5\uabaf\U0001043d",
    "d": "\u0501\u13e7\u146f\ua4d2",
    "e": "\u0435\u04bd\u212e\uab32",
    "f": "\u0584\u1e9d\ua799\uab35",
    "g": "\u018d\u0261\u0581\u1d83",
    "h": "\u04bb\u0570\u13c2",
    "i": "\u0131\u0269\u026a\u03b9\u0456\u04cf\u13a5\u2373\ua647\uab75\U000118c3",
    "j": "\u03f3\u0458",
    "l": (
        "\u0196\u01c0\u0399\u0406\u04c0\u06f1\u16c1\u2223\u23fd\u2c92\u2d4f\ua4f2"
        "\U0001028a\U00010309\U00010320\U00016f28"
    ),
    "n": "\u0578\u057c",
    "o": (
        "\u03bf\u03c3\u043e\u0585\u06f5\u0966\u0a66\u0ae6\u0be6\u0c66\u0ce6\u0d20"
        "\u0d66\u0e50\u0ed0\u101d\u1040\u10ff\u1d0f\u1d11\u2c9f\uab3d\U0001042c"
        "\U000104ea\U000118c8\U000118d7"
    ),
    "p": "\u03c1\u0440\u2374\u2ca3",
    "q": "\u051b\u0563\u0566",
    "r": "\u0433\u1d26\u2c85\uab47\uab48\uab81",
    "s": "\u01bd\u0455\ua731\uabaa\U00010448\U000118c1",
    "u": "\u028b\u03c5\u057d\u1d1c\ua79f\uab4e\uab52\U000104f6\U000118d8",
    "v": "\u03bd\u0475\u1d20\u2228\u22c1\uaba9\U00011706\U000118c0",
    "w": "\u026f\u0461\u051d\u0561\u1d21\uab83\U0001170a\U0001170e\U0001170f",
    "x": "\u00d7\u0445\u1541\u157d\u166e\u292b\u292c\u2a2f",
    "y": "\u0263\u028f\u03b3\u0443\u04af\u10e7\u1d8c\u1eff\uab5a\U000118dc",
    "z": "\u1d22\uab93\U000118c4",
    "{": "\u2774\U0001d114",
    "}": "\u2775",
    "~": "\u2053\u223c",
}
_LOCAL_PART = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+")
_LABEL = re.compile(r"[^\W_]+(?:-+[^\W_]+)*")
_NO_EMAIL = "is not a valid e-mail address (example: ada@lab.example.org)"
_LARGEST_ID = 2**31 - 1  # PostgreSQL's integer, the type of every key in the schema
_ID = re.compile(r"0|[1-9][0-9]{0,9}")  # 0017 is a laboratory's identifier, not a key
# Control characters, surrogates (bytes that are not UTF-8), line and paragraph separators.
_FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
# These change the writing direction, so that one name can be displayed as another.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class UnusualCharacter(NamedTuple):
    """A character that a text may not contain.

    Attributes:
        place: Its position, from 0.
        char: The character.
        why: What is wrong with it, as the end of a sentence.
    """

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
    return {char: plain for plain, chars in _LOOKS_LIKE.items() for char in chars}


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
