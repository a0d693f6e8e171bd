"""Options shared by several commands, their defaults, and the data that a request refers to."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli.context import Backend
from aspencli.copies.choices import Trees
from aspencli.errors import BadInputError
from aspencli.samples.keys import SampleKey
from aspencli.text import clean_text, counted

if TYPE_CHECKING:
    from aspencli.cli.context import AppContext
    from aspencli.cli.output.console import Output
    from aspencli.reference.remote import Scope


TABLE_LIMIT = 100  # rows; more than a person reads


def checked(
    what: str, clean: Callable[[str, str], str] = clean_text
) -> Callable[[str | None], str | None]:
    """Return an option callback that refuses blank or invisible text, or as ``clean`` does."""
    return lambda value: None if value is None else clean(value, what)


def all_checked(what: str) -> Callable[[list[str]], list[str]]:
    """Return a callback like `checked` for an option or argument with several values."""
    return lambda values: [clean_text(value, what) for value in values]


def text_option(help_text: str, *names: str, metavar: str = "TEXT", what: str = "") -> Any:
    """Return an option with one text; if it is said what that is, it cannot be blank."""
    callback = checked(what) if what else None
    return typer.Option(*names, metavar=metavar, help=help_text, callback=callback)


def place_option(help_text: str) -> Any:
    """Return the option for a location by its id or name."""
    return text_option(help_text, "--location", "--location-id", metavar="ID|PLACE")


def parse_json(text: str, option: str, hint: str) -> Any:
    """Return the value of an option that is JSON.

    Raises:
        BadInputError: It is not JSON.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadInputError(f"Invalid JSON for {option}: {error}", hint=hint) from error


def all_among(what: str, known: Sequence[str]) -> Callable[[list[str] | None], list[str]]:
    """Return a callback for several values that refuses any value not in the list."""

    def check(values: list[str] | None) -> list[str]:
        for value in values or ():
            if value not in known:
                raise BadInputError(
                    f"Invalid {what}: {value!r}", hint=f"Choose from {', '.join(known)}."
                )
        return values or []

    return check


def parse_typed_day(text: str, zone: dt.tzinfo | None = None) -> dt.date:
    """Parse a date, also in words such as ``yesterday``; see `aspencli.tabular.day_words`.

    Today is the date in the given time zone, by default in this machine's.

    Raises:
        BadInputError: The text is not a date.
    """
    from aspencli.tabular.dates import understand_day

    return understand_day(text, dt.datetime.now(zone).astimezone(zone)).day


def clear_fields(wanted: dict[str, Any], fields: Sequence[StrEnum] | None) -> None:
    """Add the fields of ``--clear`` to the changes, each as None.

    Raises:
        BadInputError: A field is also given a value.
    """
    for chosen in fields or ():
        column = chosen.value.replace("-", "_")
        if column in wanted:
            raise BadInputError(
                f"--{chosen.value} and --clear {chosen.value} contradict each other.",
                hint="Pass one of them.",
            )
        wanted[column] = None


def file_option(noun: str, columns: str) -> Any:
    """Return the option for a file with one key per line, or a table with a column of keys."""
    text = f"File with one {noun} per line, or a table with {columns} column; - for stdin."
    return typer.Option("--from", metavar="FILE", help=text)


