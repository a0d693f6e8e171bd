"""Writes docs/commands.md, docs/commands/, and the completion's list of commands.

``--check`` only compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
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
    summary,
    value_name,
)
from aspencli.cli.main import command

FOLDER = Path(__file__).parent
INDEX = "commands.md"
EXIT_CODES = (
    ("0", "done, or nothing to do"),
    ("1", "failed"),
    ("2", "bad usage, or bad input"),
    ("3", "refused, or declined"),
    ("4", "sign-in or credentials"),
    ("5", "target unreachable; try again"),
    ("6", "not found"),
    ("7", "conflict"),
    ("130", "interrupted (143 after SIGTERM)"),
)
_INTRODUCTION = """\
# Command reference

Made from the program's own help by `make docs`; `make check` fails where the two differ.

Results go to stdout, everything else to stderr. Exit codes:

{codes}

![The help of aspencli samples](screens/help.svg)
"""


def walk(group: Any, context: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each group and command that is not hidden, with the words that call it."""
    yield path, group
    if not _is_group(group):
        return
    for name in group.list_commands(context):
        _name, found, _rest = group.resolve_command(context, [name])
        if not found.hidden:
            inner = found.context_class(found, info_name=name, parent=context)
            yield from walk(found, inner, (*path, name))


def render() -> Mapping[str, str]:
    """Return the text of each page by its path in the folder ``docs``.

    There is a page for each group of commands, and an index with a heading for each group.
    """
    root = command()
    context = root.context_class(root, info_name="aspencli")
    rows = (f"| {code} | {meaning} |" for code, meaning in EXIT_CODES)
    codes = "\n".join(("| code | meaning |", "|---|---|", *rows))
    index = [_INTRODUCTION.format(codes=codes), _global_options()]
    pages: dict[str, list[str]] = {}
    for path, found in list(walk(root, context, ("aspencli",)))[1:]:
        name, *inner = path[1:]
        page = f"commands/{name}.md"
        if inner:
            pages[page].append(_section(path, found, len(path) - 1))
        elif _is_group(found):
            pages[page] = [_section(path, found, 1)]
            index.append(f"## aspencli {name}\n\n{summary(found)}\n\n| command | |\n|---|---|\n")
        else:
            index.append(_section(path, found, 2))
        if inner and not _is_group(found):
            link = f"[{' '.join(path[1:])}]({page}#{'-'.join(path)})"
            index[-1] += f"| {link} | {_cell(summary(found))} |\n"
    return {INDEX: "\n".join(index)} | {page: "\n".join(parts) for page, parts in pages.items()}


def _is_group(found: Any) -> bool:
    return hasattr(found, "list_commands")


def _global_options() -> str:
    rows = [
        (_names(option) + (f" {option.metavar}" if option.metavar else ""), option.help)
        for option in GLOBAL_OPTIONS
        if not option.hidden
    ]
    return "## Global options\n\nAccepted before or after the command.\n\n" + _table(rows)


def _names(option: GlobalOption) -> str:
    return ", ".join(sorted((*option.names, *option.root_names), key=len))


def _section(path: tuple[str, ...], found: Any, level: int) -> str:
    title = "#" * level + " " + " ".join(path)
    parts = [title, "", "\n\n".join(paragraphs(found.help))]
    if not _is_group(found):
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
    pages = {FOLDER / name: text for name, text in render().items()} | {TREE: tree.render()}
    found = [FOLDER / INDEX, TREE, *sorted((FOLDER / "commands").glob("*.md"))]
    there = {file: file.read_text("utf-8") for file in found if file.exists()}
    if sys.argv[1:] != ["--check"]:
        (FOLDER / "commands").mkdir(exist_ok=True)
        for file in there.keys() - pages.keys():
            file.unlink()
        for file, text in pages.items():
            file.write_text(text, encoding="utf-8")
        return 0
    if there == pages:
        return 0
    changed = sorted(
        file.name for file in there.keys() | pages.keys() if there.get(file) != pages.get(file)
    )
    sys.stderr.write(f"Out of date: {', '.join(changed)}. Run: make docs\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
