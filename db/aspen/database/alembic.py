"""Alembic as this program uses it: configured in code, without a config file, output, or logging.

The same options apply to `check` and to new revisions, so both see the same differences. Alembic
compares neither all kinds of schema objects nor all properties of columns; those are compared here.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ProgrammingError

from aspen.database.engine import make_interruptible, report_standby
from aspen.database.errors import (
    BrokenRevisionsError,
    MigrationError,
    NotAtHeadError,
    UnknownRevisionError,
    sqlstate,
)
from aspen.database.models import SCHEMA, Base, LookupValue

HERE = Path(str(files("aspen.migrations")))
VERSIONS = HERE / "versions"
VERSION_TABLE_SCHEMA = "public"
_RECORDED = f"SELECT version_num FROM {VERSION_TABLE_SCHEMA}.alembic_version"  # noqa: S608 - constants
_UNDEFINED_TABLE = "42P01"
ID_FORMAT = "%Y%m%d_%H%M%S"
_T = TypeVar("_T")
_BY_TIME = re.compile(r"\d{8}_\d{6}").fullmatch


def make_config(directory: Path | None = None, *, output: TextIO | None = None) -> Config:
    """Return Alembic's configuration, perhaps with a directory of more revisions.

    The output receives the SQL of offline mode.
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
        raise BrokenRevisionsError(f"Directory not found: {directory}", hint="Check --directory.")
    by_id: dict[str, list[Script]] = {}
    for script in _load(found, directory):
        by_id.setdefault(script.revision, []).append(script)
    problems = [
        f"{len(scripts)} files have revision {one}: {', '.join(map(_file, scripts))}"
        for one, scripts in by_id.items()
        if len(scripts) > 1
    ]
    needed = {one: _needed(scripts[0]) for one, scripts in sorted(by_id.items())}
    problems += [
        f"{_file(by_id[one][0])} follows {other}, which does not exist"
        for one, others in needed.items()
        for other in others
        if other not in by_id
    ]
    cycle = _cycle(needed)
    if cycle:
        problems.append(f"revisions form a cycle: {' -> '.join(cycle)}")
    heads = sorted(set(by_id).difference(*needed.values()))
    if not problems and len(heads) > 1:
        files = (f"{one} ({_file(by_id[one][0])})" for one in heads)
        problems.append(f"{len(heads)} newest revisions: {', '.join(files)}")
    if problems:
        raise BrokenRevisionsError(
            f"The revisions in {directory} cannot be applied: {'; '.join(problems)}",
            hint="Give each file a unique revision and an existing down_revision, so that they "
            "form a single line. Nothing was applied.",
        )


def _load(found: ScriptDirectory, directory: Path) -> list[Script]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # duplicates are reported here instead
            return list(found._load_revisions())  # noqa: SLF001 - there is no other way to see all
    except Exception as error:  # a revision is code, and may raise anything
        words = str(error).partition("\n")[0] or type(error).__name__
        raise BrokenRevisionsError(
            f"Could not load a revision in {directory}: {type(error).__name__}: {words}",
            hint="Fix the file, then run the command again. Nothing was applied.",
        ) from error


def _needed(script: Script) -> set[str]:
    found: set[str] = set()
    for names in (script.down_revision, script.dependencies):
        found |= {names} if isinstance(names, str) else set(names or ())
    return found


def _cycle(needed: Mapping[str, set[str]]) -> list[str]:
    """Return revisions that form a cycle; empty if there is none."""
    try:
        TopologicalSorter(needed).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found[::-1]
    return []


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
            f"There are {len(heads)} newest revisions ({', '.join(heads)}); only one is allowed.",
            hint="Set the down_revision of the later one to the earlier one.",
        )
    return heads[0]


def recorded_heads(connection: Connection) -> tuple[str, ...]:
    """Return the revisions that the database records, in one round trip.

    Alembic takes two, because it must not fail in an open transaction; none may be open here.
    """
    try:
        found = connection.exec_driver_sql(_RECORDED)
    except ProgrammingError as error:
        if sqlstate(error) != _UNDEFINED_TABLE:
            raise
        return ()
    return tuple(found.scalars())


