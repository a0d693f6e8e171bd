"""``aspencli config``: the settings and their sources."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from aspencli.cli.app import examples, group
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import Column, Row
from aspencli.cli.output.results import prints
from aspencli.config import KEYS, TARGET_KEYS, Config, Target

app = group("Show settings and where they come from.")

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
