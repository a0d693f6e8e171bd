"""Query plans of recorded statements, and the problems found in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from aspen.database.engine import Database
from aspen.database.profiling.summary import Flag, Profile, Statement, is_select

if TYPE_CHECKING:
    from aspen.database.sessions import ReadSession

_LARGE_TABLE = 10_000  # rows
_MISJUDGED = 10
_FEW = 100  # rows; wrong estimates below this are ignored
_POSITION = re.compile(r"\$(\d+)\b")
_SECRET = re.compile(r"secret|passw|token|key|auth|credential|cookie", re.IGNORECASE)
_SIZES = text(
    "SELECT relname, reltuples FROM pg_class"
    " WHERE relname = ANY(:names) AND relkind = 'r' AND pg_table_is_visible(oid)"
)
_EXPLAINED = ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "TABLE")


def explain_slowest(
    profile: Profile, database: Database, *, count: int, analyze: bool
) -> list[tuple[Statement, str]]:
    """Get the plans of the slowest statements, and flag the problems found in them.

    The profile was recorded with parameters. With `analyze`, SELECTs are executed again, in a
    transaction that is rolled back.

    Returns:
        The statements that the server could not explain, and why.
    """
    refused = []
    explained = [one for one in profile.statements if _can_be_explained(one)][:count]
    for one in explained:
        try:
            with database.reading() as session:
                one.plan = _plan(one, session, analyze=analyze)
                tables = _sizes(one.plan, session)
        except DBAPIError as error:
            refused.append((one, str(error.orig).partition("\n")[0]))
        else:
            one.flags.extend(_flags(one.plan, tables))
    return refused


def _can_be_explained(one: Statement) -> bool:
    return one.failed < one.calls and one.key.fingerprint.upper().startswith(_EXPLAINED)


def _plan(one: Statement, session: ReadSession, *, analyze: bool) -> dict[str, Any]:
    options = "FORMAT JSON"
    # A SELECT could still write; the read-only transaction prevents that.
    if analyze and is_select(one.key.fingerprint):
        options += ", ANALYZE, BUFFERS"
    statement, parameters = _for_psycopg2(one.example.statement, one.example.parameters)
    connection = session.connection(execution_options={"no_parameters": not parameters})
    found = connection.exec_driver_sql(f"EXPLAIN ({options}) {statement}", parameters)
    plan: dict[str, Any] = found.scalar_one()[0]
    return plan


def _sizes(plan: Mapping[str, Any], session: ReadSession) -> dict[str, float]:
    """Return the sizes of tables that are read in full, which a plan without ANALYZE lacks."""
    names = {
        str(node["Relation Name"])
        for node in nodes(plan["Plan"])
        if node["Node Type"] == "Seq Scan" and "Actual Rows" not in node
    }
    if not names:
        return {}
    found = session.execute(_SIZES, {"names": sorted(names)})
    return {name: float(rows) for name, rows in found}


def _for_psycopg2(statement: str, parameters: Any) -> tuple[str, Any]:
    """Convert a statement with asyncpg's numbered placeholders to psycopg2's format."""
    if not (isinstance(parameters, tuple | list) and _POSITION.search(statement)):
        return statement, parameters or None  # without any, a % is literal
    named = _POSITION.sub(r"%(p\1)s", statement.replace("%", "%%"))
    return named, {f"p{number}": value for number, value in enumerate(parameters, 1)}


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the nodes of a plan, from the root down."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def _flags(plan: Mapping[str, Any], sizes: Mapping[str, float]) -> list[Flag]:
    found: dict[str, Flag] = {}
    for node in nodes(plan["Plan"]):
        for flag in (_scan(node, sizes), _spill(node)):
            if flag is not None and not (flag.name in found and found[flag.name].cure):
                found[flag.name] = flag
    for flag in _estimates(plan["Plan"], cut_short=False):
        found.setdefault(flag.name, flag)
    return list(found.values())


def _scan(node: Mapping[str, Any], sizes: Mapping[str, float]) -> Flag | None:
    if node["Node Type"] != "Seq Scan":
        return None
    table, condition = node.get("Relation Name", "?"), node.get("Filter")
    loops = node.get("Actual Loops", 1)
    read = (node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)) * loops
    if "Actual Rows" not in node:
        read = max(node["Plan Rows"], sizes.get(table, 0.0))
    if read < _LARGE_TABLE:
        return None
    cure = f"Add an index for {condition}, if it selects few rows." if condition else ""
    return Flag("seq-scan", f"reads all of {table}, about {read:,.0f} rows", cure)


def _spill(node: Mapping[str, Any]) -> Flag | None:
    """Return a flag if the node, or one of its parallel workers, spilled to disk."""
    parts = [part for part in (node, *node.get("Workers", ())) if _is_on_disk(part)]
    if not parts:
        return None
    names = ("Sort Space Used", "Disk Usage", "Maximum Storage", "Peak Memory Usage")
    size = sum(next((part[name] for name in names if part.get(name)), 0) for part in parts)
    kind = node["Node Type"].lower()
    what = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    return Flag("spilled", f"{what} did not fit in memory ({size:,} kB)", "Increase work_mem.")


def _is_on_disk(part: Mapping[str, Any]) -> bool:
    return (
        "Disk" in {part.get("Sort Space Type"), part.get("Storage")}
        or part.get("Hash Batches", 1) > 1
        or part.get("Disk Usage", 0) > 0
    )


def _estimates(node: Mapping[str, Any], *, cut_short: bool) -> Iterator[Flag]:
    """Yield flags for wrong row estimates; if a node may be cut short, only for low estimates."""
    flag = _estimate(node, cut_short=cut_short)
    if flag is not None:
        yield flag
    for below in node.get("Plans", ()):
        asked_once = below.get("Parent Relationship") in {"SubPlan", "InitPlan"}
        looked_up = node.get("Join Type") in {"Semi", "Anti"}
        limited = cut_short or node["Node Type"] in {"Limit", "Merge Join"}
        yield from _estimates(below, cut_short=limited or asked_once or looked_up)


def _estimate(node: Mapping[str, Any], *, cut_short: bool) -> Flag | None:
    if not node.get("Actual Loops"):
        return None
    guessed, actual = max(node["Plan Rows"], 1), max(node["Actual Rows"], 1)
    wrong = actual / guessed if cut_short else max(guessed / actual, actual / guessed)
    if wrong < _MISJUDGED or max(guessed, actual) < _FEW:
        return None
    where = node.get("Relation Name") or node["Node Type"]
    words = f"{where}: {guessed:,} rows expected, {actual:,.0f} found"
    return Flag(
        "misestimated",
        words,
        "Run ANALYZE on the table, or add extended statistics on its columns.",
    )


def hide_secrets(parameters: Any) -> Any:
    """Return parameters for display, hiding those that look like secrets."""
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