def recorded_revision(connection: Connection, heads: tuple[str, ...] | None = None) -> str | None:
    """Return the revision that the database records, or None if it records none.

    Raises:
        MigrationError: It records several.
    """
    if heads is None:
        context = MigrationContext.configure(
            connection, opts={"version_table_schema": VERSION_TABLE_SCHEMA}
        )
        heads = context.get_current_heads()
    if len(heads) > 1:
        raise MigrationError(
            f"The database records {len(heads)} current revisions ({', '.join(heads)}).",
            hint=f"Keep only one row in {VERSION_TABLE_SCHEMA}.alembic_version.",
        )
    return heads[0] if heads else None


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
    """Return the error for a database at a revision that the program does not have."""
    if is_older(current, baseline):
        return UnknownRevisionError(
            f"The database is at revision {current}, which is older than {baseline}, the oldest "
            "revision that aspencli can migrate from.",
            hint=f"First run the live service's own migrations up to that revision (alembic "
            f"upgrade {baseline}, as its migration task does), then run: aspencli db upgrade",
        )
    return UnknownRevisionError(
        f"The database is at revision {current}, which this version of aspencli does not know.",
        hint="A newer version migrated it. Update aspencli, then try again.",
    )


def require_revision(revision: str, script_directory: ScriptDirectory) -> None:
    """Check that a requested revision exists.

    Raises:
        UnknownRevisionError: It does not.
    """
    if re.fullmatch(r"base|[+-]\d+", revision):
        return  # an empty schema, or a number of steps from the current revision
    try:
        found = revision and script_directory.get_revisions(revision)
    except CommandError:
        found = None
    if not found:
        raise UnknownRevisionError(
            f"Revision not found: {revision!r}",
            hint="Use an existing revision, head, base, or a number of steps such as +1 or -1.",
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
        private.dialect.default_schema_name = VERSION_TABLE_SCHEMA
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


def write_revision(
    engine: Engine, message: str, *, autogenerate: bool, directory: Path | None
) -> Path:
    """Write a revision that follows the newest one; see `aspen.database.migrate.revision`."""
    title = _title(message)
    folder = directory or VERSIONS
    folder.mkdir(parents=True, exist_ok=True)
    existing = scripts(directory)
    config = make_config(directory)
    with migration_engine(engine) as private, private.connect() as connection:
        _require_head(recorded_revision(connection), existing)
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
        raise MigrationError(f"Could not write revision {title!r}.")
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
            "A revision needs a message that describes the change.",
            hint="For example: add samples.collection_site",
        )
    return f"{text[0].upper()}{text[1:]}."


