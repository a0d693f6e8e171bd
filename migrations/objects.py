"""A comparison of schema objects and column properties that Alembic does not compare."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from db.models import SCHEMA, Base

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


def object_differences(connection: Connection) -> Iterator[str]:
    """Describe objects that only the database has, and differences in columns and checks."""
    for kind, name, table in connection.execute(_OBJECTS, {"schema": SCHEMA}):
        of_table = f" of {SCHEMA}.{table}" if table else ""
        what = name if table else f"{SCHEMA}.{name}"
        yield f"{kind} {what}{of_table} is only in the database"
    inspector = sa.inspect(connection)
    yield from _check_differences(inspector)
    yield from _column_differences(inspector, connection.dialect)


def _check_differences(inspector: sa.Inspector) -> Iterator[str]:
    """Compare CHECK constraints by name, because PostgreSQL rewrites their text."""
    for (_, name), found in inspector.get_multi_check_constraints(schema=SCHEMA).items():
        table = Base.metadata.tables.get(f"{SCHEMA}.{name}")
        if table is None:
            continue
        in_models = {
            str(check.name) for check in table.constraints if isinstance(check, sa.CheckConstraint)
        }
        in_database = {str(check["name"]): check["sqltext"] for check in found}
        for check in in_database.keys() - in_models:
            condition = in_database[check]
            yield f"check {check} of {table.fullname} is only in the database: {condition}"
        for check in in_models - in_database.keys():
            yield f"check {check} of {table.fullname} is missing in the database"


def _column_differences(inspector: sa.Inspector, dialect: sa.Dialect) -> Iterator[str]:
    """Compare what Alembic ignores: lengths, precision, collations, and generated values."""
    for (_, name), columns in inspector.get_multi_columns(schema=SCHEMA).items():
        table = Base.metadata.tables.get(f"{SCHEMA}.{name}")
        if table is None:
            continue
        for found in columns:
            column = table.columns.get(found["name"])
            if column is None:
                continue
            wanted = column.type.dialect_impl(dialect)
            if _limits(found["type"]) != _limits(wanted):
                yield (
                    f"column {column.table.fullname}.{column.name}: type is "
                    f"{found['type'].compile(dialect)} in the database, "
                    f"{column.type.compile(dialect)} in the models"
                )
            if computed := found.get("computed"):
                if column.computed is None:
                    yield (
                        f"column {column.table.fullname}.{column.name}: generated as "
                        f"{_bare(computed['sqltext'])} in the database, "
                        "not generated in the models"
                    )
            elif column.computed is not None:
                yield (
                    f"column {column.table.fullname}.{column.name}: not generated in the database, "
                    f"generated as {column.computed.sqltext} in the models"
                )


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
