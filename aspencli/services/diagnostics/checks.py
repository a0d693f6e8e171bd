"""Checks based on the diagnostic commands, each with a verdict and a next step."""

from __future__ import annotations

from aspencli.errors import NotFoundError
from aspencli.services.diagnostics.bloat import BLOATED_BYTES, Bloats, Kind, bloat
from aspencli.services.diagnostics.findings import Examined, Verdict, several
from aspencli.services.diagnostics.indexes import Finding, IndexFinding, indexes
from aspencli.services.diagnostics.locks import Node, locks
from aspencli.services.diagnostics.looking import quoted
from aspencli.services.diagnostics.outliers import outliers
from aspencli.services.diagnostics.sessions import SeenSession, activity
from aspencli.services.diagnostics.settings import settings
from aspencli.services.diagnostics.tables import sizes
from aspencli.services.schema import schema_state
from db.database import Database
from db.sessions import ReadSession

LONG_WAIT_S = 30.0
LONG_TRANSACTION_S, FORGOTTEN_S = 300.0, 3_600.0
SLOW_MS, HEAVY_SHARE = 1_000.0, 0.5
_NAMED = 5


def check_schema(database: Database) -> Examined:
    """Check that the schema matches this version of the program."""
    state = schema_state(database)
    if state.revision is None:
        return Examined("schema", Verdict.PROBLEM, "there is no schema", "aspencli db setup")
    if state.older is not None:
        message = f"revision {state.revision} is older than any that aspencli can migrate from"
        return Examined("schema", Verdict.WARNING, message, state.older)
    if state.behind is None:
        message = f"this program does not know the revision {state.revision}"
        return Examined("schema", Verdict.WARNING, message, "Use the version that migrated it.")
    if state.behind:
        message = f"{several(state.behind, 'revision')} behind"
        return Examined("schema", Verdict.WARNING, message, "aspencli db upgrade")
    return Examined("schema", Verdict.OK, f"up to date: {state.revision}")


def check_locks(session: ReadSession) -> Examined:
    """Check for lock waits and how long they last."""
    found = locks(session)
    if not found.nodes:
        return Examined("locks", Verdict.OK, "nobody waits for a lock")
    long = found.longest_s > LONG_WAIT_S
    pids = ", ".join(str(root.pid) for root in found.roots)
    waiting = several(found.waiting, "session", "waits", "wait")
    message = f"{waiting} for pid {pids}, up to {found.longest_s:.0f} s"
    details = tuple(_holding(root) for root in found.roots[:_NAMED])
    verdict = Verdict.PROBLEM if long else Verdict.WARNING
    return Examined("locks", verdict, message, "aspencli db locks", details)


def _holding(root: Node) -> str:
    who = f"pid {root.pid} ({root.session})" if root.session else f"pid {root.pid}"
    if root.pid == 0:
        who = "a prepared transaction"
    state = f"; it is {root.session.state}" if root.session and root.session.state else ""
    return f"{who} holds up {several(root.blocks, 'session')}{state}"


def check_activity(session: ReadSession) -> Examined:
    """Check for transactions that have been open for too long."""
    found = activity(session)
    old = [seen for seen in found.sessions if (seen.transaction_s or 0) > LONG_TRANSACTION_S]
    old.sort(key=lambda seen: -(seen.transaction_s or 0))
    details = tuple(_transaction(seen) for seen in old[:_NAMED])
    if old:
        forgotten = any((seen.transaction_s or 0) > FORGOTTEN_S for seen in old)
        verdict = Verdict.PROBLEM if forgotten else Verdict.WARNING
        opened = several(len(old), "transaction", "has", "have")
        message = f"{opened} been open for more than 5 minutes"
        step = f"Have it ended, or: aspencli db terminate {old[0].pid}"
        return Examined("activity", verdict, message, step, details)
    if found.hidden:
        message = f"hidden: what {several(found.hidden, 'session')} of other users do"
        return Examined("activity", Verdict.UNKNOWN, message, found.rights.cure)
    message = f"{several(len(found.sessions), 'other session')}, {found.resting} of them idle"
    if not found.sessions:
        message = "nobody else is connected"
    return Examined("activity", Verdict.OK, message)


def _transaction(seen: SeenSession) -> str:
    return f"pid {seen.pid} ({seen}): {seen.state}, for {seen.transaction_s:.0f} s"