def _require_head(current: str | None, existing: ScriptDirectory) -> None:
    head = only_head(existing)
    require_known(current, existing)
    if current != head:
        raise NotAtHeadError(
            f"The database is at {current or 'no revision'}, but the newest revision is {head}. "
            "The changes between them would become part of the new revision.",
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


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """Return True if Alembic should look at it: schema ``aspen`` only, with all its contents."""
    del parents
    return kind != "schema" or name == SCHEMA


def render_item(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Return the text of a type for a revision, which must not depend on the current models."""
    del context
    return "sa.String()" if kind == "type" and isinstance(item, LookupValue) else False


def options() -> dict[str, Any]:
    """Return the options for Alembic's migration context, besides its connection."""
    return {
        "target_metadata": Base.metadata,
        "include_schemas": True,
        "include_name": include_name,
        "render_item": render_item,
        "version_table_schema": VERSION_TABLE_SCHEMA,
        "compare_type": True,
        "compare_server_default": True,
        # The live schema has no comments; comments added by hand are ignored.
        "autogenerate_plugins": ["alembic.autogenerate.*", "~alembic.autogenerate.comments"],
        "transaction_per_migration": True,
    }


def differences(connection: Connection) -> list[str]:
    """Return every difference, one line each; empty if models and database agree."""
    context = MigrationContext.configure(connection, opts=options())
    with warnings.catch_warnings():
        # Alembic warns that it cannot migrate generated columns; they are compared below.
        warnings.filterwarnings("ignore", message="Computed default on", category=UserWarning)
        found = compare_metadata(context, Base.metadata)
    # Alembic nests the differences of one column in a list.
    diffs = [diff for one in found for diff in (one if isinstance(one, list) else [one])]
    missing = {diff[1].fullname for diff in diffs if diff[0] == "add_table"}
    lines = [
        _described(diff)
        for diff in diffs
        # Indexes of a missing table are not reported separately.
        if not (diff[0] == "add_index" and diff[1].table.fullname in missing)
    ]
    more = (*_key_differences(connection), *_object_differences(connection))
    return sorted({*lines, *more})


def _described(diff: tuple[Any, ...]) -> str:
    kind, *rest = diff
    match kind:
        case "add_table" | "remove_table":
            return _one_sided(kind, f"table {rest[0].fullname}")
        case "add_column" | "remove_column":
            return _one_sided(kind, f"column {rest[0]}.{rest[1]}.{rest[2].name}")
        case "add_index" | "remove_index":
            return _one_sided(kind, f"index {rest[0].name} on {rest[0].table.fullname}")
        case "add_constraint" | "remove_constraint" | "add_fk" | "remove_fk":
            return _one_sided(kind, f"constraint {rest[0].name} of {rest[0].table.fullname}")
        case "modify_type" | "modify_nullable" | "modify_default":
            schema, table, column, _, database, models = rest
            what = kind.removeprefix("modify_")
            return (
                f"column {schema}.{table}.{column}: {what} is {_value(database)} in the database, "
                f"{_value(models)} in the models"
            )
        case _:
            return f"{kind}: {rest}"


def _one_sided(kind: str, what: str) -> str:
    if kind.startswith("add_"):
        return f"{what} is missing from the database"
    return f"{what} exists only in the database"


def _value(value: object) -> str:
    """Return a type, a default, or a flag as it is written in SQL."""
    if isinstance(value, sa.DefaultClause):
        return str(value.arg)
    return "none" if value is None else str(value)


def _in_both(found: Mapping[Any, _T]) -> Iterator[tuple[sa.Table, _T]]:
    """Yield the tables that the models have, too, and what was found about them."""
    for (_, name), facts in found.items():
        table = Base.metadata.tables.get(f"{SCHEMA}.{name}")
        if table is not None:
            yield table, facts


def _key_differences(connection: Connection) -> Iterator[str]:
    """Compare the primary keys of tables that both sides have, which Alembic ignores."""
    for table, key in _in_both(sa.inspect(connection).get_multi_pk_constraint(schema=SCHEMA)):
        database = (key["name"], key["constrained_columns"]) if key["name"] else None
        models = _key_of(table, connection)
        if database != models:
            yield (
                f"primary key of {table.fullname}: {_key(database)} in the database, "
                f"{_key(models)} in the models"
            )


def _key_of(table: sa.Table, connection: Connection) -> tuple[str | None, list[str]] | None:
    columns = [column.name for column in table.primary_key]
    name = connection.dialect.identifier_preparer.format_constraint(table.primary_key)
    return (name, columns) if columns else None


def _key(key: tuple[str | None, list[str]] | None) -> str:
    return "none" if key is None else f"{key[0]} ({', '.join(key[1])})"


# Objects of extensions are left out, as are foreign key triggers unless they are disabled.
_OBJECTS = sa.text("""
WITH home AS (
    SELECT oid FROM pg_namespace WHERE nspname = :schema
), relation AS (
    SELECT c.oid, c.relname, c.relkind, c.relpersistence, c.relrowsecurity
      FROM pg_class c JOIN home ON home.oid = c.relnamespace
), found AS (
    SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
               ELSE 'foreign table' END AS kind, c.relname::text AS name, NULL AS of_table,
           'pg_class'::regclass AS catalog, c.oid
      FROM relation c WHERE c.relkind IN ('v', 'm', 'f')
    UNION ALL
    SELECT CASE WHEN t.tgisinternal THEN 'disabled foreign key trigger' ELSE 'trigger' END,
           t.tgname, c.relname, 'pg_trigger'::regclass, t.oid
      FROM pg_trigger t JOIN relation c ON c.oid = t.tgrelid
     WHERE NOT t.tgisinternal OR t.tgenabled <> 'O'
    UNION ALL
    SELECT 'rule', r.rulename, c.relname, 'pg_rewrite'::regclass, r.oid
      FROM pg_rewrite r JOIN relation c ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN'
    UNION ALL
    SELECT 'policy', p.polname, c.relname, 'pg_policy'::regclass, p.oid
      FROM pg_policy p JOIN relation c ON c.oid = p.polrelid
    UNION ALL
    SELECT 'row level security', 'enabled', c.relname, 'pg_class'::regclass, c.oid
      FROM relation c WHERE c.relrowsecurity
    UNION ALL
    SELECT 'storage', 'unlogged', c.relname, 'pg_class'::regclass, c.oid
      FROM relation c WHERE c.relpersistence = 'u' AND c.relkind = 'r'
    UNION ALL
    SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
           format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)), NULL,
           'pg_proc'::regclass, p.oid
      FROM pg_proc p JOIN home ON home.oid = p.pronamespace
    UNION ALL
    SELECT CASE t.typtype WHEN 'd' THEN 'domain' WHEN 'e' THEN 'enum' ELSE 'type' END, t.typname,
           NULL, 'pg_type'::regclass, t.oid
      FROM pg_type t JOIN home ON home.oid = t.typnamespace
      LEFT JOIN pg_class c ON c.oid = t.typrelid
     WHERE t.typtype IN ('d', 'e', 'r') OR (t.typtype = 'c' AND c.relkind = 'c')
    UNION ALL
    SELECT 'exclusion constraint', k.conname, c.relname, 'pg_constraint'::regclass, k.oid
      FROM pg_constraint k JOIN relation c ON c.oid = k.conrelid WHERE k.contype = 'x'
    UNION ALL
    SELECT 'sequence', s.relname, NULL, 'pg_class'::regclass, s.oid
      FROM relation s
     WHERE s.relkind = 'S' AND NOT EXISTS (
           SELECT FROM pg_depend d WHERE d.objid = s.oid AND d.classid = 'pg_class'::regclass
              AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0)
)
SELECT kind, name, of_table FROM found f
 WHERE NOT EXISTS (SELECT FROM pg_depend d
       WHERE d.classid = f.catalog AND d.objid = f.oid AND d.deptype = 'e')
""")


def _object_differences(connection: Connection) -> Iterator[str]:
    """Describe objects that only the database has, and differences in columns and checks."""
    for kind, name, table in connection.execute(_OBJECTS, {"schema": SCHEMA}):
        of_table = f" of {SCHEMA}.{table}" if table else ""
        what = name if table else f"{SCHEMA}.{name}"
        yield f"{kind} {what}{of_table} exists only in the database"
    inspector = sa.inspect(connection)
    yield from _check_differences(inspector)
    yield from _column_differences(inspector, connection.dialect)


def _check_differences(inspector: sa.Inspector) -> Iterator[str]:
    """Compare CHECK constraints by name, because PostgreSQL rewrites their text."""
    for table, found in _in_both(inspector.get_multi_check_constraints(schema=SCHEMA)):
        in_models = {
            str(check.name) for check in table.constraints if isinstance(check, sa.CheckConstraint)
        }
        in_database = {str(check["name"]): check["sqltext"] for check in found}
        for check in in_database.keys() - in_models:
            condition = in_database[check]
            yield f"check {check} of {table.fullname} exists only in the database: {condition}"
        for check in in_models - in_database.keys():
            yield f"check {check} of {table.fullname} is missing from the database"


def _column_differences(inspector: sa.Inspector, dialect: sa.Dialect) -> Iterator[str]:
    """Compare what Alembic ignores: lengths, precision, collations, and generated values."""
    for table, columns in _in_both(inspector.get_multi_columns(schema=SCHEMA)):
        for found in columns:
            column = table.columns.get(found["name"])
            if column is None:
                continue
            where = f"column {table.fullname}.{column.name}"
            if _limits(found["type"]) != _limits(column.type.dialect_impl(dialect)):
                in_database, in_models = (
                    kind.compile(dialect) for kind in (found["type"], column.type)
                )
                yield f"{where}: type is {in_database} in the database, {in_models} in the models"
            computed, wanted = found.get("computed"), column.computed
            if computed and wanted is None:
                made = _bare(computed["sqltext"])
                yield f"{where}: generated as {made} in the database, not generated in the models"
            elif wanted is not None and not computed:
                made = str(wanted.sqltext)
                yield f"{where}: not generated in the database, generated as {made} in the models"


def _bare(expression: str) -> str:
    """Return an expression without the parentheses that some versions put around a name."""
    single = re.fullmatch(r"\((\w+)\)", expression)
    return single[1] if single else expression


def _limits(kind: object) -> tuple[object, ...]:
    inner = getattr(kind, "impl", kind)  # our own type may wrap one of the dialect's
    if isinstance(inner, sa.String):
        return inner.length, inner.collation
    if isinstance(inner, sa.Numeric) and not isinstance(inner, sa.Float):
        return inner.precision, inner.scale
    precision = getattr(inner, "precision", None)
    return (precision,) if isinstance(inner, (sa.DateTime, sa.Time)) else ()
