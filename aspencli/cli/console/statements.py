"""``%sql`` and ``%explain``: one statement in the console's session, as a table or a plan."""

from __future__ import annotations

import ast
from typing import Any

from IPython.core.error import UsageError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler

from aspencli.cli.output.console import Output
from aspencli.cli.output.formats import Column
from aspencli.text import counted, visible

SHOWN = 100
"""Maximum number of result rows to show."""
# Run as SQL, these would end the session's transaction without the session knowing.
_THE_SESSIONS_OWN = frozenset({"begin", "start", "commit", "end", "rollback", "abort"})
_Statement = str | Executable


class _Explain(Executable, ClauseElement):
    """EXPLAIN of a SQLAlchemy statement, including its parameters."""

    inherit_cache = False

    def __init__(self, prefix: str, statement: Any):
        self.prefix = prefix
        self.statement = statement


@compiles(_Explain)
def _compile(element: _Explain, compiler: SQLCompiler, **options: Any) -> str:
    return element.prefix + compiler.process(element.statement, **options)


def run_sql(session: Session, text: str, names: dict[str, Any], out: Output) -> None:
    """Run a statement and show its rows.

    Args:
        session: Session to use; its uncommitted changes are visible, and nothing is committed.
        text: SQL, or a Python expression that evaluates to a SQLAlchemy statement.
        names: Namespace of such an expression.
        out: Destination of the result.

    Raises:
        UsageError: If there is no statement, or one that would end the transaction.
    """
    result = _execute(session, _statement(text, names))
    # ORM results always have rows, and lack this attribute.
    if not getattr(result, "returns_rows", True):
        return out.info(counted(max(result.rowcount, 0), "row"))
    columns = [Column(str(place), title) for place, title in enumerate(result.keys())]
    found = result.fetchmany(SHOWN + 1)
    result.close()
    rows = [{str(place): value for place, value in enumerate(row)} for row in found[:SHOWN]]
    out.rows(columns, rows, empty="No rows.")
    if len(found) > SHOWN:
        out.info(f"Only the first {SHOWN} rows are shown.")
    return None


def explain(session: Session, text: str, names: dict[str, Any], out: Output) -> None:
    """Show the plan of a statement; if it starts with ``analyze``, run it and roll it back.

    Arguments and errors are those of `run_sql`.
    """
    word, _, rest = text.strip().partition(" ")
    analyze = word.lower() == "analyze"
    statement = _statement(rest if analyze else text, names)
    if not analyze:
        return _show_plan(session, "EXPLAIN ", statement, out)
    savepoint = session.begin_nested()
    try:
        _show_plan(session, "EXPLAIN (ANALYZE, BUFFERS) ", statement, out)
    finally:
        if savepoint.is_active:
            savepoint.rollback()
    return None


def _show_plan(session: Session, prefix: str, statement: _Statement, out: Output) -> None:
    whole = prefix + statement if isinstance(statement, str) else _Explain(prefix, statement)
    out.text("\n".join(visible(str(row[0])) for row in _execute(session, whole)))


def _execute(session: Session, statement: _Statement) -> Any:
    if isinstance(statement, str):
        # Sent unchanged: colons and percent signs in it are not parameters.
        return session.connection().exec_driver_sql(
            statement, execution_options={"no_parameters": True}
        )
    return session.execute(statement)


def _statement(text: str, names: dict[str, Any]) -> _Statement:
    text = text.strip().rstrip(";").strip()
    if not text:
        raise UsageError("No statement given. Use %sql SELECT ..., or %sql select(Sample).")
    if text.split()[0].lower() in _THE_SESSIONS_OWN:
        raise UsageError("Use session.commit() or session.rollback() instead.")
    if not _is_python(text, names):
        return text
    value = eval(text, names)  # noqa: S307 - the operator's own, at the operator's own prompt
    if not isinstance(value, Executable):
        raise UsageError(f"{text} is not a statement (its type is {type(value).__name__}).")
    return value


def _is_python(text: str, names: dict[str, Any]) -> bool:
    try:
        parsed = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return False
    return not isinstance(parsed, ast.Name) or parsed.id in names
