"""JSON Schemas (draft 2020-12) of what commands print, made from their columns and types."""

from __future__ import annotations

import datetime as dt
import enum
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from aspencli.cli.output.formats import Column, Results, load, results_of
from aspencli.errors import BadInputError

DRAFT = "https://json-schema.org/draft/2020-12/schema"
COLUMNS = (
    Column("command", "Command", whole=True, of=str),
    Column("columns", "Columns", of=list[str]),
)
_SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    Path: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    None: {"type": "null"},
    types.NoneType: {"type": "null"},
    dt.date: {"type": "string", "format": "date"},
    dt.datetime: {"type": "string", "format": "date-time"},
    Any: {},
    object: {},
}
_LISTS = (list, tuple, set, frozenset, Sequence, Collection)

Schema = dict[str, Any]


def schema_of(results: Results, name: str) -> Schema:
    """Return the schema of a command's JSON output; ``name`` is its command line."""
    kinds: list[Schema] = []
    tables = list(results.tables())
    if results.document is not None:
        document = results.document
        kinds.append(schema_of_type(load(document) if isinstance(document, str) else document))
        del tables[:1]  # which other formats have in place of the document
    if tables:
        kinds.append({"type": "array", "items": _one_of([*_rows(results, tables)])})
    return {"$schema": DRAFT, "title": name, **_one_of(kinds)}


def _rows(results: Results, tables: Sequence[Sequence[Column]]) -> Iterator[Schema]:
    given = load(results.row) if isinstance(results.row, str) else results.row
    hints = typing.get_type_hints(given) if given is not None else {}
    for table in tables:
        yield {
            "type": "object",
            "properties": {
                column.key: {"title": column.title, **_of_column(column, hints)} for column in table
            },
            "required": [column.key for column in table],
            "additionalProperties": False,
        }


def _of_column(column: Column, hints: Mapping[str, Any]) -> Schema:
    of = column.of
    if isinstance(of, types.FunctionType):
        of = of()
    if isinstance(of, tuple):
        return {"enum": list(of)}
    return schema_of_type(hints.get(column.key, str | None) if of is None else of)


def _one_of(kinds: list[Schema]) -> Schema:
    distinct = [kind for number, kind in enumerate(kinds) if kind not in kinds[:number]]
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


def schema_of_type(of: Any) -> Schema:
    """Return the schema of a type's values in JSON.

    Raises:
        TypeError: There is no rule for the type.
    """
    if of in _SIMPLE:
        return dict(_SIMPLE[of])
    origin, arguments = typing.get_origin(of) or of, typing.get_args(of)
    if origin in {typing.Union, types.UnionType}:
        return _of_union(arguments)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in _LISTS:
        return {"type": "array", **({"items": schema_of_type(arguments[0])} if arguments else {})}
    if origin in {dict, Mapping}:
        values = schema_of_type(arguments[1]) if arguments else {}
        return {"type": "object", **({"additionalProperties": values} if values else {})}
    return _of_class(origin)


def _of_class(kind: Any) -> Schema:
    if typing.is_typeddict(kind):
        return _of_typed_dict(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        return _object({name: hints[name] for name in names}, names)
    raise TypeError(f"no JSON schema for {kind!r}")


def _of_union(kinds: Sequence[Any]) -> Schema:
    found = [schema_of_type(kind) for kind in kinds]
    if {} in found:
        return {}
    plain = [kind["type"] for kind in found if list(kind) == ["type"]]
    if len(plain) == len(found):
        return {"type": plain}
    return _one_of(found)


def _of_typed_dict(kind: Any) -> Schema:
    hints = typing.get_type_hints(kind, include_extras=True)
    optional = {
        name for name, hint in hints.items() if typing.get_origin(hint) is typing.NotRequired
    }
    types_ = typing.get_type_hints(kind)
    required = [name for name in types_ if kind.__total__ and name not in optional]
    return _object(types_, required)


def _object(members: Mapping[str, Any], required: Sequence[str]) -> Schema:
    return {
        "type": "object",
        "properties": {name: schema_of_type(of) for name, of in members.items()},
        "required": list(required),
        "additionalProperties": False,
    }


# Commands


def required_results(command: Any, name: str) -> Results:
    """Return what a command prints.

    Raises:
        BadInputError: It has no JSON output.
    """
    found = results_of(command)
    if found is None:
        raise BadInputError(
            f"{name} has no JSON output.",
            hint="List the commands that have: aspencli schema",
        )
    return found


def commands_below(ctx: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each command of a group that is not hidden, with the words that call it."""
    group = ctx.command
    for name in group.list_commands(ctx):
        _name, command, _rest = group.resolve_command(ctx, [name])
        if command.hidden:
            continue
        if hasattr(command, "list_commands"):
            inner = command.context_class(command, info_name=name, parent=ctx)
            yield from commands_below(inner, (*words, name))
        else:
            yield (*words, name), command


def listed(ctx: Any, words: Sequence[str], *, people: bool) -> Iterator[dict[str, Any]]:
    """Yield a row of `COLUMNS` for each command of a group that has JSON output."""
    for path, command in commands_below(ctx, tuple(words)):
        if (found := results_of(command)) is not None:
            names = [column.key for column in found.columns()]
            yield {"command": " ".join(path), "columns": ", ".join(names) if people else names}
