"""The tools of an assistant: which commands there are, their arguments, and their command lines.

A tool takes its name, its description, and the schema of its arguments from a command. A command
is a tool only if it is listed here. Of its options, those are withheld that write, that read or
write files of this machine, that run code, or that never end. A test lists what is offered, so that
a new option of a command cannot become an argument unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aspencli.cli.app import find_command
from aspencli.cli.help import choices, paragraphs, value_name
from aspencli.errors import BadInputError, NotFoundError
from aspencli.text import counted

ROWS, MOST_ROWS = 100, 500
"""The rows of a result: by default, and at most."""
_LONGEST = 20_000  # characters of an argument
_MOST_VALUES = 500
_ENV, _STACK = "env", "stack"
# By option, whatever the command.
_WITHHELD = frozenset(
    {
        *("--write", "--commit", "--reason", "--undo-file", "--dry-run"),
        *("--from", "--out", "--force", "--html", "--compare", "--body", "--directory"),
        *("--command", "--request", "--as"),
        *("--follow", "--watch", "--params", "--analyze"),
    }
)
_ALL, _LIMIT = "--all", "--limit"
_FILES = frozenset({"path", "file", "directory", "filename"})
_TYPES = {
    "boolean": "boolean",
    "int": "integer",
    "int range": "integer",
    "integer": "integer",
    "integer range": "integer",
    "float": "number",
    "float range": "number",
}
_ADDRESS = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
_SENTENCE = re.compile(r"(?<=[.:;])\s+(?=[A-Z])")
_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_PYTHON = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


@dataclass(frozen=True)
class Listed:
    """A command that is a tool.

    Attributes:
        words: The words that call it.
        personal: The keys of its results with personal data, besides `results.PERSONAL`; those
            inside a list or an object follow its key, as in ``members.name``.
        withheld: The parameters to withhold, besides those that every tool withholds.
        sql: The parameter that is an SQL statement, if there is one.
        ends: True to keep the end of a long text instead of its beginning.
        limits: A sentence about what the tool does not do, although the command does.
    """

    words: tuple[str, ...]
    personal: frozenset[str] = frozenset()
    withheld: frozenset[str] = frozenset()
    sql: str | None = None
    ends: bool = False
    limits: str = ""


def _listed(words: str, *personal: str, **more: Any) -> Listed:
    return Listed(tuple(words.split()), frozenset(personal), **more)


LISTED = (
    _listed("samples list"),
    _listed("samples show"),
    _listed("users list", "name"),
    _listed("users show", "name"),
    _listed("users roles list"),
    _listed("groups list"),
    _listed("groups show", "members.name"),
    _listed("groups members", "name"),
    _listed("groups invites", "inviter"),
    _listed("phylo-runs list", "user"),
    _listed("files list"),
    _listed("files show"),
    _listed("files check"),
    _listed("jobs list", "user"),
    _listed("jobs show", "user"),
    _listed("jobs why"),
    _listed("jobs logs", ends=True),
    _listed("jobs outputs"),
    _listed("jobs schedule list"),
    _listed("usher get-tree-versions"),
    _listed("locations list"),
    _listed("locations search"),
    _listed("pathogens list"),
    _listed("lineages list-pango"),
    _listed("history list"),
    _listed("history show", "argv", "account"),
    _listed("history verify"),
    _listed("db status"),
    _listed("db current"),
    _listed("db history"),
    _listed("db check"),
    _listed("db activity"),
    _listed("db locks"),
    _listed("db outliers"),
    _listed("db sizes"),
    _listed("db indexes"),
    _listed("db bloat"),
    _listed("db settings"),
    _listed("db doctor"),
    _listed(
        "db profile",
        withheld=frozenset({"script", "arguments"}),
        sql="sql",
        limits="Here it takes one SQL statement that reads, and shows its cost but not its rows.",
    ),
    _listed("target list"),
    _listed("target check"),
    _listed("stacks list"),
    _listed("local status"),
)
"""The commands that are tools, in the order in which they are shown."""


@dataclass(frozen=True)
class Argument:
    """An argument of a tool, from a parameter of its command."""

    name: str
    kind: str  # of JSON Schema
    param: Any
    is_list: bool
    required: bool
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    default: int | str | float | bool | None = None

    @property
    def is_positional(self) -> bool:
        """Return True if its value follows the options on the command line."""
        return bool(self.param.param_type_name == "argument")

    @property
    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of its value."""
        found: dict[str, Any] = {"type": self.kind}
        if self.choices:
            found["enum"] = list(self.choices)
        if self.kind == "string" and not self.choices:
            found["maxLength"] = _LONGEST
        if self.low is not None:
            found["minimum"] = self.low
        if self.high is not None:
            found["maximum"] = self.high
        if self.is_list:
            found = {"type": "array", "items": found, "maxItems": _MOST_VALUES}
        if self.default is not None:
            found["default"] = self.default
        if text := self._description:
            found["description"] = text
        return found

    @property
    def _description(self) -> str:
        if _LIMIT in self.param.opts:
            return f"Maximum rows, up to {MOST_ROWS}."
        text = _without_options(" ".join(str(self.param.help or "").split()), self.param.opts)
        form = value_name(self.param) if self.kind == "string" and not self.choices else ""
        about = f"Format: {form}." if form not in {"", "TEXT", "CHOICE"} else ""
        return " ".join(filter(None, (text, about)))

    def words(self, value: Any) -> Iterator[str]:
        """Yield the words of the command line for a value, which cannot be taken for an option.

        Raises:
            BadInputError: The value is invalid.
        """
        if self.is_list and not isinstance(value, list):
            raise BadInputError(f"Invalid value for {self.name}: it must be a list.")
        values = value if self.is_list else [value]
        if len(values) > _MOST_VALUES:
            raise BadInputError(f"{self.name} has more than {counted(_MOST_VALUES, 'value')}.")
        for one in values:
            self._check(one)
            if self.kind != "boolean":
                yield str(one) if self.is_positional else f"{_longest(self.param.opts)}={one}"
            elif one or self.param.secondary_opts:
                yield _longest(self.param.opts if one else self.param.secondary_opts)

    def _check(self, value: Any) -> None:
        is_kind = isinstance(value, _PYTHON[self.kind])  # type: ignore[arg-type]  # a class or a tuple of classes
        if not is_kind or (isinstance(value, bool) and self.kind != "boolean"):
            what = "an" if self.kind == "integer" else "a"
            raise BadInputError(f"Invalid value for {self.name}: it must be {what} {self.kind}.")
        if self.choices and value not in self.choices:
            raise BadInputError(
                f"Invalid value for {self.name}: {value!r} (choose {', '.join(self.choices)})"
            )
        if (self.low is not None and value < self.low) or (
            self.high is not None and value > self.high
        ):
            limits = "at most" if self.low is None or value >= self.low else "at least"
            bound = self.high if limits == "at most" else self.low
            raise BadInputError(f"Invalid value for {self.name}: it must be {limits} {bound:g}.")
        if isinstance(value, str):
            self._check_text(value)

    def _check_text(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise BadInputError(f"{self.name} is longer than {_LONGEST:,} characters.")
        if _CONTROL.search(text):
            raise BadInputError(f"Invalid value for {self.name}: it has control characters.")
        if self.is_positional and text == "-":
            raise BadInputError(
                f"Invalid value for {self.name}: '-'", hint="Standard input cannot be read here."
            )
        if _ADDRESS.match(text):
            raise BadInputError(
                f"Invalid value for {self.name}: {text!r}",
                hint="Addresses are not accepted from an assistant; pass a name, an id, or a key.",
            )


@dataclass(frozen=True)
class Tool:
    """A tool of an assistant."""

    listed: Listed
    command: Any

    @property
    def name(self) -> str:
        """Return its name, such as ``samples_list``."""
        return "_".join(self.listed.words).replace("-", "_")

    @property
    def title(self) -> str:
        """Return the words that call its command."""
        return " ".join(self.listed.words)

    @property
    def description(self) -> str:
        """Return the help of its command, without sentences about options that it lacks."""
        known = [name for each in self.arguments.values() for name in each.param.opts]
        first, *others = paragraphs(self.command.help)
        parts = (_without_options(part, known) for part in others)
        return "\n\n".join(filter(None, (first, *parts, self.listed.limits)))

    @cached_property
    def arguments(self) -> dict[str, Argument]:
        """Return its arguments by name, in the order of the command's parameters."""
        found = (self._argument(param) for param in self.command.params if self.offers(param))
        return {argument.name: argument for argument in found}

    def offers(self, param: Any) -> bool:
        """Return True if a parameter of the command is an argument of the tool."""
        if param.hidden or not param.expose_value or param.name in self.listed.withheld:
            return False
        names = {*param.opts, *param.secondary_opts}
        if not _WITHHELD.isdisjoint(names):
            return False
        if _ALL in names and any(_LIMIT in other.opts for other in self.command.params):
            return False
        is_file = str(param.type.name).lower() in _FILES
        return not is_file and "FILE" not in _words_of(param.metavar, names)

    def _argument(self, param: Any) -> Argument:
        kind = _TYPES.get(str(param.type.name), "string")
        is_limit = _LIMIT in param.opts
        is_list = param.nargs == -1 or bool(getattr(param, "multiple", False))
        default = param.default if isinstance(param.default, (str, int, float)) else None
        low, high = getattr(param.type, "min", None), getattr(param.type, "max", None)
        return Argument(
            param.name,
            kind,
            param,
            is_list,
            required=bool(param.required) or param.name == self.listed.sql,
            choices=tuple(choices(param)),
            low=1 if is_limit else low,
            high=MOST_ROWS if is_limit else high,
            default=ROWS if is_limit else None if default is False else default,
        )

    def schema(self, targets: Sequence[str], default: str) -> dict[str, Any]:
        """Return the JSON Schema of its arguments.

        Args:
            targets: The names of the targets that may be read.
            default: The name of the one that is read if none is given.
        """
        properties: dict[str, Any] = {
            name: argument.schema for name, argument in self.arguments.items()
        }
        properties[_ENV] = {
            "type": "string",
            "enum": list(targets),
            "default": default,
            "description": "The target.",
        }
        if "rdev" in targets:
            properties[_STACK] = {"type": "string", "description": "Stack of the target rdev."}
        required = [name for name, argument in self.arguments.items() if argument.required]
        found: dict[str, Any] = {"type": "object", "properties": properties}
        if required:
            found["required"] = required
        return {**found, "additionalProperties": False}

    def words(self, given: Mapping[str, Any]) -> list[str]:
        """Return the words of the command line for arguments, without the target.

        Options come with their values in the same word, and everything else after ``--``, so no
        value can become another option.

        Raises:
            BadInputError: An argument is unknown, missing, or invalid.
        """
        values = {name: value for name, value in given.items() if value is not None}
        self._check(values)
        for name, argument in self.arguments.items():
            if name not in values and _LIMIT in argument.param.opts:
                values[name] = argument.default
        options: list[str] = []
        positionals: list[str] = []
        for name, value in values.items():
            argument = self.arguments[name]
            (positionals if argument.is_positional else options).extend(argument.words(value))
        return [*self.listed.words, *options, *(["--", *positionals] if positionals else [])]

    def _check(self, values: Mapping[str, Any]) -> None:
        for name in values:
            if name not in self.arguments:
                known = ", ".join([*self.arguments, _ENV])
                raise BadInputError(
                    f"Unknown argument of {self.name}: {name!r}", hint=f"Arguments: {known}."
                )
        for name, argument in self.arguments.items():
            if argument.required and values.get(name) in (None, [], ""):
                raise BadInputError(f"{self.name} requires the argument {name}.")


def _without_options(text: str, known: Sequence[str]) -> str:
    """Return a text without the sentences about other options than the known ones."""
    names = {*known, "--env", "--stack"}
    return " ".join(
        each for each in _SENTENCE.split(text) if names.issuperset(_OPTION.findall(each))
    )


def _longest(names: Sequence[str]) -> str:
    return max(names, key=len)


def _words_of(metavar: Any, names: set[str]) -> set[str]:
    # An argument that is called FILE is the key of an object; an option's value is a local file.
    is_option = any(name.startswith("-") for name in names)
    return set(re.split(r"\W+", str(metavar or ""))) if is_option else set()


def all_tools(root: Any) -> dict[str, Tool]:
    """Return the tools by name; ``root`` is the command line's root command."""
    context = root.context_class(root, info_name="aspencli")
    tools = (Tool(listed, find_command(context, listed.words).command) for listed in LISTED)
    return {tool.name: tool for tool in tools}


def find_tool(tools: Mapping[str, Tool], name: str) -> Tool:
    """Return a tool by name.

    Raises:
        NotFoundError: It does not exist.
    """
    if name not in tools:
        raise NotFoundError(f"No such tool: {name!r}", hint="List the tools again.")
    return tools[name]