group_option = partial(text_option, metavar="ID|NAME|PREFIX", what="the group")
_pathogen = partial(text_option, metavar="SLUG", what="the pathogen")
GroupOption = Annotated[
    str | None, group_option("Only this group. Default: --org, or else all groups.", "--group")
]
PathogenOption = Annotated[
    str | None,
    _pathogen("Only this pathogen. Default: --pathogen-slug if set, or else all.", "--pathogen"),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help=f"Maximum rows (0 for all). Default: {TABLE_LIMIT} in a table, otherwise all.",
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="Show all rows.")]
AfterOption = Annotated[
    int | None, typer.Option("--after", metavar="ID", help="Start after the row with this id.")
]
ViaOption = Annotated[
    Backend | None,
    typer.Option(
        help="Backend: database or API. Default: the database for local, the API for other "
        "targets. (env: ASPEN_VIA)",
    ),
]
ReasonOption = Annotated[
    str | None,
    text_option(
        "Why the session writes, for the history. Required on shared and production targets.",
        "--reason",
        what="the reason",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be written without writing anything.")
]
TreesOption = Annotated[
    Trees,
    typer.Option(
        "--trees", help="Keep trees with their files in S3, or drop both, which needs no AWS."
    ),
]
Identifiers = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IDENTIFIER...",
        help="Public or private identifiers; - reads them from stdin.",
    ),
]
From = Annotated[str | None, file_option("identifier", "a private_identifier or public_identifier")]
By = Annotated[
    SampleKey | None,
    typer.Option(
        metavar="FIELD",
        help=f"Type of the keys: {', '.join(SampleKey)}. Default: any that matches.",
    ),
]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Skip identifiers that match no sample.")
]
GROUP_NAME = text_option("Name: 3 to 128 characters, unique among groups.")
GROUP_PREFIX = text_option(
    "Prefix of its public identifiers: 2 to 25 characters, unique among groups."
)
DEFAULT_TREE_LOCATION = text_option(
    "Default location for its trees: an id, or Region / Country / Division / Location "
    "(the last parts are optional). See: aspencli locations search.",
    *("--default-tree-location", "--default-tree-location-id"),
    metavar="ID|PLACE",
    what="the location",
)


@dataclass(frozen=True, kw_only=True)
class NewGroupOptions:
    """The options of every command that creates a group."""

    name: Annotated[str, GROUP_NAME]
    prefix: Annotated[str, GROUP_PREFIX]
    default_tree_location: Annotated[str, DEFAULT_TREE_LOCATION]


@dataclass(frozen=True, kw_only=True)
class AddressOptions:
    """The options for the address of a group."""

    address: Annotated[str | None, text_option("Street address.")] = None
    division: Annotated[str | None, text_option("Division, such as a state.")] = None
    location: Annotated[str | None, text_option("City or county.")] = None


@dataclass(frozen=True, kw_only=True)
class ScopeOptions:
    """The options of every command that works in one group, for one pathogen."""

    group: Annotated[
        str | None,
        group_option(
            "Group that owns the data. Default: --org, or else your only group.", "--group"
        ),
    ] = None
    pathogen: Annotated[
        str | None, _pathogen("Pathogen. Default: --pathogen-slug.", "--pathogen")
    ] = None


@dataclass(frozen=True, kw_only=True)
class KeyOptions:
    """The options of every command for samples that are named by keys of any type."""

    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY...",
            help="Ids, private identifiers, or public identifiers; - reads them from stdin.",
        ),
    ] = None
    file: Annotated[
        str | None, file_option("key", "an id, private_identifier, or public_identifier")
    ] = None
    by: By = None


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The options of every command for samples that are named by their identifiers."""

    identifiers: Identifiers = None
    file: From = None
    skip_missing: SkipMissing = False


@dataclass(frozen=True, kw_only=True)
class OutOptions:
    """The options of every command that downloads something."""

    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-O",
            metavar="FILE",
            help="Output file; - for stdout. Default: a new file here, or stdout if redirected.",
        ),
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False


@dataclass(frozen=True, kw_only=True)
class MemberOptions:
    """The options of every command about one group."""

    group: Annotated[
        str | None,
        typer.Argument(
            metavar="[GROUP]",
            help="Group id, name, or prefix. Default: --org.",
            show_default=False,
            callback=checked("the group"),
        ),
    ] = None
    old: Annotated[
        str | None,
        typer.Option("--group", "--group-id", hidden=True, callback=checked("the group")),
    ] = None


def chosen_group(context: AppContext, given: str | None) -> str | None:
    """Return the group to use: the command's own option, or else the global ``--org``."""
    return given if given is not None else chosen_org(context)


def chosen_org(context: AppContext) -> str | None:
    """Return the group of the global ``--org``, which API requests act for, or None."""
    org = context.config.setting("org")
    return clean_text(org.value, f"org ({org.source})") if org.value is not None else None


def chosen_pathogen(context: AppContext, given: str | None) -> str | None:
    """Return the pathogen to filter by, or None; the built-in default does not filter lists."""
    if given is not None:
        return given
    slug = context.config.setting("pathogen_slug")
    if slug.value is None or slug.source == "default":
        return None
    return clean_text(slug.value, f"pathogen_slug ({slug.source})")


