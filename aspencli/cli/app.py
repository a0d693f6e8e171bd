"""Typer with global options on every command, lazily loaded groups, and old spellings.

The old command-line tool's spellings are translated before a command is parsed, which keeps them
out of the help. If a spelling had another meaning in the old tool than the help suggests, the old
meaning is kept only where nothing else can be meant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache, wraps
from importlib import import_module
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

import typer
from typer._click.exceptions import UsageError
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import (
    get_command_from_info,
    get_command_name,
    get_group,
    get_group_from_info,
)
from typer.models import CommandFunctionType, CommandInfo, TyperInfo

from aspencli import __version__
from aspencli.cli.help import help_page, summary
from aspencli.config import OUTPUT_FORMATS
from aspencli.tabular import SIZE_OPTION, SIZE_VARIABLE

if TYPE_CHECKING:
    from aspencli.cli.context import AppContext


COLUMNS_OPTION = "--columns"
PANEL = "Global options (before or after the command)"
EPILOG = "Global options such as --env, --output and --yes: aspencli --help"
WATCH = "--watch"
"""An option whose value is optional; see `aspencli.cli.watching`."""
DOCS = "https://github.com/chanzuckerberg/czgenepi"
"""Where the documentation is; the help shows it."""


class GlobalOption(NamedTuple):
    """An option that every group and every command accepts."""

    names: tuple[str, ...]
    help: str
    metavar: str | None = None  # None for a flag
    constant: tuple[str, str] | None = None  # the option and value it is short for
    hidden: bool = False
    completions: tuple[str, ...] = ()
    root_names: tuple[str, ...] = ()  # further names, of the root only: elsewhere they may be taken

    @property
    def key(self) -> str:
        """Return the name that its value is stored under."""
        return self.constant[0] if self.constant else self.names[0].lstrip("-").replace("-", "_")


GLOBAL_OPTIONS = (
    GlobalOption(
        ("--env",),
        "The target: local, rdev, staging, prod, or one from your config file. (env: ASPEN_ENV)",
        "NAME",
        completions=("local", "rdev", "staging", "prod"),
    ),
    GlobalOption(("--stack",), "Stack of the target rdev. (env: ASPEN_STACK)", "NAME"),
    GlobalOption(("--api",), "Use another address of the target's API. (env: ASPEN_API)", "URL"),
    GlobalOption(
        ("--account",),
        "Account to use instead of the active one; see auth list. (env: ASPEN_ACCOUNT)",
        "NAME",
    ),
    GlobalOption(("--org",), "Group to work in. (env: CZGE_ORG)", "ID"),
    GlobalOption(
        ("--pathogen-slug",), "Pathogen, such as SC2 or MPX. (env: CZGE_PATHOGEN)", "SLUG"
    ),
    GlobalOption(
        ("--output", "-o"),
        "Format: table, json, jsonl, csv, or tsv. Default: table on a terminal, otherwise tsv.",
        "FORMAT",
        completions=OUTPUT_FORMATS,
    ),
    GlobalOption(
        (COLUMNS_OPTION,),
        "Show only these columns, in this order, such as id,name; in JSON, these fields.",
        "NAMES",
    ),
    GlobalOption(
        ("--jq",),
        "Print what this jq expression makes of the JSON output, such as '.[].name'.",
        "EXPR",
    ),
    GlobalOption(
        ("--template",),
        "Print this text for each row, with its values in place of {name}.",
        "TEXT",
    ),
    GlobalOption(("--yes", "-y"), "Write without asking. Production also requires --confirm."),
    GlobalOption(("--confirm",), "Confirm a write by giving the target's name.", "NAME"),
    GlobalOption(
        ("--override-read-only",),
        "Write in this run even if the database or role is set to read-only.",
    ),
    GlobalOption(
        ("--override-timeouts",),
        "Use aspencli's time limits in this run even if the database or role sets shorter ones.",
    ),
    GlobalOption(("--no-input",), "Never prompt; fail if confirmation would be required."),
    GlobalOption(
        ("--quiet",), "Show only results, warnings, and errors: no progress, notes, or hints."
    ),
    GlobalOption(
        ("--verbose",),
        "Also show the target, connections, requests, and how long everything took.",
    ),
    GlobalOption(
        ("--debug",), "Log requests (secrets masked), and show the traceback of an error."
    ),
    GlobalOption(
        (SIZE_OPTION,),
        f"Maximum size of a compressed input once expanded, such as 2G. (env: {SIZE_VARIABLE})",
        "SIZE",
    ),
    GlobalOption(("--version",), "Show the version and exit.", root_names=("-V",)),
    GlobalOption(("--local",), "", constant=("env", "local"), hidden=True),
)


def _make(option: GlobalOption, *, is_root: bool) -> TyperOption:
    flag = option.metavar is None
    names = (*option.names, *(option.root_names if is_root else ()))
    return TyperOption(
        # The prefix avoids a clash with a parameter of the command itself.
        param_decls=[f"global_{option.names[0].lstrip('-').replace('-', '_')}", *names],
        help=option.help,
        metavar=option.metavar,
        is_flag=flag or None,
        default=False if flag else None,
        type=None if flag else str,
        expose_value=False,
        callback=_keeper(option),
        hidden=option.hidden or not is_root,
        rich_help_panel=PANEL,
        autocompletion=_completer(option),
    )


def _completer(option: GlobalOption) -> Callable[..., list[str]] | None:
    if option.names[0] == COLUMNS_OPTION:
        return _complete_columns
    return (lambda *_: list(option.completions)) if option.completions else None


def _complete_columns(ctx: Any, _args: Any, incomplete: str) -> list[str]:
    from aspencli.cli.output.choosing import completions
    from aspencli.cli.output.formats import results_of

    return completions(results_of(ctx.command), incomplete)


def _keeper(option: GlobalOption) -> Callable[..., None]:
    def keep(ctx: Any, _param: Any, value: Any) -> None:
        if value in (None, False) or ctx.resilient_parsing:
            return
        if option.key == "version":
            typer.echo(version_line())
            raise typer.Exit
        if option.names[0] == SIZE_OPTION:
            from aspencli.tabular import source

            source.allow_expansion(value)
            return
        app: AppContext = ctx.find_root().obj
        app.options.give(option.key, option.constant[1] if option.constant else value)

    return keep


class AspenCommand(TyperCommand):
    """A command that also accepts the global options."""

    def __init__(self, name: str | None, **attrs: Any):
        super().__init__(name, **attrs)
        self.params.extend(_free(self.params))
        self.epilog = _with_pointer(self.epilog)

    def get_help_option_names(self, ctx: Any) -> list[str]:  # noqa: ARG002 - as Typer has it
        """Return the names of the help option."""
        return _help_names(self.params)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, accepting the old tool's spellings too."""
        group = ctx.parent.command.name if ctx.parent else None
        known = _known(self.params)
        args = modernize((group or "", self.name or ""), args, known)
        if WATCH in args:
            from aspencli.cli.watching import with_seconds

            args = with_seconds(args, known)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, after checking the options about its results."""
        app = ctx.find_root().obj
        if app is not None:
            app.prepare_output(self, ctx.command_path)
        return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        formatter.write(help_page(self, ctx))


class AspenGroup(TyperGroup):
    """A group that accepts the global options, and old spellings of its command names."""

    is_root = False

    def __init__(self, **attrs: Any):
        super().__init__(**attrs)
        self.params.extend(_free(self.params, is_root=self.is_root))
        self.epilog = self.epilog if self.is_root else _with_pointer(self.epilog)

    def get_help_option_names(self, ctx: Any) -> list[str]:  # noqa: ARG002 - as Typer has it
        """Return the names of the help option."""
        return _help_names(self.params)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before the command; ``--pathogen_slug`` means ``--pathogen-slug``."""
        return super().parse_args(ctx, _hyphened(args, _known(self.params)))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        formatter.write(help_page(self, ctx))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is Typer's
        """Return the names of the commands, without building them."""
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command with that name; ``update_public_ids`` finds ``update-public-ids``."""
        return super().get_command(ctx, cmd_name) or super().get_command(
            ctx, cmd_name.replace("_", "-")
        )


def _help_names(params: Sequence[Any]) -> list[str]:
    """Return the names of the help option, whichever context asks first: Click keeps the answer."""
    taken = {name for param in params for name in (*param.opts, *param.secondary_opts)}
    return [name for name in ("-h", "--help") if name not in taken]


def _known(params: Sequence[Any]) -> dict[str, bool]:
    """Return the option names, and whether each option takes a value."""
    return {
        name: not param.is_flag and not param.count
        for param in params
        if param.param_type_name == "option"
        for name in (*param.opts, *param.secondary_opts)
    }


def _with_pointer(epilog: str | None) -> str:
    return f"{epilog}\n\n{EPILOG}" if epilog else EPILOG


def _free(params: Sequence[Any], *, is_root: bool = False) -> list[TyperOption]:
    taken = {name for param in params for name in param.opts}
    return [
        _make(option, is_root=is_root)
        for option in GLOBAL_OPTIONS
        if not taken.intersection(option.names)
    ]


class Entry(NamedTuple):
    """A command group of the root."""

    name: str
    help: str
    # Its module in `aspencli.cli.commands` if that is not the name, and after a colon the name of
    # its `typer.Typer` there, by default `app`.
    source: str = ""
    aliases: tuple[str, ...] = ()

    def load(self) -> AspenTyper:
        """Import the module and return the group."""
        module, _, app = (self.source or self.name.replace("-", "_")).partition(":")
        found = getattr(import_module(f"aspencli.cli.commands.{module}"), app or "app")
        assert isinstance(found, AspenTyper)  # noqa: S101 - a test loads every entry
        return found


class _Commands(Mapping[str, Any]):
    """The commands of a group, each built on first use: all 25 of `db` take 35 ms."""

    def __init__(self, app: AspenTyper):
        self._app = app
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            if name not in self._registered():
                self._app.register_later(name)
            info = self._registered().get(name) or self._all()[name]
            common: Any = {
                "pretty_exceptions_short": self._app.pretty_exceptions_short,
                "rich_markup_mode": self._app.rich_markup_mode,
            }
            if isinstance(info, TyperInfo):
                self._built[name] = get_group_from_info(
                    info, **common, suggest_commands=self._app.suggest_commands
                )
            else:
                self._built[name] = get_command_from_info(info, **common)
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _registered(self) -> dict[str, CommandInfo | TyperInfo]:
        commands = {_name_of(info): info for info in self._app.registered_commands}
        groups = {str(info.name): info for info in self._app.registered_groups}
        return {**commands, **groups}

    def _all(self) -> dict[str, CommandInfo | TyperInfo]:
        self._app.register_later()
        return self._registered()


def _name_of(info: CommandInfo) -> str:
    assert info.callback is not None  # noqa: S101 - it is registered by a decorator
    return info.name or get_command_name(info.callback.__name__)


@cache
def load_group(entry: Entry) -> TyperGroup:
    """Return the command group of an entry."""
    app = entry.load()
    bare = copy(app)
    bare.registered_commands, bare.registered_groups = [], []
    found = get_group(bare)
    found.name = entry.name
    found.commands = _Commands(app)  # type: ignore[assignment] # nothing is added to it
    return found


class RootGroup(AspenGroup):
    """The root group, which lists its groups from a table and loads each on first use.

    Commands registered directly, such as ``help``, follow the groups.
    """

    is_root = True
    entries: tuple[Entry, ...] = ()

    def __init__(self, **attrs: Any):
        super().__init__(**attrs)
        self._own = dict(self.commands)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before the command; those about completion use our scripts."""
        if any(arg.startswith(("--install-completion", "--show-completion")) for arg in args):
            from aspencli.cli.completion.scripts import use_own_scripts

            use_own_scripts()
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is Typer's
        """Return the names of the groups in table order, and of the commands."""
        return [*(entry.name for entry in self.entries), *self._own]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - same
        """Return a command, a placeholder for a group, or None; see `resolve_command`."""
        if cmd_name in self._own:
            return self._own[cmd_name]
        entry = self._entry(cmd_name)
        return TyperCommand(entry.name, help=entry.help) if entry else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Resolve the command, loading the real group."""
        args = [*OLD_COMMANDS.get(args[0].replace("_", "-"), args[:1]), *args[1:]]
        # Typer's "Did you mean" suggestions are looked up here.
        self.commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        name, stand_in, rest = super().resolve_command(ctx, args)
        entry = self._entry(stand_in.name or "") if stand_in else None
        if entry is None:
            return name, stand_in, rest
        return entry.name, load_group(entry), rest

    def _entry(self, name: str) -> Entry | None:
        wanted = name.replace("_", "-")
        return next((e for e in self.entries if wanted in (e.name, *e.aliases)), None)


def version_line() -> str:
    """Return the program's name and version."""
    return f"aspencli {__version__}"


