"""The help of commands and groups, in the width of the stream that it is written to.

Typer's own help takes texts for markup, in which ``[...]`` disappears, and keeps the line breaks of
the source. This module prints every text unchanged, and wraps its paragraphs.
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_PIPED = 80  # columns of help that is not written to a terminal
_OPTIONS, _ARGUMENTS, _COMMANDS = "Options", "Arguments", "Commands"
_EXAMPLE = re.compile(r"^(Examples?):$")
_OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
_LIST_ITEM = re.compile(r"^(?:[-*•]|\d+[.)])\s|^\s")
_VALUES = {
    **dict.fromkeys(("integer", "int", "int range"), "N"),
    **dict.fromkeys(("float", "float range"), "NUMBER"),
    "str": "TEXT",
}


# Texts, for the help and for the command reference


def paragraphs(text: str | None) -> list[str]:
    """Return the paragraphs of a help text, each on one line; lists keep a line for each item."""
    body = inspect.cleandoc(text or "").partition("\f")[0]
    return [_unwrapped(part) for part in re.split(r"\n\s*\n", body) if part.strip()]


def _unwrapped(paragraph: str) -> str:
    lines: list[str] = []
    for line in paragraph.splitlines():
        if lines and not _LIST_ITEM.match(line):
            lines[-1] = f"{lines[-1].rstrip()} {line.strip()}"
        else:
            lines.append(line.rstrip())
    return "\n".join(lines)


def example_lines(epilog: str | None) -> list[str]:
    """Return the command lines in an epilog that `aspencli.cli.app.examples` made."""
    parts = (epilog or "").split("\n\n")
    if not _EXAMPLE.match(parts[0]):
        return []
    return [part for part in parts[1:] if part.startswith("aspencli")]


def default_text(param: Any) -> str:
    """Return a parameter's default as a user would type it, or an empty string."""
    if isinstance(param.show_default, str):
        return str(param.show_default)
    if param.show_default is False or param.required:
        return ""
    default = param.default
    if isinstance(default, bool):
        names = param.opts if default else param.secondary_opts
        return names[0] if param.secondary_opts and names else ""
    return _typed(default)


def _typed(value: Any) -> str:
    if value is None or callable(value):
        return ""
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(filter(None, map(_typed, value)))
    return str(value)


def value_name(param: Any) -> str:
    """Return the placeholder for an option's value, such as ``FILE``; empty for a flag."""
    if param.param_type_name == "option" and (param.is_flag or param.count):
        return ""
    if param.metavar:
        return str(param.metavar)
    if choices(param):
        return "CHOICE"
    name = str(param.type.name).strip("<>").lower()
    return _VALUES.get(name) or name.upper().replace(" ", "_")


def choices(param: Any) -> list[str]:
    """Return the values that a parameter accepts, if they are few and fixed."""
    return [_typed(each) for each in getattr(param.type, "choices", ())]


def argument_name(param: Any) -> str:
    """Return an argument's name without the brackets that the usage line has around it."""
    name = str(param.metavar or param.name.upper())
    is_repeated = param.nargs != 1 or "..." in name
    return re.sub(r"[\[\]]|\.\.\.", "", name).strip() + ("..." if is_repeated else "")


def option_names(param: Any) -> str:
    """Return the names of an option, short ones first: ``-o, --output`` or ``--on / --off``."""
    sides = (sorted(names, key=_is_long) for names in (param.opts, param.secondary_opts))
    return " / ".join(", ".join(names) for names in sides if names)


def _is_long(name: str) -> bool:
    return name.startswith("--")


def details(param: Any) -> str:
    """Return the choices, limits, and default of a value, to be shown after its help."""
    found = []
    if choices(param) and not param.metavar:
        found.append(f"choices: {', '.join(choices(param))}")
    low, high = getattr(param.type, "min", None), getattr(param.type, "max", None)
    if low is not None and high is not None:
        found.append(f"{low} to {high}")
    elif low is not None and low > 0:
        found.append(f"min: {_typed(low)}")
    elif high is not None:
        found.append(f"max: {_typed(high)}")
    if default := default_text(param):
        found.append(f"default: {default}")
    if param.required:
        found.append("required")
    return "; ".join(found)


# Pages


