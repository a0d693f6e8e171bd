r"""Markdown as GitHub reads it, rewritten so that Python-Markdown reads it the same way.

Python-Markdown indents the content of a list by four columns, wherever its text begins, ends a
paragraph only at an empty line, and shows the backslash of ``\|`` in code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark").enable("table")
_MARKER = re.compile(r" *(?:[-*+]|\d+[.)]) +")
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
_TITLED = re.compile(r"(```\w+) (\S+)$")
_SHELL = re.compile(r"(?:[A-Z_]+=\S+ )*(?:aspencli|make|pip|git|export|pre-commit|python3?|\.) ")
_INDENT = "    "


def portable(text: str) -> str:
    """Return a page in Markdown that both readers understand alike."""
    return "\n".join(_blocks(text.splitlines())) + "\n"


def _blocks(lines: list[str]) -> Iterator[str]:
    ended = 0
    for token in _PARSER.parse("\n".join(lines)):
        if token.level or token.map is None or token.nesting < 0:
            continue
        begin, end = token.map
        yield from lines[ended:begin]  # empty, or a definition of a link
        if begin and begin == ended:
            yield ""
        yield from _block(token, lines[begin:end])
        ended = end
    yield from lines[ended:]


def _block(token: Token, lines: list[str]) -> Iterator[str]:
    match token.type:
        case "code_block":
            code = token.content.rstrip("\n")
            yield from (f"```{_language(code)}", *code.split("\n"), "```")
            yield ""
        case "fence":
            yield _TITLED.sub(r'\1 title="\2"', lines[0])
            yield from lines[1:]
        case "bullet_list_open" | "ordered_list_open":
            yield from _items(lines)
        case "table_open":
            yield from (_CODE.sub(lambda code: code[0].replace(r"\|", "|"), one) for one in lines)
        case _:
            yield from lines


def _items(lines: list[str]) -> Iterator[str]:
    tokens = [token for token in _PARSER.parse("\n".join(lines)) if token.type == "list_item_open"]
    begins = [token.map[0] for token in tokens if token.level == 1 and token.map]
    for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True):
        marker = _MARKER.match(lines[begin])
        width = len(marker[0]) if marker else 0
        rest = [
            line[min(width, len(line) - len(line.lstrip())) :] for line in lines[begin + 1 : end]
        ]
        first, *others = _blocks([lines[begin][width:], *rest])
        if "" in others and others[-1]:
            others.append("")
        yield (marker[0].strip() if marker else "-") + " " + first
        yield from (f"{_INDENT}{line}" if line else "" for line in others)


def _language(code: str) -> str:
    if code.startswith("$ "):
        return "console"
    return "sh" if _SHELL.match(code) else "text"
