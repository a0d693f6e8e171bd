"""Writes the man pages in docs/man from the command line itself; ``--check`` only compares.

There is a page for the program, and one for each group of commands. The wheel installs them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aspencli import __version__
from aspencli.cli.app import DOCS, GLOBAL_OPTIONS
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
from docs.reference import EXIT_CODES, walk

FOLDER = Path(__file__).with_name("man")
CHANGES = Path(__file__).parent.with_name("CHANGELOG.md")
VARIABLES = (
    ("ASPEN_ENV", "The target, as --env."),
    ("ASPEN_STACK", "The stack, as --stack."),
    ("ASPEN_OUTPUT", "The output format, as --output."),
    ("ASPEN_VIA", "The backend: db or api."),
    ("ASPEN_TOKEN", "A token for the API, for scripts."),
    ("ASPEN_CONFIG", "The config file."),
    ("ASPEN_HOME", "One folder for config, data, state, and cache."),
    ("NO_COLOR", "If it is set, there are no colors."),
)


def pages() -> dict[str, str]:
    """Return the text of each page by its name."""
    root = command()
    context = root.context_class(root, info_name="aspencli")
    found = list(walk(root, context, ("aspencli",)))
    groups = [words for words, each in found if len(words) == 2 and _is_group(each)]  # noqa: PLR2004
    texts = {"aspencli": _joined(_program_page(root, found))}
    for group in groups:
        own = [(words, each) for words, each in found if words[:2] == group]
        texts["-".join(group)] = _joined(_group_page(own))
    return texts


def _joined(lines: Iterable[str]) -> str:
    """Return a page without the paragraph breaks that a heading implies."""
    found: list[str] = []
    for line in lines:
        if line != ".PP" or not found[-1].startswith((".SH", ".SS")):
            found.append(line)
    return "\n".join(found) + "\n"


def _is_group(found: Any) -> bool:
    return hasattr(found, "list_commands")


def _program_page(root: Any, found: list[tuple[tuple[str, ...], Any]]) -> Iterator[str]:
    yield from _head("aspencli", "administer CZ GEN EPI (Aspen)")
    yield from (".B aspencli", "[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGS\\fR]...")
    yield ".SH DESCRIPTION"
    yield from _paragraphs(root.help)
    yield from _paragraphs("Results go to stdout, everything else to stderr.")
    yield ".SH COMMANDS"
    groups = []
    for words, each in found:
        if len(words) != 2:  # noqa: PLR2004 - the program and its group or command
            continue
        name = words[1]
        page = f" See \\fBaspencli\\-{_text(name)}\\fR(1)." if _is_group(each) else ""
        groups += [f"aspencli-{name}"] if _is_group(each) else []
        yield from (".TP", f"\\fB{_text(name)}\\fR", _text(summary(each)) + page)
    yield ".SH OPTIONS"
    yield from _paragraphs("Global options are accepted before or after the command.")
    for option in GLOBAL_OPTIONS:
        if not option.hidden:
            names = ", ".join(sorted((*option.names, *option.root_names), key=len))
            yield from _option(f"{names} {option.metavar or ''}".strip(), option.help)
    yield ".SH EXIT STATUS"
    for code, meaning in EXIT_CODES:
        yield from (".TP", f".B {code}", _text(meaning))
    yield ".SH ENVIRONMENT"
    for name, meaning in VARIABLES:
        yield from (".TP", f".B {name}", _text(meaning))
    yield ".SH FILES"
    yield from _paragraphs(
        "aspencli doctor shows the folders, and aspencli config show the config file."
    )
    yield ".SH EXAMPLES"
    yield from _examples(example_lines(root.epilog))
    yield ".SH SEE ALSO"
    yield ",\n".join(f".BR {_text(name)} (1)" for name in groups)
    yield from (".PP", _text(DOCS))


def _group_page(found: list[tuple[tuple[str, ...], Any]]) -> Iterator[str]:
    (path, group), *rest = found
    yield from _head("-".join(path), summary(group).rstrip("."))
    yield from (f".B {_text(' '.join(path))}", "\\fICOMMAND\\fR [\\fIOPTIONS\\fR]...")
    yield ".SH DESCRIPTION"
    yield from _paragraphs(group.help)
    yield ".SH COMMANDS"
    for words, each in rest:
        if _is_group(each):
            continue
        yield f'.SS "{_text(" ".join(words[1:]))}"'
        arguments = [param for param in each.params if param.param_type_name == "argument"]
        usage = " ".join([*words, "[OPTIONS]", *(argument_name(one) for one in arguments)])
        yield from (".PP", f"\\fB{_text(usage)}\\fR")
        yield from _paragraphs(each.help)
        for param in each.params:
            if not param.hidden and param.expose_value:
                yield from _parameter(param)
        if shown := example_lines(each.epilog):
            yield from (".PP", "Examples:" if len(shown) > 1 else "Example:")
            yield from _examples(shown)
    yield ".SH SEE ALSO"
    yield ".BR aspencli (1)"


def _head(name: str, about: str) -> Iterator[str]:
    yield '.\\" Made from the commands by make docs.'
    date = re.search(r"^## \S+ - (\S+)$", CHANGES.read_text(encoding="utf-8"), re.MULTILINE)
    day = date[1] if date else "2026-01-01"
    yield f'.TH {name.upper()} 1 {day} "aspencli {__version__}" "aspencli manual"'
    yield from (".SH NAME", f"{_text(name)} \\- {_text(about)}", ".SH SYNOPSIS")


def _parameter(param: Any) -> Iterator[str]:
    if param.param_type_name == "argument":
        names = argument_name(param)
    else:
        names = f"{option_names(param)} {value_name(param)}".strip()
    more = details(param)
    yield from _option(names, f"{param.help or ''}{f' [{more}]' if more else ''}")


def _option(names: str, about: str) -> Iterator[str]:
    yield from (".TP", f"\\fB{_text(names)}\\fR", _text(" ".join(about.split()) or "See above."))


def _paragraphs(text: str | None) -> Iterator[str]:
    for one in paragraphs(text):
        yield ".PP"
        yield from (_text(line) for line in one.splitlines())


def _examples(lines: Iterable[str]) -> Iterator[str]:
    yield from (".PP", ".RS 4", ".nf", *map(_text, lines), ".fi", ".RE")


def _text(text: str) -> str:
    """Return a text that roff prints as it is."""
    found = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    found = found.replace("`", "\\(ga").replace("^", "\\(ha").replace("~", "\\(ti")
    found = found.replace('"', "\\(dq")
    return f"\\&{found}" if found.startswith(".") else found


def main() -> int:
    """Write the pages, or compare them with what is there."""
    wanted = {FOLDER / f"{name}.1": text for name, text in pages().items()}
    there = set(FOLDER.glob("*.1"))
    if sys.argv[1:] != ["--check"]:
        FOLDER.mkdir(exist_ok=True)
        for path in there - set(wanted):
            path.unlink()
        for path, text in wanted.items():
            path.write_text(text, encoding="utf-8")
        return 0
    if there == set(wanted) and all(
        path.read_text(encoding="utf-8") == text for path, text in wanted.items()
    ):
        return 0
    sys.stderr.write("docs/man is out of date; run: make docs\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
