"""The help pages of all commands: complete, wrapped to the terminal, and readable."""

from __future__ import annotations

import enum
import functools
import io
import os
import re
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from aspencli.cli.app import DOCS, AspenTyper, examples, load_group
from aspencli.cli.context import AppContext
from aspencli.cli.help import default_text, example_lines, help_page, paragraphs
from aspencli.cli.main import ENTRIES, command, run
from aspencli.errors import BadInputError

Words = tuple[str, ...]
BRACKETED = re.compile(r"\[[^\]\n]*\]")


def _below(words: Words, found: Any, context: Any) -> Iterator[tuple[Words, Any, Any]]:
    yield words, found, context
    for name, child in getattr(found, "commands", {}).items():
        inner = child.context_class(child, info_name=name, parent=context)
        yield from _below((*words, name), child, inner)


def _commands() -> Iterator[tuple[Words, Any, Any]]:
    root = command()
    context = root.context_class(root, info_name="aspencli", obj=AppContext())
    yield (), root, context
    for entry in ENTRIES:
        group = load_group(entry)
        inner = group.context_class(group, info_name=entry.name, parent=context)
        yield from _below((entry.name,), group, inner)
    for name in ("help", "mcp", "version"):
        own: Any = root.get_command(context, name)
        yield (name,), own, own.context_class(own, info_name=name, parent=context)


COMMANDS = {words: (found, context) for words, found, context in _commands()}
every_command = pytest.mark.parametrize("words", list(COMMANDS), ids=" ".join)


