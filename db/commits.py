"""Commits that an interrupt can end, and that say what they are waiting for.

A server with ``synchronous_standby_names`` holds COMMIT back until a standby has confirmed it, for
as long as that takes. The driver waits inside C meanwhile, where no signal handler of Python runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from db.interrupts import GLANCE_S, NotedInterrupts, Worker

LOG = logging.getLogger(__name__)
"""Where a slow commit is reported: INFO while it waits, WARNING when its wait was cut short."""
LOG.setLevel(logging.INFO)
_PATIENCE_S = 3.0
_CANCELED = "57014"
_WAIT = """
SELECT wait_event, current_setting('synchronous_standby_names') FROM pg_stat_activity
 WHERE pid = %(pid)s AND state = 'active'
"""
_STAYS = "Ctrl-C ends the wait; what the server has committed by then stays committed."


def make_interruptible(engine: Engine) -> None:
    """Let an interrupt end the commits of an engine.

    After an interrupt the transaction is either rolled back, or committed here without a standby's
    confirmation; which one is what COMMIT itself answers.
    """
    dialect = engine.dialect
    commit = dialect.do_commit

    def do_commit(proxied: Any) -> None:
        driver = proxied.driver_connection
        if (
            threading.current_thread() is not threading.main_thread()
            or driver.info.transaction_status == TRANSACTION_STATUS_IDLE
        ):
            commit(proxied)
        else:
            _commit(engine, driver, lambda: commit(proxied))

    vars(dialect)["do_commit"] = do_commit


def _commit(engine: Engine, driver: Any, work: Callable[[], None]) -> None:
    said = list(driver.notices)
    worker, probe = Worker(driver, work), _Probe(engine, driver.info.backend_pid)
    with NotedInterrupts() as interrupts:
        worker.start()
        overdue = time.monotonic() + _PATIENCE_S
        while not worker.ended_within(GLANCE_S):
            if interrupts.came:
                worker.cancel()
            if time.monotonic() > overdue:
                probe.report()
        error = worker.failure()
        if error is not None:
            if getattr(error, "pgcode", None) != _CANCELED:
                interrupts.forget()  # the error says more: whether it was committed may be unknown
            raise error
        if driver.notices != said and (interrupts.came or probe.found_standby):
            LOG.warning(
                "The transaction is committed on this server, but no synchronous standby has "
                "confirmed it: if this server fails now, it may be lost. The server says: %s",
                " ".join(driver.notices[-1].split()),
            )
        # An interrupt that came too late is obeyed all the same, by whoever has prepared for it.
        interrupts.pass_on()


class _Probe:
    """Finds out, over another connection, what a commit is waiting for.

    In a thread: behind a pooler with a single connection to the server there is no other one.
    """

    def __init__(self, engine: Engine, pid: int):
        self._engine = engine
        self._pid = pid
        self._thread: threading.Thread | None = None
        self._found: list[str] = []
        self._is_reported = False
        self._deadline = 0.0
        self.found_standby = False

    def report(self) -> None:
        """Report it once, as soon as it is known."""
        if self._thread is None:
            self._deadline = time.monotonic() + _PATIENCE_S
            self._thread = threading.Thread(target=self._ask, name="commit probe", daemon=True)
            self._thread.start()
        is_due = self._found or time.monotonic() > self._deadline
        if self._is_reported or not is_due:
            return
        self._is_reported = True
        what = self._found[0] if self._found else "Waiting for the server to confirm the commit."
        LOG.info("%s %s", what, _STAYS)

    def _ask(self) -> None:
        try:
            with self._engine.connect() as connection:
                row = connection.exec_driver_sql(_WAIT, {"pid": self._pid}).first()
        except (DBAPIError, psycopg2.Error) as error:
            LOG.debug("The wait of a commit could not be looked up: %s", error)
            return
        if row is None:
            return
        event, standbys = row
        self.found_standby = event == "SyncRep"
        self._found.append(
            f"Waiting for a synchronous standby to confirm the commit (synchronous_standby_names: "
            f"{standbys})."
            if self.found_standby
            else f"Waiting for the server to confirm the commit (wait event: {event})."
        )
