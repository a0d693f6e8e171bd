"""The names of all commands and options, in a file, so that completion does not load them.

`make docs` writes the file from the commands themselves; `make check` fails where the two differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from aspencli.cli.app import GLOBAL_OPTIONS
from aspencli.cli.help import choices, summary, value_name
from aspencli.cli.main import ENTRIES, command
from aspencli.config import KEYS, OUTPUT_FORMATS

# The kinds of stored values, by the placeholder of the argument or option.
_KINDS = {
    "ID|NAME|PREFIX": "groups",
    "GROUP": "groups",
    "ID|NAME|PREFIX|ORGANIZATION": "groups",
    "ID|EMAIL|AUTH0_ID": "users",
    "EMAIL": "users",
    "IDENTIFIER": "samples",
    "KEY": "samples",
    "JOB": "jobs",
    "RUN": "phylo_runs",
    "TREE": "phylo_trees",
    "SLUG": "pathogens",
}
# The same by the command and the option or argument, where the placeholder says too little.
_PLACES = {
    ("db copy", "--from"): "labels",
    ("db copy", "--to"): "labels",
    ("history list", "--target"): "labels",
    ("files show", "file"): "none",
    ("files download", "file"): "none",
    ("help", "words"): "commands",
    ("config get", "name"): "settings",
    ("config set", "name"): "settings",
    ("config set", "value"): "setting_values",
    ("config unset", "name"): "settings",
}
_GLOBALS = {
    "--env": "targets",
    "--stack": "stacks",
    "--org": "groups",
    "--pathogen-slug": "pathogens",
}
_RUN_IDS = frozenset({"ID", "ID|FILE", "ID|JOURNAL"})
_RUN_COMMANDS = re.compile(r"history \w+|[\w-]+ (undo|resume|abandon)")
_FILES = re.compile(r"FILE|PLACE|SCRIPT|JOURNAL|FOLDER|PATH|DIR")
_DEFAULTS = {"history": "list"}  # the command that runs if only the group is given


def render() -> str:
    """Return the file's text: JSON with one line for each command, so that changes merge."""
    lines = [
        f'{{"globals": {_line(_global_options())},',
        f'"aliases": {_line({alias: one.name for one in ENTRIES for alias in one.aliases})},',
        f'"defaults": {_line(_DEFAULTS)},',
        '"commands": {',
        ",\n".join(f'"{" ".join(words)}": {_line(found)}' for words, found in _commands()),
        "}}\n",
    ]
    return "\n".join(lines)


def _line(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _global_options() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in GLOBAL_OPTIONS:
        if option.hidden:
            continue
        value: Any = None
        if option.metavar is not None:
            value = _GLOBALS.get(option.names[0], "none")
        if option.names[0] == "--output":
            value = list(OUTPUT_FORMATS)
        found |= _option(option.names, value, option.help)
    return found


def _commands() -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    root = command()
    yield from _below(root, root.context_class(root, info_name="aspencli"), ())


def _below(
    found: Any, context: Any, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    entry = _entry(found, words)
    if not hasattr(found, "list_commands"):
        yield words, entry
        return
    entry["group"] = True
    yield words, entry
    for name in found.list_commands(context):
        _name, child, _rest = found.resolve_command(context, [name])
        inner = child.context_class(child, info_name=name, parent=context)
        yield from _below(child, inner, (*words, name))


def _entry(found: Any, words: tuple[str, ...]) -> dict[str, Any]:
    entry: dict[str, Any] = {"help": "" if not words else summary(found)}
    if found.hidden:
        entry["hidden"] = True
    given = {name for option in GLOBAL_OPTIONS for name in option.names}
    options: dict[str, Any] = {}
    arguments: list[Any] = []
    for param in found.params:
        if param.param_type_name == "argument":
            arguments.append([_value(words, param), param.nargs != 1])
        elif not param.hidden and not (given.intersection(param.opts) and not param.expose_value):
            is_flag = bool(param.is_flag or param.count)
            names = (*param.opts, *param.secondary_opts)
            options |= _option(names, None if is_flag else _value(words, param), param.help or "")
    if options:
        entry["options"] = options
    if arguments:
        entry["arguments"] = arguments
    return entry


def _option(names: tuple[str, ...], value: Any, text: str) -> dict[str, Any]:
    about = " ".join(text.split()).partition(". ")[0].rstrip(".")
    return {name: [value, about] for name in names}


def _value(words: tuple[str, ...], param: Any) -> Any:
    """Return what can be completed: fixed values, a kind of stored ones, files, or none."""
    placeholder = re.sub(r"[\[\]]|\.\.\.|^-- ", "", value_name(param)).strip()
    is_argument = param.param_type_name == "argument"
    name = param.name if is_argument else param.opts[0]
    path = " ".join(words)
    own = (key.choices for key in KEYS if f"--{key.name}" == name)
    if fixed := choices(param) or list(next(own, ())):
        return fixed
    found = _PLACES.get((path, name)) or _KINDS.get(placeholder)
    if placeholder == "KEY" and words[:1] != ("samples",):
        found = None
    if is_argument and placeholder in _RUN_IDS and _RUN_COMMANDS.fullmatch(path):
        found = "history_runs"
    return found or ("files" if _FILES.search(placeholder) else "none")