def chosen_limit(out: Output, limit: int | None, everything: bool) -> int | None:
    """Return the maximum number of rows to show, or None for all.

    Raises:
        BadInputError: Both a number and all rows were requested.
    """
    if everything and limit:
        raise BadInputError("--all and --limit cannot be combined.", hint="Pass one or the other.")
    if everything or limit == 0:
        return None
    if limit is None and out.chosen_form == "table":
        return TABLE_LIMIT
    return limit


def chosen_scope(context: AppContext, given: ScopeOptions, *, writing: bool = False) -> Scope:
    """Return the chosen group and pathogen, and print them on a terminal.

    ``writing`` means that the command changes data of the group, including in a dry run.

    Raises:
        CredentialsError: If the command writes, and the user may only read.
    """
    from aspencli.reference.remote import Scope, find_org, require_writer

    org = find_org(context.api(), chosen_group(context, given.group))
    if writing:
        require_writer(context.api().users.me(), org)
    scope = Scope(org, given.pathogen or context.config.value("pathogen_slug") or "")
    if context.out.err.isatty():
        context.out.info(f"{context.describe_target(Backend.API)}, {scope}")
    return scope


def named_group(context: AppContext, named: MemberOptions) -> str:
    """Return the group named by argument, option, or ``--org``; there is no other default.

    Raises:
        BadInputError: If no group is named, or two different ones are.
    """
    given, option = named.group, named.old
    if given is not None and option is not None and given != option:
        raise BadInputError(
            f"Two different groups were given: {given} and {option}.", hint="Pass one of them."
        )
    found = chosen_group(context, given or option)
    if found is None:
        raise BadInputError(
            "No group was given.", hint="Pass a group id, name, or prefix, or set CZGE_ORG."
        )
    return found


def chosen_ids(
    context: AppContext, given: list[str] | None, file: str | None, columns: Sequence[str]
) -> list[str]:
    """Return the given identifiers without duplicates."""
    from aspencli.tabular.identifiers import read_ids

    found = read_ids(given or [], file, columns)
    if found.repeated:
        context.out.info(f"Note: ignored {counted(found.repeated, 'duplicate')}.")
    return found.ids


def chosen_samples(
    context: AppContext, samples: SampleOptions, given: ScopeOptions, *, writing: bool = False
) -> tuple[list[str], Scope]:
    """Return the identifiers of samples, and the group and pathogen that they belong to."""
    from aspencli.samples.keys import IDENTIFIERS

    ids = chosen_ids(context, samples.identifiers, samples.file, IDENTIFIERS)
    return ids, chosen_scope(context, given, writing=writing)


def missing_ids(context: AppContext, scope: Scope, ids: Sequence[str]) -> list[str]:
    """Return the identifiers that match no sample."""
    from aspencli.samples.remote import find_missing

    with context.out.progress("Looking up samples", len(ids)) as tick:
        return find_missing(context.api().samples, scope, ids, tick)


def known_ids(
    context: AppContext, scope: Scope, ids: Sequence[str], *, skip_missing: bool
) -> list[str]:
    """Return the identifiers that match a sample.

    Raises:
        NotFoundError: If some do not, and ``skip_missing`` is not set; or if none does.
    """
    from aspencli.samples.remote import unknown

    missing = missing_ids(context, scope, ids)
    gone = frozenset(missing)
    known = [each for each in ids if each not in gone]
    if missing and not (skip_missing and known):
        raise unknown(missing, len(ids), "To continue without them, add --skip-missing.")
    for each in missing:
        context.out.warn(f"Skipped {each}: no matching sample that you can see.")
    return known


def parse_day(context: AppContext, name: str, said: str) -> str:
    """Return a date in the API's format, and print how it was understood if it was not exact."""
    from aspencli.tabular.dates import understand_day

    found = understand_day(said)
    words = name.replace("_", " ")
    if not found.is_exact:
        context.out.info(f'{words[0].upper()}{words[1:]}: "{found.said}" -> {found.day}')
    if found.day > dt.datetime.now().astimezone().date():
        context.out.info(f"Note: {words} {found.day} is in the future.")
    return found.day.isoformat()
