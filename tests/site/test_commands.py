"""The commands in the documentation exist, with the options that they are shown with."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer._click.exceptions import UsageError

from aspencli.cli.app import GLOBAL_OPTIONS
from aspencli.cli.main import command
from tests.site.reading import document
from tests.site.test_documents import NOW, PAGES

# The old tool's commands are tested by test_old_runbook.py; the reference is generated.
SHOWN = sorted(
    path
    for path in NOW
    if path != "docs/guides/old-runbook.md" and not path.startswith("docs/commands")
)
_GLOBAL = {
    name: bool(option.metavar)
    for option in GLOBAL_OPTIONS
    for name in (*option.names, *option.root_names)
}
_ENDS = re.compile(r"[|&;<>]+|\d?>")
_ELLIPSES = ("…", "...")


def commands(code: str) -> Iterator[list[str]]:
    """Yield the words of each aspencli command of a line, up to an ellipsis."""
    lexer = shlex.shlex(code.removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a sentence with an apostrophe
        return
    found: list[str] | None = None
    for word in [*words, ";"]:
        if word == "aspencli" and not found:
            found = []
        elif found is not None and (_ENDS.fullmatch(word) or word in _ELLIPSES):
            yield found
            found = None
        elif found is not None:
            found.append(word)


def problem(words: list[str]) -> str | None:
    """Return what is wrong with a command, or None."""
    group: Any = command()
    context = group.context_class(group, info_name="aspencli")
    known = {"--help", "-h"}
    rest = iter(words)
    for word in rest:
        if word == "--":
            return None
        if word.startswith("-") and len(word) > 1:
            name, _, value = word.partition("=")
            if name in _GLOBAL:
                if _GLOBAL[name] and not value:
                    next(rest, None)
            elif name not in known:
                return f"no option {name}"
        elif hasattr(group, "list_commands"):
            try:
                found = group.resolve_command(context, [word])[1]
            except UsageError as error:
                return str(error.message)
            group, context = found, found.context_class(found, info_name=word, parent=context)
            known |= {name for one in group.params for name in (*one.opts, *one.secondary_opts)}
    return None


@pytest.mark.parametrize("path", SHOWN)
def test_commands_of_page_exist(path: str) -> None:
    assert [
        f"aspencli {' '.join(words)}: {wrong}"
        for code in document(PAGES[path]).code
        if "aspencli" in code
        for words in commands(code)
        if (wrong := problem(words))
    ] == []


def test_commands_of_a_line_end_where_the_shell_ends_them() -> None:
    line = "$ aspencli samples list --output tsv | aspencli samples download - > x  # comment"
    assert list(commands(line)) == [
        ["samples", "list", "--output", "tsv"],
        ["samples", "download", "-"],
    ]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("db profile slow.py", None),
        ("--env prod db doctor --strict", None),
        ("samples lost", "No such command 'lost'. Did you mean 'list'?"),
        ("samples list --lost", "no option --lost"),
    ],
)
def test_missing_commands_and_options_are_found(line: str, wrong: str | None) -> None:
    assert problem(line.split()) == wrong