def check_outliers(session: ReadSession) -> Examined:
    """Check for slow statements, and for one that takes most of the time."""
    try:
        found = outliers(session, limit=20)
    except NotFoundError as error:
        return Examined("outliers", Verdict.NOTE, error.message, error.hint)
    slow = [item for item in found.statements if item.mean_ms > SLOW_MS]
    heavy = [item for item in found.statements if (item.share or 0) > HEAVY_SHARE]
    if slow:
        message = f"{several(len(slow), 'statement', 'takes', 'take')} more than a second each time"
        step = "aspencli db outliers --by mean"
        details = tuple(
            f"{item.mean_ms / 1_000:.1f} s, {several(item.calls, 'call')}: {_short(item.query)}"
            for item in slow[:_NAMED]
        )
        return Examined("outliers", Verdict.WARNING, message, step, details)
    if heavy:
        message = f"one statement takes {heavy[0].share:.0%} of the time of all"
        details = (_short(heavy[0].query),)
        return Examined("outliers", Verdict.NOTE, message, "aspencli db outliers", details)
    return Examined(
        "outliers", Verdict.OK, f"{several(found.seen, 'statement')}, none of them slow"
    )


def _short(query: str | None) -> str:
    return " ".join((query or "(hidden)").split())[:100]


def check_sizes(session: ReadSession) -> Examined:
    """Report the size of the database and its largest tables."""
    found = sizes(session)
    message = f"{found.database / 1e6:,.1f} MB in {several(len(found.tables), 'table')}"
    biggest = tuple(f"{t.table}: {t.total / 1e6:,.1f} MB" for t in found.tables[:3])
    return Examined("sizes", Verdict.OK, message, None, biggest)


def check_indexes(session: ReadSession) -> Examined:
    """Check for invalid, missing, redundant, and unused indexes."""
    found = indexes(session)
    relevant = [finding for finding in found.findings if finding.matters]
    counts = {kind: [f for f in relevant if f.finding is kind] for kind in Finding}
    told = ", ".join(f"{len(items)} {kind.value}" for kind, items in counts.items() if items)
    if not told:
        return Examined("indexes", Verdict.OK, f"{found.seen} indexes, nothing to say")
    return Examined(
        "indexes",
        _index_verdict(counts),
        f"{told} of {found.seen}",
        "aspencli db indexes",
        tuple(f"{f.finding.value}: {f.table} {f.index}" for f in relevant[:_NAMED]),
    )


def _index_verdict(counts: dict[Finding, list[IndexFinding]]) -> Verdict:
    if counts[Finding.INVALID]:
        return Verdict.PROBLEM
    needed = counts[Finding.MISSING] or counts[Finding.DUPLICATE]
    return Verdict.WARNING if needed else Verdict.NOTE


def check_bloat(session: ReadSession) -> Examined:
    """Check for large amounts of wasted space."""
    found = bloat(session)
    bad = [item for item in found.items if item.is_bloated]
    if bad:
        wasted = sum(item.wasted or 0 for item in bad) / 1e6
        tables = sum(item.kind is Kind.TABLE for item in bad)
        ofs = [several(tables, "table")] * (tables > 0)
        if len(bad) > tables:
            ofs.append("1 index" if len(bad) - tables == 1 else f"{len(bad) - tables} indexes")
        message = f"{wasted:,.1f} MB are not needed, in {' and '.join(ofs)}"
        details = tuple(f"{item.name}: {item.share:.0%} of it" for item in bad[:_NAMED])
        return Examined("bloat", Verdict.WARNING, message, "aspencli db bloat", details)
    return _unseen(found) or Examined("bloat", Verdict.OK, "nothing big is bloated")


def _unseen(found: Bloats) -> Examined | None:
    """Return an unknown verdict if a large table or index has no statistics.

    Anything below the minimum waste that matters does not need them.
    """
    big = [item for item in found.items if item.size > BLOATED_BYTES]
    unseen = [item for item in big if item.wasted is None]
    if not unseen:
        return None
    message = f"no statistics that this user may see of {len(unseen)} of {len(big)} big ones"
    step = (
        f"Run ANALYZE, or ask for: GRANT pg_read_all_data TO {quoted(found.rights.user)} "
        "(before PostgreSQL 14: GRANT SELECT ON ALL TABLES IN SCHEMA aspen)"
    )
    biggest = sorted(unseen, key=lambda item: -item.size)[:_NAMED]
    return Examined("bloat", Verdict.UNKNOWN, message, step, tuple(item.name for item in biggest))


def check_settings(database: Database) -> Examined:
    """Check for settings that endanger data or are unusual."""
    found = settings(database)
    odd = [item for item in found.items if item.remark]
    odd.sort(key=lambda item: not item.severe)
    if not odd:
        seen = "" if found.rights.settings else " that this user may see"
        return Examined("settings", Verdict.OK, f"nothing odd in the settings{seen}")
    severe = odd[0].severe
    waiting = any(item.pending_restart for item in odd)
    verdict = Verdict.PROBLEM if severe else Verdict.WARNING if waiting else Verdict.NOTE
    details = tuple(f"{item.name} = {item.value}: {item.remark}" for item in odd[:_NAMED])
    return Examined("settings", verdict, details[0], "aspencli db settings", details)
