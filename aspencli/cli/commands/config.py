"""``aspencli config``: the settings, their sources, and changes of the config file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import typer

from aspencli.cli.app import examples, group
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import Column, Row, prints
from aspencli.config import BUILT_IN, KEYS, TARGET_KEYS, Config, Setting, Target
from aspencli.errors import BadInputError

app = group("Show settings and where they come from, and change the config file.")

COLUMNS = (
    Column("name", "Setting", whole=True, of=str),
    Column("value", "Value"),
    Column("source", "Source", of=str),
)

MANAGEMENT = "management_credentials"
_ADDRESSES = frozenset({"api_url", "auth_url", "database_url", "aws_endpoint_url"})
_ALWAYS = frozenset({"api_url", "auth_url", "auth_client_id", "database_url"})  # even if not set
_HARMLESS = frozenset(
    {"user", "host", "port", "dbname", "options", "sslmode", "sslrootcert", "target_session_attrs"}
)


@app.command(epilog=examples("aspencli --env staging config show"))
@prints(COLUMNS)
def show(ctx: typer.Context) -> None:
    """Show every setting, its value, and its source; secrets are masked."""
    from aspencli.cli.changes.audit import TargetTrail

    context = current(ctx)
    rows = [*_rows(context.config, context.target), _management_row(context)]
    trail = {"name": "audit_trail", "value": TargetTrail(context).described, "source": "settings"}
    rows.append(trail)
    if context.out.has_layout:
        # A record, because addresses and paths are too long for a column and must not be cut.
        columns = [Column(row["name"], row["name"], whole=True) for row in rows]
        shown = {row["name"]: f"{row['value'] or _unset(row)} ({row['source']})" for row in rows}
        context.out.record(columns, shown)
    else:
        context.out.rows(COLUMNS, rows)
    if context.target.warning:
        context.out.warn(context.target.warning)
    _warn_of_unset_variables(context)


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The setting: output, or targets.staging.way.")
]


@app.command(
    epilog=examples(
        "aspencli config get output", "aspencli config get targets.staging.way --source"
    )
)
@prints(COLUMNS)
def get(
    ctx: typer.Context,
    name: Name,
    source: Annotated[
        bool, typer.Option("--source", help="Also show where the value comes from.")
    ] = False,
) -> None:
    """Print the value of one setting; exit with 6 if it is not set. Passwords are masked.

    It is the value in effect: from the command line, the environment, the config file, or built in.
    """
    from aspencli.cli.config_edit import place_of
    from aspencli.errors import NotFoundError

    context = current(ctx)
    found = _setting(context.config, place_of(name, context.config.targets))
    if found.value is None:
        raise NotFoundError(f"{name} is not set.", hint=f"Set it: aspencli config set {name} VALUE")
    if source or context.options["output"] not in {None, "table"}:
        row = {"name": name, "value": found.value, "source": found.source}
        return context.out.record(COLUMNS, row)
    return context.out.text(found.value)


def _setting(config: Config, place: tuple[str, ...]) -> Setting:
    section, *names = place
    if section == "defaults":
        found = config.setting(names[0])
        return replace(found, value=_masked(found.value)) if names[0] == "api" else found
    if section == "targets" and len(names) > 1:
        name, key = names
        if name not in config.targets:
            raise BadInputError(
                f"Unknown target: {name!r}", hint=f"Targets: {', '.join(config.targets)}."
            )
        return _target_setting(config, name, key)
    table = config.document
    for each in place[:-1]:
        table = table.get(each, {})
    value = table.get(place[-1])
    if isinstance(value, dict) or (value is None and section == "targets"):
        raise BadInputError(
            f"{'.'.join(place)} is not one setting.", hint="Name one of its keys as well."
        )
    return Setting(value, f"config {config.path}")


def _target_setting(config: Config, name: str, key: str) -> Setting:
    target = config.configured(name)
    if key == "safety":
        in_file = "safety" in config.document.get("targets", {}).get(name, {})
        built_in = "built-in" if name in BUILT_IN else "default"
        where = f"config {config.path}" if in_file else built_in
        return Setting(target.safety.value, where)
    value = getattr(target, key)
    shown = _masked(value) if key in _ADDRESSES else value
    return Setting(shown, target.sources.get(key, "default"))


@app.command(
    "set",
    epilog=examples(
        "aspencli config set output json",
        "aspencli config set targets.mylab.safety shared",
        "aspencli config set targets.mylab.database_url postgresql://aspen@db.example.org/aspen_db",
    ),
)
def set_(
    ctx: typer.Context,
    name: Name,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The value.")],
) -> None:
    """Set a value in the config file, keeping its comments and its order.

    Names are those of `config show`, as defaults, and those of a target, such as
    targets.staging.way; a new target begins with its first setting. Values are checked first, and
    passwords are refused. A target without safety counts as production.
    """
    from aspencli.cli.config_edit import ConfigFile, place_of

    context = current(ctx)
    file = ConfigFile(context.config)
    place = place_of(name, context.config.targets)
    if file.set(place, value):
        context.out.done(f"Set {name} in {file.path}")
    else:
        context.out.nothing(f"{name} has this value in {file.path}")
    _warn_of_override(context, place)


@app.command(epilog=examples("aspencli config unset output", "aspencli config unset targets.mylab"))
def unset(ctx: typer.Context, name: Name) -> None:
    """Remove a value, a whole target, or a whole map from the config file."""
    from aspencli.cli.config_edit import ConfigFile, place_of

    context = current(ctx)
    file = ConfigFile(context.config)
    place = place_of(name, context.config.targets)
    file.unset(place)
    context.out.done(f"Removed {name} from {file.path}")
    _warn_of_override(context, place)


def _warn_of_override(context: AppContext, place: tuple[str, ...]) -> None:
    """Warn if a variable of the environment takes precedence over the file."""
    if place[0] == "defaults":
        names = next(key.variables for key in KEYS if key.name == place[1])
    elif place[0] == "targets" and len(place) > 2:  # noqa: PLR2004 - a key of a target
        names = (context.config.variable(place[2], place[1]),)
    else:
        return
    if found := next((name for name in names if os.environ.get(name)), None):
        context.out.warn(f"{found} is set, and takes precedence over the config file.")


def _rows(config: Config, target: Target) -> Iterator[Row]:
    for key in KEYS:
        found = config.setting(key.name)
        value = _masked(found.value) if key.name == "api" else found.value
        yield {"name": key.name, "value": value, "source": found.source}
    whose = f", address belongs to {target.belongs_to}" if target.belongs_to else ""
    safety = f"{target.label} ({target.safety.value}{whose})"
    yield {"name": "target", "value": safety, "source": "env"}
    for name in TARGET_KEYS:
        value = getattr(target, name)
        if value is not None or name in _ALWAYS:
            shown = _masked(value) if name in _ADDRESSES else value
            yield {"name": name, "value": shown, "source": target.sources.get(name, "default")}
    found_file = "read" if config.path.exists() else "not found"
    yield {"name": "config_file", "value": str(config.path), "source": found_file}


def _management_row(context: AppContext) -> Row:
    """Return the row for the credentials of the identity provider; they are not read."""
    source = context.management_source
    is_given = source is not None and source.startswith("environment")
    value = "***" if is_given else None
    return {"name": MANAGEMENT, "value": value, "source": source or "default"}


def _unset(row: Row) -> str:
    is_later = row["name"] == MANAGEMENT and row["source"] != "default"
    return "read when needed" if is_later else "not set"


def _warn_of_unset_variables(context: AppContext) -> None:
    from aspencli.deployments.identity import NAMES, unset_variables

    if unset := unset_variables():
        given = " and ".join(name for name in NAMES if name not in unset)
        others = " and ".join(unset)
        context.out.warn(f"{given} will be ignored unless you also set {others}.")


def _masked(address: str | None) -> str | None:
    """Return the address with ``***`` in place of anything that is or might be a secret."""
    if not address:
        return None
    scheme, separator, rest = address.partition("://")
    place, question, query = rest.partition("?")
    if not separator or "@" in query:  # a password, or a question mark inside one
        return f"{scheme}://***" if separator else "***"
    user, at, place = place.rpartition("@")
    name, colon, _password = user.partition(":")
    shown = "&".join(map(_masked_option, query.split("&")))
    return f"{scheme}://{name}{':***' if colon else ''}{at}{place}{question}{shown}"


def _masked_option(option: str) -> str:
    name, equals, _value = option.partition("=")
    return option if name in _HARMLESS or not equals else f"{name}=***"
