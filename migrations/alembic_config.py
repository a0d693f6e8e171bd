"""Alembic, configured in code: no config file, no output, no logging."""

from __future__ import annotations

import argparse
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import Connection, Engine

from db.commits import make_interruptible
from db.standbys import report_standby
from migrations import comparison
from migrations.errors import BrokenRevisionsError, MigrationError, UnknownRevisionError

HERE = Path(__file__).parent
VERSIONS = HERE / "versions"


def make_config(directory: Path | None = None, *, output: TextIO | None = None) -> Config:
    """Return Alembic's configuration.

    Args:
        directory: A directory of more revisions, besides the program's own.
        output: Receives the SQL of offline mode.
    """
    config = Config(
        stdout=io.StringIO(), output_buffer=output, cmd_opts=argparse.Namespace(quiet=True)
    )
    locations = [VERSIONS] if directory is None else [VERSIONS, directory.absolute()]
    options = {
        "script_location": str(HERE),
        "version_locations": "\n".join(map(str, locations)),
        # A newline is the one separator that occurs in no path.
        "path_separator": "newline",
        "file_template": "%(rev)s_%(slug)s",
    }
    for name, value in options.items():
        config.set_main_option(name, value.replace("%", "%%"))
    return config


def scripts(directory: Path | None = None) -> ScriptDirectory:
    """Return the program's own revisions, and those of another directory.

    Raises:
        BrokenRevisionsError: Those of the directory do not form a single line with the others.
    """
    found = ScriptDirectory.from_config(make_config(directory))
    if directory is not None:
        _check_line(found, directory)
    return found


def _check_line(found: ScriptDirectory, directory: Path) -> None:
    """Check that the revisions form a single line from the first to the newest one.

    Alembic itself reports some of this only after it has applied other revisions, and the rest as
    a warning.
    """
    if not directory.is_dir():
        raise BrokenRevisionsError(f"There is no folder {directory}", hint="Check --directory.")
    by_id: dict[str, list[Script]] = {}
    for script in _load(found, directory):
        by_id.setdefault(script.revision, []).append(script)
    problems = [
        f"{one} is the revision of {len(scripts)} files: {', '.join(map(_file, scripts))}"
        for one, scripts in by_id.items()
        if len(scripts) > 1
    ]
    needed = {one: _needed(scripts[0]) for one, scripts in by_id.items()}
    problems += [
        f"{_file(by_id[one][0])} follows {other}, which does not exist"
        for one, others in needed.items()
        for other in others
        if other not in by_id
    ]
    cycle = _cycle(needed)
    if cycle:
        problems.append(f"these follow each other in a circle: {' -> '.join(cycle)}")
    heads = sorted(set(by_id).difference(*needed.values()))
    if not problems and len(heads) > 1:
        files = (f"{one} ({_file(by_id[one][0])})" for one in heads)
        problems.append(f"there are {len(heads)} newest revisions: {', '.join(files)}")
    if problems:
        raise BrokenRevisionsError(
            f"The revisions in {directory} cannot be applied: {'; '.join(problems)}",
            hint="Give each file its own revision, and a down_revision that exists, so that they "
            "form one line; nothing was applied.",
        )


def _load(found: ScriptDirectory, directory: Path) -> list[Script]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # duplicates are reported here instead
            return list(found._load_revisions())  # noqa: SLF001 - there is no other way to see all
    except Exception as error:  # a revision is code, and may raise anything
        words = str(error).partition("\n")[0] or type(error).__name__
        raise BrokenRevisionsError(
            f"A revision in {directory} cannot be loaded: {type(error).__name__}: {words}",
            hint="Fix that file, then run the command again; nothing was applied.",
        ) from error


def _needed(script: Script) -> set[str]:
    found: set[str] = set()
    for names in (script.down_revision, script.dependencies):
        found |= {names} if isinstance(names, str) else set(names or ())
    return found


def _cycle(needed: Mapping[str, set[str]]) -> list[str]:
    """Return revisions that form a cycle; empty if there is none."""
    left = {one: set(others) & needed.keys() for one, others in needed.items()}
    while ready := [one for one, others in left.items() if not others]:
        for one in ready:
            del left[one]
        for others in left.values():
            others.difference_update(ready)
    if not left:
        return []
    path = [min(left)]
    while (following := min(left[path[-1]])) not in path:
        path.append(following)
    return [*path[path.index(following) :], following]