def find_command(root: Any, words: Sequence[str]) -> Any:
    """Return the context of the command that the words call; ``.command`` is the command.

    The words are the names of a group and a command, or of a group, or nothing.

    Raises:
        UsageError: The command does not exist.
    """
    found = root
    for word in words:
        if not isinstance(found.command, TyperGroup):
            found.fail(f"No such command {word!r}: '{found.command_path}' has no subcommands.")
        name, command, _rest = found.command.resolve_command(found, [word])
        found = command.context_class(command, info_name=name, parent=found)
    return found


def complete_command(ctx: Any, args: Sequence[str], incomplete: str) -> list[tuple[str, str]]:
    """Return the names, with their help, that may follow the words of ``aspencli help``."""
    words = list(ctx.params.get("words") or args)
    try:
        found = find_command(ctx.find_root(), words)
    except UsageError:
        return []
    if not isinstance(found.command, TyperGroup):
        return []
    found_commands = (
        (name, found.command.get_command(found, name))
        for name in found.command.list_commands(found)
        if name.startswith(incomplete)
    )
    return [(name, summary(each)) for name, each in found_commands if each and not each.hidden]


def examples(*lines: str) -> str:
    """Return a command's epilog with usage examples; each must start with ``aspencli``."""
    return "\n\n".join(["Example:" if len(lines) == 1 else "Examples:", *lines])


