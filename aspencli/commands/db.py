"""``aspencli db``: the console, psql, schema migrations, and the state of the database."""

from __future__ import annotations

from aspencli.cli import group
from aspencli.commands import (
    db_activity,
    db_admin,
    db_console,
    db_diagnostics,
    db_doctor,
    db_profile,
    db_schema,
    db_signals,
    db_status,
)

app = group("Console, psql, schema migrations and state of the database.")

for module in (
    db_console,
    db_profile,
    db_schema,
    db_admin,
    db_status,
    db_activity,
    db_signals,
    db_diagnostics,
    db_doctor,
):
    module.register(app)
