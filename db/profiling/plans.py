"""Plans of recorded statements, and what is odd of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.exc import DBAPIError

from db.database import Database
from db.profiling.summary import Flag, Profile, Statement, is_select

_LARGE_TABLE = 10_000  # rows
_MISJUDGED = 10
_FEW = 100  # rows; below, an estimate may be wrong
_POSITION = re.compile(r"\$(\d+)\b")
_SECRET = re.compile(r"secret|passw|token|key|auth|credential|cookie", re.IGNORECASE)
_EXPLAINED = ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "TABLE")


def explain_slowest(
    profile: Profile, database: Database, *, count: int, analyze: bool
) -> list[tuple[Statement, str]]:
    """Get the plans of the slowest statements; what is odd of them becomes their flags.

    Args:
        profile: Recorded with parameters.
        database: Where they ran; it is only read.
        count: How many plans.
        analyze: Whether SELECTs are executed for it, in a transaction that is rolled back.

    Returns:
        The statements that the server could not explain, and why.
    """
    refused = []
    explained = [one for one in profile.statements if _can_be_explained(one)][:count]
    for one in explained:
        try:
            one.plan = _plan(one, database, analyze=analyze)
        except DBAPIError as error:
            refused.append((one, str(error.orig).partition("\n")[0]))
        else:
            one.flags.extend(_flags(one.plan))
    return refused


def _can_be_explained(one: Statement) -> bool:
    return one.failed < one.calls and one.key.fingerprint.upper().startswith(_EXPLAINED)


def _plan(one: Statement, database: Database, *, analyze: bool) -> dict[str, Any]:
    options = "FORMAT JSON"
    if analyze and is_select(one.key.fingerprint):
        options += ", ANALYZE, BUFFERS"
    statement, parameters = _for_psycopg2(one.example.statement, one.example.parameters)
    with database.reading() as session:
        connection = session.connection(execution_options={"no_parameters": not parameters})
        found = connection.exec_driver_sql(f"EXPLAIN ({options}) {statement}", parameters)
        plan: dict[str, Any] = found.scalar_one()[0]
    return plan


def _for_psycopg2(statement: str, parameters: Any) -> tuple[str, Any]:
    """A statement of asyncpg, with its numbered places, as psycopg2 takes it."""
    if not (isinstance(parameters, tuple | list) and _POSITION.search(statement)):
        return statement, parameters or None  # without any, a % is itself
    text = _POSITION.sub(r"%(p\1)s", statement.replace("%", "%%"))
    return text, {f"p{number}": value for number, value in enumerate(parameters, 1)}


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The nodes of a plan, from the root down."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def _flags(plan: Mapping[str, Any]) -> list[Flag]:
    found: dict[str, Flag] = {}
    for node in nodes(plan["Plan"]):
        for flag in (_scan(node), _spill(node), _estimate(node)):
            if flag is not None:
                found.setdefault(flag.name, flag)
    return list(found.values())


def _scan(node: Mapping[str, Any]) -> Flag | None:
    if node["Node Type"] != "Seq Scan":
        return None
    loops = node.get("Actual Loops", 1)
    read = (node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)) * loops
    read = read or node["Plan Rows"]
    if read < _LARGE_TABLE:
        return None
    table, condition = node.get("Relation Name", "?"), node.get("Filter")
    cure = f"An index for {condition}, if it leaves few rows." if condition else ""
    return Flag("seq-scan", f"reads all of {table}, some {read:,.0f} rows", cure)


def _spill(node: Mapping[str, Any]) -> Flag | None:
    on_disk = node.get("Sort Space Type") == "Disk" or node.get("Hash Batches", 1) > 1
    if not on_disk:
        return None
    size = node.get("Sort Space Used") or node.get("Disk Usage") or node.get("Peak Memory Usage", 0)
    kind = node["Node Type"].lower()
    return Flag("spilled", f"a {kind} did not fit in memory ({size:,} kB)", "A larger work_mem.")


def _estimate(node: Mapping[str, Any]) -> Flag | None:
    if not node.get("Actual Loops"):
        return None
    guessed, actual = max(node["Plan Rows"], 1), max(node["Actual Rows"], 1)
    wrong = max(guessed / actual, actual / guessed)
    if wrong < _MISJUDGED or max(guessed, actual) < _FEW:
        return None
    where = node.get("Relation Name") or node["Node Type"]
    text = f"{where}: {guessed:,} rows expected, {actual:,.0f} found"
    return Flag("misestimated", text, "ANALYZE the table, or extended statistics on its columns.")


def hide_secrets(parameters: Any) -> Any:
    """Parameters as they may be shown: those whose names speak of secrets are not."""
    if isinstance(parameters, Mapping):
        return {
            str(name): "(hidden)" if _SECRET.search(str(name)) else _plain(value)
            for name, value in parameters.items()
        }
    if isinstance(parameters, tuple | list):
        return [_plain(value) for value in parameters]
    return _plain(parameters)


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value.count(".") == 2 and value.startswith("eyJ"):  # noqa: PLR2004 - a JWT
        return "(hidden)"
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