def group(help_text: str) -> AspenTyper:
    """Return a new command group whose commands accept the global options."""
    return AspenTyper(cls=AspenGroup, help=help_text, no_args_is_help=True, add_completion=False)


def expanded(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command with an option for each field of its parameters that are dataclasses."""
    hints = get_type_hints(function, include_extras=True)
    bundles: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: dict[str, Parameter] = {}
    for one in signature(function).parameters.values():
        parameters[one.name] = one.replace(annotation=hints[one.name])
        if one.name not in bundles:
            continue
        del parameters[one.name]
        options = get_type_hints(bundles[one.name], include_extras=True)
        for each in fields(bundles[one.name]):
            default = Parameter.empty if each.default is MISSING else each.default
            option = {"annotation": options[each.name], "default": default}
            parameters[each.name] = one.replace(name=each.name, **option)

    @wraps(function)
    def command(**values: Any) -> None:
        for name, bundle in bundles.items():
            given = {each.name: values.pop(each.name) for each in fields(bundle)}
            values[name] = bundle(**given)
        function(**values)

    ordered = sorted(parameters.values(), key=lambda one: one.default is not Parameter.empty)
    # Typer reads both.
    command.__annotations__ = {one.name: one.annotation for one in ordered}
    command.__signature__ = Signature(ordered)  # type: ignore[attr-defined]  # inspect uses it
    return command


@dataclass
class _Later:
    """Commands of a group whose modules are imported when one of them, or their list, is needed."""

    names: tuple[str, ...]
    register: Callable[[], None]
    commands: list[CommandInfo] | None = None
    groups: list[TyperInfo] = field(default_factory=list)


class AspenTyper(typer.Typer):
    """A Typer app whose commands are instances of `AspenCommand`."""

    def __init__(self, **attrs: Any):
        super().__init__(**attrs)
        self._later: list[_Later] = []

    def later(self, *names: str) -> Callable[[Callable[[], None]], None]:
        """Return a decorator of a function that registers commands when they are needed.

        Args:
            names: The commands; without names, any that no other such function registers.
        """

        def add(register: Callable[[], None]) -> None:
            self._later.append(_Later(names, register))

        return add

    def later_from(self, place: str, *names: str) -> None:
        """Register commands of another module when they are needed.

        Args:
            place: A module of ``aspencli.cli.commands`` and its function for this app, such as
                ``bulk:register_samples``.
            names: The commands, as in `later`.
        """

        def register() -> None:
            module, _, function = place.partition(":")
            getattr(import_module(f"aspencli.cli.commands.{module}"), function)(self)

        self._later.append(_Later(names, register))

    def register_later(self, name: str | None = None) -> None:
        """Register commands that are not registered yet: the one with a name, or all."""
        chosen = self._later
        if name is not None:
            named = [later for later in chosen if name in later.names]
            chosen = named or [later for later in chosen if not later.names]
        for later in chosen:
            if later.commands is None:
                commands, groups = len(self.registered_commands), len(self.registered_groups)
                later.register()
                later.commands = self.registered_commands[commands:]
                later.groups = self.registered_groups[groups:]
        # The order is that of the help, whichever command was needed first.
        places = {
            id(one): number
            for number, later in enumerate(self._later)
            for one in (*(later.commands or ()), *later.groups)
        }
        self.registered_commands.sort(key=lambda one: places.get(id(one), -1))
        self.registered_groups.sort(key=lambda one: places.get(id(one), -1))

    def command(
        self, *args: Any, **attrs: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Register a command as Typer does."""
        attrs.setdefault("cls", AspenCommand)
        return super().command(*args, **attrs)


TRUE = frozenset({"true", "t", "yes", "y", "on"})
FALSE = frozenset({"false", "f", "no", "n", "off"})
"""The words for booleans, without 1 and 0, which can also be sample IDs."""


@dataclass(frozen=True)
class Old:
    """The old spellings of one command."""

    # What replaces each option: its current name, or an option and its value.
    options: Mapping[str, str] = field(default_factory=dict)
    # The current flags for yes and no, by option that took a word.
    booleans: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    headers: Collection[str] = ()  # flags that asked for headers, which machine formats now have
    positionals: Callable[[list[str]], tuple[list[str], list[str]]] | None = None


def _email(words: list[str]) -> tuple[list[str], list[str]]:
    """Turn the first argument, the address of a new user, into ``--email``."""
    return words[1:], ["--email", words[0]] if words else []


def _subtree(words: list[str]) -> tuple[list[str], list[str]]:
    """Turn the last argument into ``--subtree-size`` if it is a number."""
    is_size = len(words) > 1 and words[-1].isascii() and words[-1].isdigit()
    return (words[:-1], ["--subtree-size", words[-1]]) if is_size else (words, [])


_SAMPLE = Old(
    {"--private-id": "--private-identifier", "--public-id": "--public-identifier"},
    booleans={"--private": ("--private", "--public")},
)
_TREE = Old({"--public-ids": "--id-style public", "--private-ids": "--id-style private"})
OLD: Mapping[tuple[str, str], Old] = {
    ("usher", "get-link"): Old(positionals=_subtree),
    ("identity", "sync"): Old({"--source-of-truth": "--source", "--delete-ok": "--delete"}),
    ("users", "update-me"): Old(
        {"--ack-policy-version": "--acknowledged-policy-version"},
        booleans={"--agreed-to-tos": ("--agreed-to-tos", "--not-agreed-to-tos")},
    ),
    ("users", "create"): Old({"--group-admin": "--role admin"}, positionals=_email),
    ("groups", "create"): Old({"--tree-location": "--default-tree-location"}),
    ("phylo-trees", "download"): _TREE,
    ("phylo-trees", "selected-samples"): _TREE,
    ("samples", "update"): _SAMPLE,
    ("samples", "create"): _SAMPLE,
    ("samples", "validate-ids"): Old(headers=("-h", "--show-headers")),
    ("phylo-runs", "create"): Old(
        {"-n": "--name", "-t": "--tree-type", "--type": "--tree-type", "-a": "--template-args"},
        headers=("-h", "--show-headers"),
    ),
    ("phylo-runs", "list"): Old(headers=("--print-headers",)),
}
"""Keyed by the current names of group and command."""
OLD_COMMANDS: Mapping[str, Sequence[str]] = {
    # The script's default; an option that follows replaces it.
    "sync-users": ("identity", "sync", "--source", "db"),
}
"""The words that replace a command which was a program of its own."""


def modernize(
    command: tuple[str, str], args: Sequence[str], known: Mapping[str, bool]
) -> list[str]:
    """Rewrite the arguments of a command.

    ``command`` has the current names of the group and the command, and ``known`` the command's
    option names, and whether each takes a value.
    """
    old = OLD.get(command)
    if old is None:  # the arguments may be for another program, so their order is kept
        return [_hyphened_option(typed, known) for typed in args]
    options: list[str] = []
    words: list[str] = []
    queue = list(args)
    # On its own, -h always means help.
    drops = {name for name in old.headers if name != "-h" or len(queue) > 1}
    while queue:
        typed = queue.pop(0)
        if typed == "--":  # the rest are positional arguments
            return [*options, *_placed(old, [*words, *queue], after_dashes=True)]
        if typed == "-" or not typed.startswith("-"):
            words.append(typed)
        elif typed not in drops:
            options += _option(old, typed, queue, known)
    return [*options, *_placed(old, words)]


def _placed(old: Old, words: list[str], *, after_dashes: bool = False) -> list[str]:
    found: list[str] = []
    if old.positionals is not None:
        words, found = old.positionals(words)
    return [*found, *(["--"] if after_dashes else []), *words]


def _option(old: Old, typed: str, queue: list[str], known: Mapping[str, bool]) -> list[str]:
    """Rewrite an option, taking its value from the queue if needed."""
    if not typed.startswith("--") and typed[:2] not in old.options:
        return _short(typed, queue, known)
    name, is_joined, value = typed.partition("=")
    if not typed.startswith("--"):
        name, value = typed[:2], typed[2:]
        is_joined = "=" if value else ""
    if name not in known:
        hyphened = name.replace("_", "-")
        name, *with_value = old.options.get(hyphened, "").split() or [hyphened]
        if with_value:
            return [name, *with_value]
    if name in old.booleans:
        word = value if is_joined else queue[0] if queue else ""
        meant = word.strip().lower()
        if meant in TRUE or meant in FALSE:
            if not is_joined:
                queue.pop(0)
            return [old.booleans[name][meant in FALSE]]
    takes_next = known.get(name, False) and not is_joined and queue
    return [name + is_joined + value, *([queue.pop(0)] if takes_next else [])]


def _short(typed: str, queue: list[str], known: Mapping[str, bool]) -> list[str]:
    """Return a group of short options, with the value of the last one if it takes one."""
    for number, letter in enumerate(typed[1:], start=2):
        if known.get(f"-{letter}", False):
            is_last = number == len(typed)
            return [typed, *([queue.pop(0)] if is_last and queue else [])]
    return [typed]


def _hyphened_option(typed: str, known: Mapping[str, bool]) -> str:
    name, is_joined, value = typed.partition("=")
    hyphened = name.replace("_", "-")
    is_old = name.startswith("--") and name not in known and hyphened in known
    return hyphened + is_joined + value if is_old else typed


def _hyphened(args: list[str], known: dict[str, bool]) -> list[str]:
    """Replace old spellings of the options before the command name.

    As in the old tool, ``--env`` without a value selects the local target.
    """
    found: list[str] = []
    rest = list(args)
    while rest and rest[0].startswith("-") and rest[0] != "--":
        name, joined, value = rest.pop(0).partition("=")
        name = name if name in known else name.replace("_", "-")
        found.append(name + joined + value)
        if known.get(name) and not joined:
            lacks_value = name == "--env" and (not rest or rest[0].startswith("-"))
            found += ["local"] if lacks_value else rest[:1]
            del rest[: 0 if lacks_value else 1]
    return [*found, *rest]