def help_page(command: Any, ctx: Any, stream: TextIO | None = None) -> str:
    """Return the help of a command or group.

    The stream that it will be written to, by default standard output, determines width and colors.
    """
    from rich.text import Text

    from aspencli.cli.output.console import given_width, rich_console

    console = rich_console(stream or sys.stdout, piped=given_width() or _PIPED)
    with console.capture() as capture:
        for part in _parts(command, ctx, console):
            # Examples are not wrapped, so that they can be copied.
            console.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))
    lines = capture.get().splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def _parts(command: Any, ctx: Any, console: Console) -> Iterator[RenderableType]:
    from rich.text import Text

    from aspencli.cli.output.console import rich_style

    words = f"{ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}"
    yield Text.assemble(("Usage: ", "bold"), words)
    for paragraph in paragraphs(command.help):
        yield Text()
        yield _highlighted(paragraph)
    if command.deprecated:
        yield Text("\nThis command is deprecated.", rich_style("error"))
    yield Text()
    params = [param for param in command.get_params(ctx) if not param.hidden]
    arguments = [param for param in params if param.param_type_name == "argument"]
    options = [param for param in params if param.param_type_name == "option"]
    for title, group in _panels(arguments, _ARGUMENTS):
        rows = [(argument_name(param), param.help or "", details(param)) for param in group]
        yield _table(title, rows, console)
    if hasattr(command, "list_commands"):
        yield from _commands(command, ctx, console)
    for title, group in _panels(options, _OPTIONS):
        yield _table(title, _option_rows(group), console)
    yield from _epilog(command.epilog)


def _panels(items: Iterable[Any], usual: str) -> Iterator[tuple[str, list[Any]]]:
    """Yield the items by panel, those without one first."""
    found: dict[str, list[Any]] = {usual: []}
    for item in items:
        found.setdefault(getattr(item, "rich_help_panel", None) or usual, []).append(item)
    for title, group in found.items():
        if group:
            yield title, group


def _option_rows(params: list[Any]) -> list[tuple[str, str, str]]:
    named = [(option_names(param), param) for param in params]
    # Long names align if any option of the panel has a short one.
    indent = "" if all(_is_long(names) for names, _ in named) else "    "
    return [
        (
            f"{indent if _is_long(names) else ''}{names} {value_name(param)}".rstrip(),
            param.help or "",
            details(param),
        )
        for names, param in named
    ]


def _table(title: str, rows: list[tuple[str, str, str]], console: Console) -> RenderableType:
    from rich import box
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    longest = max(len(names) for names, _help, _details in rows)
    width = min(longest, (console.width - 4) * 9 // 20)
    table.add_column(width=width, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for names, text, more in rows:
        about = _highlighted(" ".join(text.split()))
        if more:
            about.append(f"{' ' if text else ''}[{more}]")
        table.add_row(Text(_folded(names, width), "bold"), about)
    return Panel(table, title=Text(title), title_align="left", border_style="dim", box=box.ROUNDED)


def _folded(names: str, width: int) -> str:
    """Return the names of an option, moving its value to a second line if they are too wide."""
    before, space, value = names.rpartition(" ")
    if len(names) <= width or not space:
        return names
    return f"{before}\n{' ' * 8}{value}"


def _commands(group: Any, ctx: Any, console: Console) -> Iterator[RenderableType]:
    found = [group.get_command(ctx, name) for name in group.list_commands(ctx)]
    shown = [command for command in found if command is not None and not command.hidden]
    for title, commands in _panels(shown, _COMMANDS):
        width = max(len(command.name) for command in shown)
        rows = [(command.name.ljust(width), summary(command), "") for command in commands]
        yield _table(title, rows, console)


def summary(command: Any) -> str:
    """Return the line about a command in the help of its group."""
    return next(iter(paragraphs(command.short_help or command.help)), "")


def _epilog(epilog: str | None) -> Iterator[RenderableType]:
    from rich.text import Text

    lines = example_lines(epilog)
    if lines:
        yield Text()
        yield Text("Example" if len(lines) == 1 else "Examples", "bold")
        for line in lines:
            yield Text(f"  {line}", no_wrap=True)
    for part in paragraphs(epilog):
        if part not in lines and not _EXAMPLE.match(part):
            yield Text()
            yield _highlighted(part)


def _highlighted(text: str) -> Text:
    from rich.text import Text

    from aspencli.cli.output.console import rich_style

    found = Text(text)
    for match in _OPTION.finditer(text):
        found.stylize(rich_style("hint"), *match.span())
    return found