def _file(script: Script) -> str:
    return Path(script.path).name


def only_head(script_directory: ScriptDirectory) -> str:
    """Return the newest revision.

    Raises:
        MigrationError: There are several, and no database can be at all of them.
    """
    heads = script_directory.get_heads()
    if len(heads) != 1:
        raise MigrationError(
            f"there are {len(heads)} newest revisions ({', '.join(heads)}) where one is needed",
            hint="Let the later one say the earlier one as its down_revision.",
        )
    return heads[0]


def stands_at(connection: Connection) -> str | None:
    """Return the revision that the database records, or None if it records none.

    Raises:
        MigrationError: It records several.
    """
    context = MigrationContext.configure(
        connection, opts={"version_table_schema": comparison.VERSION_TABLE_SCHEMA}
    )
    heads = context.get_current_heads()
    if len(heads) > 1:
        raise MigrationError(
            f"the database names {len(heads)} revisions at once ({', '.join(heads)})",
            hint=f"Leave one row in {comparison.VERSION_TABLE_SCHEMA}.alembic_version.",
        )
    return heads[0] if heads else None


_BY_TIME = re.compile(r"\d{8}_\d{6}").fullmatch


def require_known(current: str | None, script_directory: ScriptDirectory) -> None:
    """Check that the program has the revision that a database is at.

    Raises:
        UnknownRevisionError: It does not.
    """
    known = [script.revision for script in script_directory.walk_revisions()]
    if current is not None and current not in known:
        raise unknown_revision(current, known[-1])


def is_older(revision: str, baseline: str) -> bool:
    """Return True if a revision is one that the baseline replaced.

    The live service's own revisions lead up to the baseline. Like the baseline, they are named by
    the time they were created.
    """
    return bool(_BY_TIME(revision)) and bool(_BY_TIME(baseline)) and revision < baseline


def unknown_revision(current: str, baseline: str) -> UnknownRevisionError:
    """Return the error for a database at a revision that the program does not have.

    Args:
        current: The revision of the database.
        baseline: The program's oldest revision.
    """
    if is_older(current, baseline):
        return UnknownRevisionError(
            f"The database is at revision {current}, which is older than {baseline}, the oldest "
            "revision that aspencli can migrate from.",
            hint=f"First run the live service's own migrations up to that revision (alembic "
            f"upgrade {baseline}, as its migration task does), then: aspencli db upgrade",
        )
    return UnknownRevisionError(
        f"the database stands at revision {current}, which this version of the program does "
        "not have",
        hint="A newer version migrated it: update the program and try again.",
    )


def require_revision(revision: str, script_directory: ScriptDirectory) -> None:
    """Check that a requested revision exists.

    Raises:
        UnknownRevisionError: It does not.
    """
    if re.fullmatch(r"base|[+-]\d+", revision):
        return  # an empty schema, or a number of steps from the current revision
    if not revision:
        raise _no_such(revision)
    try:
        script_directory.get_revisions(revision)
    except CommandError as error:
        raise _no_such(revision) from error


def _no_such(revision: str) -> UnknownRevisionError:
    return UnknownRevisionError(
        f"there is no revision {revision!r}",
        hint="Ask for one of the history, for head, for base, or for steps such as +1 or -1.",
    )


@contextmanager
def migration_engine(engine: Engine) -> Iterator[Engine]:
    """Yield an engine for the same database whose default schema is ``public``.

    The program's sessions search ``aspen`` first. SQLAlchemy would then omit the name of that
    schema, and Alembic, whose models include the name, would find every table twice.
    """
    private = sa.create_engine(
        engine.url, pool=engine.pool.recreate(), hide_parameters=engine.hide_parameters
    )
    make_interruptible(private)
    report_standby(private)
    try:
        with private.connect() as connection:
            connection.rollback()  # the first connection initializes the dialect
        private.dialect.default_schema_name = comparison.VERSION_TABLE_SCHEMA
        yield private
    finally:
        private.dispose()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yield a connection for comparing that searches only ``public``; nothing is committed."""
    with migration_engine(engine) as private, private.connect() as connection:
        connection.exec_driver_sql("SET LOCAL search_path TO public")
        yield connection
        connection.rollback()
