"""A check of a command's JSON output against the schema that ``aspencli schema`` prints.

The runners of commands in tests apply it to every run with ``-o json`` or ``-o jsonl``.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from aspencli.cli.app import GLOBAL_OPTIONS, find_command
from aspencli.cli.context import AppContext
from aspencli.cli.main import command
from aspencli.cli.output.formats import results_of
from aspencli.cli.schemas import schema_of

_MOST = 100  # rows that are validated, which takes 0.3 ms each
_CHANGED = ("--columns", "--jq", "--template")  # with these, the output is another
_FORMATS = FormatChecker(formats=())


def _is_day(value: object) -> bool:
    return not isinstance(value, str) or bool(dt.date.fromisoformat(value))


def _is_moment(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return "T" in value and bool(dt.datetime.fromisoformat(value))


_FORMATS.checks("date", ValueError)(_is_day)
_FORMATS.checks("date-time", ValueError)(_is_moment)

_WITH_VALUE = {n for option in GLOBAL_OPTIONS if option.metavar for n in option.names}

Words = tuple[str, ...]


@functools.cache
def _root() -> Any:
    root = command()
    return root.context_class(root, info_name="aspencli", obj=AppContext())


def command_words(arguments: Sequence[str]) -> Words:
    """Return the words of a command line that call the command; empty if there are none."""
    found: list[str] = []
    context = _root()
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if not hasattr(context.command, "list_commands"):
            break
        if argument.startswith("-") or before in _WITH_VALUE:
            continue
        try:
            inner = find_command(context, [argument])
        except Exception:  # noqa: BLE001 - the value of an option, or a misspelled command
            continue
        found.append(inner.command.name or argument)
        context = inner
    return ("history", "list") if found == ["history"] else tuple(found)


@functools.cache
def validator_of(words: Words) -> Draft202012Validator | None:
    """Return the validator for a command's JSON output; None if it has no schema."""
    context = find_command(_root(), words)
    results = results_of(context.command) if words else None
    if results is None:
        return None
    schema = schema_of(results, context.command_path)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=_FORMATS)


def asked_form(arguments: Sequence[str]) -> str | None:
    """Return ``json`` or ``jsonl`` if that was asked for and nothing else changes the output."""
    if any(word.startswith(_CHANGED) for word in arguments) or "--" in arguments:
        return None
    for form in ("json", "jsonl"):
        for words in (("-o", form), ("--output", form)):
            if words in pairwise(arguments):
                return form
    return None


def require_valid(arguments: Sequence[str], out: str) -> None:
    """Check the output of a command line; output that is not JSON is left to the test."""
    form = asked_form(arguments)
    if form is None or not out:
        return
    try:
        found = (
            [json.loads(line) for line in out.splitlines()] if form == "jsonl" else json.loads(out)
        )
    except ValueError:
        return
    words = command_words(arguments)
    validator = validator_of(words)
    assert validator is not None, f"{' '.join(words)} prints JSON, but has no schema"
    if form == "jsonl" and len(found) == 1 and not validator.is_valid(found):
        (found,) = found  # a document
    shown = found[:_MOST] if isinstance(found, list) else found
    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(shown)]
    assert not problems, f"{' '.join(words)}: {problems[:5]}"
