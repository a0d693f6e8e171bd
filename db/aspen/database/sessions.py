"""The session classes, apart from `aspen.database.engine` because they load SQLAlchemy's ORM.

Short commands do without it: loading it together with the models takes as long as loading the rest
of SQLAlchemy.
"""

from __future__ import annotations

from typing import TypeAlias

from sqlalchemy import Connection
from sqlalchemy.orm import Session


class ReadSession(Session):
    """A session in which the server refuses to write."""


class WriteSession(ReadSession):
    """A session that may write; `aspen.database.engine.Database.begin` commits it at the end."""


Reader: TypeAlias = Connection | ReadSession
"""Anything that runs queries."""
