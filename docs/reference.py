"""Writes docs/commands.md and the completion's list of commands; ``--check`` only compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aspencli.cli.app import GLOBAL_OPTIONS, GlobalOption
from aspencli.cli.completion import tree
from aspencli.cli.completion.answer import TREE
from aspencli.cli.help import (
    argument_name,
    details,
    example_lines,
    option_names,
    paragraphs,
    value_name,
)
from aspencli.cli.main import command

TARGET = Path(__file__).with_name("commands.md")
INTRODUCTION = """\
# Command reference

Made from the program's own help by `make docs`; `make check` fails where the two differ.

Results go to stdout, everything else to stderr. Exit codes: 0 done or nothing to do; 1 failed; 2
bad usage or bad input; 3 refused or declined; 4 sign-in or credentials; 5 target unreachable, worth
a retry; 6 not found; 7 conflict; 130 interrupted (143 after SIGTERM).
"""


def walk(group: Any, context: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each group and command that is not hidden, with the words that call it."""
    yield path, group
    if not hasattr(group, "list_commands"):
        return
    for name in group.list_commands(context):
        _name, found, _rest = group.resolve_command(context, [name])
        if not found.hidden:
            inner = found.context_class(found, info_name=name, parent=context)
            yield from walk(found, inner, (*path, name))


def render() -> str:
    """Return the whole page."""
    root = command()
    context = root.context_class(root, info_name="aspencli")
    sections = [INTRODUCTION, _global_options()]
    sections += [_section(path, found) for path, found in walk(root, context, ("aspencli",))][1:]
    return "\n".join(sections)


def _global_options() -> str:
    rows = [
        (_names(option) + (f" {option.metavar}" if option.metavar else ""), option.help)
        for option in GLOBAL_OPTIONS
        if not option.hidden
    ]
    return "## Global options\n\nAccepted before or after the command.\n\n" + _table(rows)


def _names(option: GlobalOption) -> str:
    return ", ".join(sorted((*option.names, *option.root_names), key=len))


def _section(path: tuple[str, ...], found: Any) -> str:
    title = "#" * min(len(path), 3) + " " + " ".join(path)
    parts = [title, "", "\n\n".join(paragraphs(found.help))]
    if not hasattr(found, "list_commands"):
        usage = " ".join([*path, *_arguments(found)])
        parts += ["", f"    {usage}"]
        rows = list(_rows(found))
        parts += ["", _table(rows).rstrip()] if rows else []
        shown = [line for line in example_lines(found.epilog) if line != usage]
        parts += ["", *(f"    {line}" for line in shown)] if shown else []
    return "\n".join(parts).rstrip() + "\n"


def _arguments(found: Any) -> Iterator[str]:
    if any(not _is_argument(p) and not p.hidden and p.expose_value for p in found.params):
        yield "[OPTIONS]"
    for param in found.params:
        if _is_argument(param) and not param.hidden:
            word = argument_name(param)
            yield word if param.required else f"[{word}]"


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _rows(found: Any) -> Iterator[tuple[str, str]]:
    for param in found.params:
        if param.hidden or not param.expose_value:
            continue
        if _is_argument(param):
            names = argument_name(param)
        else:
            names = f"{option_names(param)} {value_name(param)}".rstrip()
        more = details(param)
        yield names, f"{param.help or ''}{f' [{more}]' if more else ''}"


def _table(rows: list[tuple[str, str]]) -> str:
    lines = ["| option | meaning |", "|---|---|"]
    lines += [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write the files, or compare them with what is there."""
    outdated = 0
    for path, text in ((TARGET, render()), (TREE, tree.render())):
        if sys.argv[1:] != ["--check"]:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{path.name} is out of date; run: make docs\n")
            outdated = 1
    return outdated


if __name__ == "__main__":
    sys.exit(main())
