"""A helper that marks a database as created by the deployment of a home directory."""

from __future__ import annotations

import struct
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool


def mark_as_created(home: Path, address: str | URL) -> None:
    """Give the deployment's data folder the identity of a database's server."""
    engine = sa.create_engine(address, poolclass=NullPool)
    with engine.connect() as connection:
        system = connection.scalar(sa.text("SELECT system_identifier FROM pg_control_system()"))
    control = home / "data" / "postgres" / "data" / "global" / "pg_control"
    control.parent.mkdir(parents=True, exist_ok=True)
    control.write_bytes(struct.pack("=Q", int(system)))
