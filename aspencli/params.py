"""Options that several commands share, and what they mean where they are left out."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.errors import BadInputError
from aspencli.services.checks import clean_name, clean_text

if TYPE_CHECKING:
    from aspencli.context import AppContext
    from aspencli.output.console import Output

TABLE_LIMIT = 100  # rows; more than a person reads


class Road(enum.Enum):
    """How a command reaches the data of a target."""

    DB = "db"
    API = "api"


def checked(what: str) -> Callable[[str | None], str | None]:
    """An option's callback that refuses a text which is blank or cannot be seen."""

    def check(value: str | None) -> str | None:
        return None if value is None else clean_text(value, what)

    return check


def stored(what: str) -> Callable[[str | None], str | None]:
    """Return an option's callback that refuses what no stored name may contain."""

    def check(value: str | None) -> str | None:
        return None if value is None else clean_name(value, what)

    return check


def all_checked(what: str) -> Callable[[list[str]], list[str]]:
    """The same for an option or argument of several values."""
    return lambda values: [clean_text(value, what) for value in values]


def all_among(what: str, known: Sequence[str]) -> Callable[[list[str] | None], list[str]]:
    """A callback for several values that refuses one which is not among those known."""

    def check(values: list[str] | None) -> list[str]:
        for value in values or ():
            if value not in known:
                raise BadInputError(
                    f"there is no {what} {value!r}", hint=f"Name {', '.join(known)}."
                )
        return values or []

    return check


def day(text: str) -> dt.date:
    """An option's parser: a day as ``2023-05-17``.

    Raises:
        BadInputError: It is none.
    """
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise BadInputError(
            f"{text!r} is no day", hint="Write it as year-month-day: 2023-05-17."
        ) from None


def spoken_day(text: str) -> dt.date:
    """Parse an option's day, also one in words: ``yesterday``.

    Raises:
        BadInputError: It is none.
    """
    from aspencli.services.spoken_days import understand_day

    return understand_day(text).day


GroupOption = Annotated[
    str | None,
    typer.Option(
        "--group",
        metavar="ID|NAME|PREFIX",
        help="Only what belongs to this group. Default: --org, else all groups.",
        callback=checked("the group"),
    ),
]
PathogenOption = Annotated[
    str | None,
    typer.Option(
        "--pathogen",
        metavar="SLUG",
        help="Only of this pathogen. Default: --pathogen-slug where it is set, else all.",
        callback=checked("the pathogen"),
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="N",
        min=0,
        help=f"At most so many rows; 0: all. Default: {TABLE_LIMIT} in a table, all elsewhere.",
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="Every row, in a table too.")]
AfterOption = Annotated[
    int | None, typer.Option("--after", metavar="ID", help="Go on behind the row of this id.")
]
ViaOption = Annotated[
    Road | None,
    typer.Option(
        "--via",
        help="Straight to the database, or through the API. Default: the database of local, the "
        "API of the others. (env: ASPEN_VIA)",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would be written.")]


def chosen_group(context: AppContext, given: str | None) -> str | None:
    """The group that a command is about: its own option, else the global ``--org``."""
    return given if given is not None else chosen_org(context)


def chosen_org(context: AppContext) -> str | None:
    """The group of the global ``--org``, in whose name the API is asked; None for none."""
    org = context.config.setting("org")
    return clean_text(org.value, f"org ({org.source})") if org.value is not None else None


def chosen_pathogen(context: AppContext, given: str | None) -> str | None:
    """The pathogen that a command is about; the default slug of the settings narrows no list."""
    if given is not None:
        return given
    slug = context.config.setting("pathogen_slug")
    if slug.value is None or slug.source == "default":
        return None
    return clean_text(slug.value, f"pathogen_slug ({slug.source})")


def chosen_limit(out: Output, limit: int | None, everything: bool) -> int | None:
    """How many rows to show; None means all.

    Raises:
        BadInputError: A number was given, and all of them as well.
    """
    if everything and limit:
        raise BadInputError("--all and --limit exclude each other", hint="Give one of them.")
    if everything or limit == 0:
        return None
    if limit is None and out.chosen_form == "table":
        return TABLE_LIMIT
    return limit


def chosen_road(context: AppContext, given: Road | None, usual: Road | None = None) -> Road:
    """How a command that knows both roads reaches the target.

    What was given, else what is set, else the command's ``usual`` road where it has one, else the
    database of ``local`` and the API of the others; where only the database's address is known,
    the database.
    """
    if given is not None:
        return given
    chosen = context.config.value("via")
    if chosen is not None:
        return Road(chosen)
    if usual is not None:
        return usual
    target = context.target
    only_database = target.database_url is not None and target.api_url is None
    return Road.DB if target.name == "local" or only_database else Road.API


def announce(context: AppContext, road: Road) -> None:
    """Tell a person at the terminal where a command looks."""
    if context.out.err.isatty():
        if context.target.warning:
            context.out.warn(context.target.warning)
        context.out.info(road_words(context, road))


def road_words(context: AppContext, road: Road) -> str:
    """The target and how it is reached, for banners and questions: ``prod, through its API``."""
    how = "straight in its database" if road is Road.DB else "through its API"
    return f"{context.target.title}, {how}"
