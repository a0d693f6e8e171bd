"""Command lines and statements without secrets, as the run log keeps them.

The log is kept for years, and that of a remote target is in a bucket that can only grow. So when in
doubt, a word is masked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

MASK = "***"
_LONGEST_WORD = 200  # characters; a sequence has 30,000
_LONGEST_SQL = 2_000
_READ_SQL = 20_000  # characters of a statement to look at
# These match from the start of a word only, and go through it once: otherwise a sequence of 30,000
# letters takes 10 s.
_NAME = (
    r"(?=[\w-]*?(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key"
    r"|private[_-]?key|cookie|credential|signature|authorization))[\w-]++"
)
_SECRET_OPTION = re.compile(rf"--?{_NAME}", re.IGNORECASE)
_NAMED = re.compile(
    rf"""(?P<name>(?<![\w-]){_NAME}["']?\s*[=:]\s*)"""
    r"""(?P<value>"[^"]*"?|'[^']*'?|[^\s&;,]+)""",
    re.IGNORECASE,
)
# Passwords may contain any of the characters that end other parts of an address.
_ADDRESS = re.compile(
    r"(?<![\w+.-])(?P<scheme>[\w+.-]+://)(?P<user>[^\s/:@?#]*)(?P<password>:\S*)?@"
)
# No possessive group: Python 3.11.2 matches it wrongly, and the token would be shown.
_KNOWN = re.compile(
    r"""-----BEGIN[ ][\s\S]*
      | (?<![\w-])(?P<before>(?:(?!\beyJ)[\w-])*)\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?  # JSON web tokens
      | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b               # AWS access keys
      | \b(?:gh[a-z]|github_pat|xox[a-z]|sk|pk|rk|glpat|hf|v1)[._-][\w.-]{16,}
    """,
    re.VERBOSE,
)
# Long runs of small and capital letters with digits: client secrets, refresh tokens, and the secret
# keys of AWS, which may have slashes.
_RANDOM = re.compile(
    r"(?<![\w/.+-])(?:[\w+=-]{32,}|[A-Za-z0-9+][A-Za-z0-9/+]{39})(?![\w/.+-])", re.ASCII
)
_SQL_OPTIONS = frozenset({"-c", "--command", "--sql"})
_CODE_OPTIONS = frozenset({"-c", "--command"})
_VARIABLE_OPTIONS = frozenset({"-v", "--set", "--variable"})  # of psql
# Options that psql takes together with others, as in -Atc, and the first with a value.
_CLUSTER = re.compile(r"-(?P<flags>[aAbeEHlnqsStwWxXz01]*)(?P<option>[cv])(?P<value>.*)", re.DOTALL)
_VALUE = re.compile(r"%\([^)]*\)s|%s|\$[0-9]+|[0-9][0-9_.]{0,9}")
_WITH_CODE = frozenset({"DO", "CREATE"})


def masked_words(words: Sequence[str]) -> list[str]:
    """Return a command line without secrets, and without long values."""
    is_psql = "psql" in words or "remote-pgconsole" in words
    masked: list[str] = []
    awaits: str | None = None  # the option whose value is the next word
    for word in words:
        option, value, shown = _parsed(word, is_psql=is_psql)
        is_value = awaits is not None and not (option and _SECRET_OPTION.fullmatch(awaits))
        if awaits is not None and is_value:
            masked.append(_masked_value(awaits, word, is_psql=is_psql))
            awaits = None
        elif option is None:
            masked.append(masked_text(word))
            awaits = None
        else:
            is_whole = value is not None
            masked.append(shown + _masked_value(option, value or "", is_psql=is_psql) * is_whole)
            awaits = None if is_whole else option
    return masked


def _parsed(word: str, *, is_psql: bool) -> tuple[str | None, str | None, str]:
    """Return an option whose value may have to be masked, the value in the same word, and the rest.

    The option is None for any other word.
    """
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        is_hidden = name in _SQL_OPTIONS | _VARIABLE_OPTIONS or _SECRET_OPTION.fullmatch(name)
        return (name if is_hidden else None, value if equals else None, name + equals)
    if is_psql and (found := _CLUSTER.fullmatch(word)):
        attached = str(found["value"])
        return f"-{found['option']}", attached or None, word.removesuffix(attached)
    if word.startswith("-c"):
        return "-c", word[2:] or None, "-c"
    return (word if _SECRET_OPTION.fullmatch(word) else None, None, word)


def _masked_value(option: str, value: str, *, is_psql: bool) -> str:
    if option in _VARIABLE_OPTIONS:
        name, equals, _ = value.partition("=")
        return f"{masked_text(name)}={MASK}" if equals else masked_text(name)
    if option in _CODE_OPTIONS and not is_psql:
        digest = hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()[:16]
        return f"({len(value):,} characters of code, SHA-256 {digest}...)"
    return masked_sql(value) if option in _SQL_OPTIONS else MASK


def masked_text(text: str) -> str:
    """Return a text without what looks like a secret, and cut if it is long."""
    text = _ADDRESS.sub(
        lambda found: f"{found['scheme']}{found['user']}{':' + MASK if found['password'] else ''}@",
        text,
    )
    text = _NAMED.sub(lambda found: found["name"] + MASK, text)
    text = _KNOWN.sub(lambda found: (found["before"] or "") + MASK, text)
    text = _RANDOM.sub(lambda found: MASK if _is_random(found[0]) else found[0], text)
    return _cut(text, _LONGEST_WORD)


def _is_random(text: str) -> bool:
    kinds = (str.islower, str.isupper, str.isdigit)
    return all(any(map(kind, text)) for kind in kinds)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters)"


def masked_sql(text: str, *, placeholders: bool = False) -> str:
    """Return statements without texts, long numbers, and comments, and cut if they are long.

    Names, placeholders, and numbers stay, such as the ID of a row.

    Args:
        text: The statements.
        placeholders: True if they may contain placeholders of drivers.
    """
    words = text.lstrip()
    if words.startswith("\\"):  # a command of psql, whose words may be a password
        return f"{words.split(maxsplit=1)[0]} ..."
    whole = len(text)
    shown = "".join(_pieces(text[:_READ_SQL], placeholders=placeholders)).strip()
    if len(shown) > _LONGEST_SQL or whole > _READ_SQL:
        return f"{shown[:_LONGEST_SQL]}... ({whole:,} characters)"
    return shown


def _pieces(text: str, *, placeholders: bool) -> Iterator[str]:
    from aspen.database.driver import tokens  # imports psycopg2

    first, in_gap = "", False
    for kind, piece, _start in tokens(text, placeholders=placeholders):
        if kind == "gap":
            yield "" if in_gap else " "
        elif kind != "value" or _VALUE.fullmatch(piece):
            yield piece
            first = first or piece.upper()
        elif piece.startswith("$") and first in _WITH_CODE:
            tag = piece[: piece.index("$", 1) + 1]
            inner = piece[len(tag) :].removesuffix(tag)
            yield f"{tag}{''.join(_pieces(inner, placeholders=placeholders))}{tag}"
        else:
            yield "'...'" if "'" in piece or piece.startswith("$") else "..."
        if piece == ";":
            first = ""
        in_gap = kind == "gap"
