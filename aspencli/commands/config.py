"""``aspencli config``: what is set, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from aspencli.cli import group
from aspencli.config import KEYS, Config
from aspencli.context import current
from aspencli.output.rendering import Column, Row

app = group("What is set, and where it comes from.")

COLUMNS = (
    Column("name", "Setting"),
    Column("value", "Value"),
    Column("source", "From"),
)


@app.command()
def show(ctx: typer.Context) -> None:
    """Show every setting, its value and where it came from; secrets are masked."""
    context = current(ctx)
    context.out.rows(COLUMNS, _rows(context.config))


def _rows(config: Config) -> Iterator[Row]:
    for key in KEYS:
        found = config.setting(key.name)
        yield {"name": key.name, "value": found.value, "source": found.source}
    target = config.target
    yield {"name": "target", "value": f"{target.label} ({target.safety.value})", "source": "env"}
    yield {"name": "api_url", "value": target.api_url, "source": "target"}
    yield {"name": "database_url", "value": _masked(target.database_url), "source": "target"}
    yield {"name": "config_file", "value": str(config.path), "source": _exists(config)}


def _exists(config: Config) -> str:
    return "read" if config.path.exists() else "not there"


def _masked(address: str | None) -> str | None:
    if not address:
        return None
    scheme, separator, rest = address.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}:***@{place}" if at else address