def test_help_option_does_not_depend_on_the_context_that_asks_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    group = load_group(next(entry for entry in ENTRIES if entry.name == "history"))
    monkeypatch.setattr(group, "_help_option", None)
    group.get_help_option(group.context_class(group))
    assert run(["history", "-h"]) == 0
    assert "history" in capsys.readouterr().out


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Set the width of the terminal, and turn colors off."""
    columns = int(getattr(request, "param", 80))
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    return columns


def _page(words: Words) -> str:
    return _rendered(words, int(os.environ["COLUMNS"]))


@functools.cache
def _rendered(words: Words, width: int) -> str:
    """Return a page; five tests read the same one, and each takes 10 ms to render."""
    assert int(os.environ["COLUMNS"]) == width
    assert "NO_COLOR" in os.environ
    found, context = COMMANDS[words]
    return help_page(found, context, Terminal())


def _flat(text: str) -> str:
    """Return the text of a page without borders and line breaks."""
    return re.sub(r"\s+", " ", re.sub("[│╭╮╰╯─]", " ", text))


def _texts(found: Any) -> list[str]:
    """Return every text of a command that its help shows."""
    params = [param for param in found.params if not param.hidden]
    children = getattr(found, "commands", {}).values()
    return [
        *paragraphs(found.help),
        *paragraphs(found.epilog),
        *(param.help or "" for param in params),
        *(paragraphs(child.help)[0] for child in children if not child.hidden),
    ]


# Wrapping


@pytest.mark.parametrize("width", [80, 140], indirect=True)
@every_command
def test_paragraphs_wrap_to_terminal_width(words: Words, width: int) -> None:
    found, _context = COMMANDS[words]
    page = _page(words)
    lines = page.splitlines()
    shown = [line for line in lines if not line.startswith("  aspencli")]
    assert max(map(len, shown)) <= width
    for paragraph in paragraphs(found.help):
        assert _flat(paragraph) in _flat(page)
        _require_full_lines(paragraph, lines, width)


def _require_full_lines(paragraph: str, lines: list[str], width: int) -> None:
    """Check that no line of a paragraph ends before the next word would have been too long."""
    rest = paragraph.split()
    start = next(n for n, line in enumerate(lines) if line and paragraph.startswith(line))
    for line in lines[start:]:
        rest = rest[len(line.split()) :]
        if not rest:
            return
        assert len(line) + 1 + len(rest[0]) > width, f"{line!r} ends early"
    pytest.fail(f"the page ends within {paragraph!r}")


@pytest.mark.parametrize("width", [40], indirect=True)
@every_command
def test_help_on_narrow_terminal_truncates_nothing(words: Words, width: int) -> None:
    page = _page(words)
    assert "…" not in page
    letters = re.sub(r"\W", "", page)
    for text in _texts(COMMANDS[words][0]):
        for word in re.findall(r"\w+", text):
            assert word in letters or word in _flat(page), word


def test_list_items_in_help_keep_their_lines() -> None:
    assert paragraphs("One\ntwo.\n\n- a\n  b\n- c\n") == ["One two.", "- a\n  b\n- c"]


# Brackets


@every_command
def test_bracketed_text_in_help_is_shown(words: Words, width: int) -> None:
    found, _context = COMMANDS[words]
    page = _flat(_page(words))
    for text in _texts(found):
        for piece in BRACKETED.findall(text):
            assert _flat(piece) in page


@every_command
def test_help_examples_are_not_wrapped(words: Words, width: int) -> None:
    found, _context = COMMANDS[words]
    lines = _page(words).splitlines()
    for example in example_lines(found.epilog):
        assert f"  {example}" in lines


def test_db_profile_help_shows_complete_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "profile", "--help"]) == 0
    code = '-c "[s.lineages for s in session.scalars(select(Sample))]"'
    assert f"  aspencli db profile {code}\n" in capsys.readouterr().out


BRACKETS = "the [bold]list[/bold] of [red] things [a, b] [/]"


def test_markup_in_help_is_shown_as_text(width: int) -> None:
    app: typer.Typer = AspenTyper(add_completion=False)

    @app.command(help=BRACKETS, epilog=examples(f"aspencli {BRACKETS}"))
    def show(
        option: Annotated[str, typer.Option(help=f"See {BRACKETS}", show_default=False)] = "",
    ) -> None:
        raise BadInputError(BRACKETS + option)

    result = CliRunner().invoke(app, ["--help"])
    assert _flat(result.output).count(BRACKETS) == 3


def test_brackets_in_error_message_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "[bold]show[/bold]"]) == 2
    assert "[bold]show[/bold]" in capsys.readouterr().err


# Defaults


@every_command
def test_help_shows_defaults_as_typed(words: Words, width: int) -> None:
    found, _context = COMMANDS[words]
    page = _flat(_page(words))
    for param in found.params:
        if param.hidden:
            continue
        default = default_text(param)
        assert not re.search(r"\b[A-Z]\w+\.[A-Z_]+\b", default)
        if isinstance(param.default, enum.Enum):
            assert default == param.default.value
            assert f"default: {param.default.value}" in page
            name = f"{type(param.default).__name__}.{param.default.name}"
            assert name not in page


@every_command
def test_help_lists_all_choices(words: Words, width: int) -> None:
    found, _context = COMMANDS[words]
    page = _flat(_page(words))
    for param in found.params:
        if not param.hidden:
            for choice in getattr(param.type, "choices", ()):
                assert str(getattr(choice, "value", choice)) in page


# Panels


PANELS = {
    "db": {
        "Console": "interact psql tunnel",
        "Health": "status outliers sizes indexes bloat settings profile doctor",
        "Schema": "upgrade downgrade current history check revision setup create drop access",
        "Copies": "dump restore copy dumps",
        "Sessions": "activity locks cancel terminate",
    },
    "jobs": {
        "Look": "list show why logs outputs schedule",
        "Change": "start cancel retry reconcile undo",
    },
    "samples": {
        "Look": "list show validate-ids",
        "Change": "create update delete",
        "Files": "download submission-template",
        "Bulk": "update-public-ids bulk-update undo resume",
    },
}


@pytest.mark.parametrize("group", PANELS)
def test_commands_are_grouped_in_panels(group: str, width: int) -> None:
    found: dict[str, list[str]] = {}
    for line in _page((group,)).splitlines():
        if heading := re.match(r"╭─ (.+?) ─", line):
            names = found.setdefault(heading[1], [])
        elif row := re.match(r"│ (\S+) ", line):
            names.append(row[1])
    assert list(found)[:-1] == list(PANELS[group])
    for panel, expected in PANELS[group].items():
        assert set(found[panel]) == set(expected.split()), panel


# The root


def test_root_help_has_examples_and_documentation_link(width: int) -> None:
    page = _page(())
    lines = page.splitlines()
    shown = [line.strip() for line in lines if line.startswith("  aspencli ")]
    assert len(shown) == 5
    for example in shown:
        assert any(" ".join(words) in example for words in COMMANDS if len(words) == 2), example
    assert f"Documentation: {DOCS}" in page
    assert "aspencli help COMMAND" in page


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        (("help",), ("--help",)),
        (("help", "samples"), ("samples", "--help")),
        (("help", "db", "profile"), ("db", "profile", "--help")),
        (("help", "sample", "list"), ("samples", "list", "--help")),
        (("help", "help"), ("help", "--help")),
        (("--env", "staging", "help", "db"), ("db", "--help")),
    ],
)
def test_help_command_equals_help_option(
    arguments: Words, same: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 0
    shown = capsys.readouterr()
    assert run(same) == 0
    assert capsys.readouterr() == shown
    assert shown.err == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("help", "smaples"), "Did you mean 'samples'"),
        (("help", "samples", "lits"), "Did you mean 'list'"),
        (("help", "samples", "list", "more"), "has no subcommands"),
    ],
)
def test_help_for_unknown_command_exits_with_2(
    arguments: Words, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err


def test_missing_subcommand_prints_usage_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["samples"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: aspencli samples")


def test_only_the_borders_of_help_are_dim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    found, context = COMMANDS["samples", "update-public-ids"]
    page = help_page(found, context, Terminal())
    styled = re.findall(r"\x1b\[([\d;]+)m([^\x1b]*)\x1b\[0m", page)
    assert {codes for codes, _text in styled} == {"1", "2", "38;5;31"}
    dim = [re.sub("[│╭╮╰╯─ ]", "", text) for codes, text in styled if codes == "2"]
    assert set(dim) == {"", "Options"}


@pytest.mark.parametrize(("width", "first"), [(80, 1), (100, 0), (140, 0)], indirect=["width"])
def test_an_option_is_not_separated_from_its_short_name(width: int, first: int) -> None:
    lines = _page(("samples", "update-public-ids")).splitlines()
    at = next(n for n, line in enumerate(lines) if "-f, --private-to-public-id-mapping" in line)
    assert "FILE" in lines[at + first].partition("  Mapping")[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("samples", "list", "--limti", "5"), "No such option: --limti. Did you mean --limit?"),
        (
            ("db", "doctor", "--st"),
            "No such option: --st. Did you mean one of --stack, --strict, --yes?",
        ),
        (("samples", "list", "(a)"), "Unexpected argument: (a)"),
        (("pathogens", "list", "a", "b"), "Unexpected arguments: a b"),
    ],
)
def test_usage_errors_suggest_what_was_meant(
    arguments: Words, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(list(arguments)) == 2
    assert capsys.readouterr().err.splitlines()[0] == f"Error: {says}"
