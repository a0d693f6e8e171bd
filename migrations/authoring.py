"""Creation of new revisions."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from alembic import command
from alembic.script import Script, ScriptDirectory
from sqlalchemy.engine import Engine

from migrations import alembic_config
from migrations.errors import MigrationError, NotAtHeadError

ID_FORMAT = "%Y%m%d_%H%M%S"


def write_revision(
    engine: Engine, message: str, *, autogenerate: bool, directory: Path | None
) -> Path:
    """Write a revision that follows the newest one; see `migrations.runner.revision`."""
    title = _title(message)
    folder = directory or alembic_config.VERSIONS
    folder.mkdir(parents=True, exist_ok=True)
    existing = alembic_config.scripts(directory)
    config = alembic_config.make_config(directory)
    with alembic_config.migration_engine(engine) as private, private.connect() as connection:
        _require_head(alembic_config.stands_at(connection), existing)
        connection.rollback()
        config.attributes["connection"] = connection
        script = command.revision(
            config,
            title,
            autogenerate=autogenerate,
            rev_id=_new_id(existing),
            version_path=folder.absolute(),
        )
    if not isinstance(script, Script):
        raise MigrationError(f"the revision {title!r} was not written")
    _format(Path(script.path))
    return Path(script.path)


def created(revision: str) -> datetime | None:
    """Return the time in a revision's ID (UTC), or None if the ID contains no time."""
    try:
        return datetime.strptime(revision, ID_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def _title(message: str) -> str:
    """Return the message as the first line of a docstring, which it cannot break out of."""
    text = " ".join(message.split()).replace("\\", "/").replace('"', "'").rstrip(".")
    if not text or not text.isprintable():
        raise MigrationError(
            "a revision needs a message that says what it changes",
            hint="For example: add samples.collection_site",
        )
    return f"{text[0].upper()}{text[1:]}."


def _require_head(current: str | None, existing: ScriptDirectory) -> None:
    head = alembic_config.only_head(existing)
    alembic_config.require_known(current, existing)
    if current != head:
        raise NotAtHeadError(
            f"the database stands at {current or 'no revision'}, the newest is {head}: what lies "
            "between them would become part of the new revision",
            hint="Upgrade the database first.",
        )


def _new_id(existing: ScriptDirectory) -> str:
    """Return an ID for the current time, or for the next second that no revision has."""
    taken = {script.revision for script in existing.walk_revisions()}
    moment = datetime.now(UTC)
    while moment.strftime(ID_FORMAT) in taken:
        moment += timedelta(seconds=1)
    return moment.strftime(ID_FORMAT)


def _format(path: Path) -> None:
    """Format the file like the rest of the project, if ruff is installed."""
    if importlib.util.find_spec("ruff") is None:
        return
    ruff = [sys.executable, "-m", "ruff"]
    style = ["--quiet", "--isolated", "--target-version=py311", "--line-length=100", str(path)]
    for step in (["check", "--fix", "--select=F401,I,UP"], ["format"]):
        subprocess.run([*ruff, *step, *style], check=True, capture_output=True)  # noqa: S603
