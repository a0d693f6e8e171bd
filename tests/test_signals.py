from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DataError

from aspen.database.bulk.staging import copy_in
from aspen.database.cancel import cancellable, read_ahead
from aspen.database.engine import Database
from aspencli.cli.main import interrupt_code, obey_sigterm
from aspencli.signals import Shield, TerminatedError


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert signal.getsignal(signal.SIGINT) == before[signal.SIGINT]
    for number, handler in before.items():
        signal.signal(number, handler)
    obey_sigterm()
    signal.signal(signal.SIGTERM, before[signal.SIGTERM])


def send(number: signal.Signals, after: float = 0.0) -> threading.Timer:
    timer = threading.Timer(after, os.kill, (os.getpid(), number))
    timer.start()
    return timer


def test_shield_records_signal_and_check_raises_it() -> None:
    obey_sigterm()
    with Shield() as shield:
        shield.raise_shield()
        os.kill(os.getpid(), signal.SIGTERM)
        assert shield.late
        with pytest.raises(TerminatedError):
            shield.check()
    assert interrupt_code() == 143


def test_shield_defers_interrupt_after_check() -> None:
    with Shield() as shield:
        shield.raise_shield()
        shield.check()
        os.kill(os.getpid(), signal.SIGINT)
        assert shield.late
    assert interrupt_code() == 130


def test_shield_keeps_ignored_interrupt_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Shield() as shield:
            shield.raise_shield()
            os.kill(os.getpid(), signal.SIGINT)
            shield.check()
            assert not shield.late
    finally:
        signal.signal(signal.SIGINT, before)


def test_sigterm_ends_event_loop_between_callbacks() -> None:
    seen: list[str] = []

    def data_received() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append("callback ended")
        except TerminatedError:  # inside a compiled protocol, this would crash the process
            seen.append("callback interrupted")

    async def work() -> None:
        asyncio.get_running_loop().call_soon(data_received)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append("work canceled")
            raise

    obey_sigterm()
    with pytest.raises(TerminatedError):
        asyncio.run(work())
    assert seen == ["callback ended", "work canceled"]
    assert interrupt_code() == 143


def test_second_sigterm_ends_blocked_event_loop() -> None:
    async def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("still running")

    obey_sigterm()
    with pytest.raises(TerminatedError):
        asyncio.run(work())


def test_sigterm_during_asyncio_import_ends_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "asyncio", ModuleType("asyncio"))  # partly imported
    obey_sigterm()
    with pytest.raises(TerminatedError):
        os.kill(os.getpid(), signal.SIGTERM)


LOST = """
import os, signal, time
from aspencli.cli.main import obey_sigterm
from aspencli.signals import TerminatedError, deliver_lost_interrupts

class Closing:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        for _ in range(1000):
            pass

obey_sigterm()
deliver_lost_interrupts()
try:
    Closing()
    time.sleep(30)
except {error}:
    print("obeyed")
"""


@pytest.mark.parametrize(
    ("name", "error"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "TerminatedError")]
)
def test_signal_during_finalizer_is_obeyed_after_it(name: str, error: str) -> None:
    script = LOST.format(name=name, error=error)
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("obeyed\n", "", 0)


def test_interrupt_cancels_statement_on_server(database: Database) -> None:
    began = time.monotonic()
    with database.engine.connect() as connection:
        timer = send(signal.SIGINT, 0.2)
        with pytest.raises(KeyboardInterrupt):
            cancellable(connection, lambda: connection.execute(sa.text("SELECT pg_sleep(30)")))
        timer.join()
        connection.rollback()
        assert connection.scalar(sa.text("SELECT 1")) == 1
    assert time.monotonic() - began < 25


SLEEP = sa.text("SELECT pg_sleep(30)")


def test_statement_runs_in_calling_thread(database: Database) -> None:
    # A thread for each statement would make small queries in the console twice as slow.
    with database.engine.connect() as connection:
        assert cancellable(connection, threading.current_thread) is threading.main_thread()


def test_interrupt_spares_next_statement(database: Database) -> None:
    with database.engine.connect() as connection:
        for _ in range(20):
            timer = send(signal.SIGINT, 0.02)
            with pytest.raises(KeyboardInterrupt):
                cancellable(connection, lambda: connection.execute(SLEEP))
            timer.join()
            connection.rollback()
            query = sa.text("SELECT 1 FROM pg_sleep(0.02)")
            assert cancellable(connection, lambda: connection.scalar(query)) == 1  # noqa: B023 - called at once


def test_interrupt_before_statement_cancels_it(database: Database) -> None:
    with database.engine.connect() as connection:

        def work() -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # the first request to cancel finds no statement
            connection.execute(SLEEP)

        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            cancellable(connection, work)
        assert time.monotonic() - began < 25


def test_sigterm_during_statement_calls_its_handler(database: Database) -> None:
    obey_sigterm()
    handler = signal.getsignal(signal.SIGTERM)
    with database.engine.connect() as connection:
        timer = send(signal.SIGTERM, 0.1)
        with pytest.raises(TerminatedError) as raised:
            cancellable(connection, lambda: connection.execute(SLEEP))
        timer.join()
    assert raised.value.__suppress_context__  # the canceled statement is of no interest
    assert signal.getsignal(signal.SIGTERM) is handler


def test_interrupt_of_statement_reaches_earlier_wakeup_descriptor(database: Database) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handler = signal.signal(signal.SIGINT, lambda *_: None)  # as an event loop does
    before = signal.set_wakeup_fd(writing)
    try:
        with database.engine.connect() as connection:
            timer = send(signal.SIGINT, 0.1)
            with pytest.raises(KeyboardInterrupt):
                cancellable(connection, lambda: connection.execute(SLEEP))
            timer.join()
        assert os.read(reading, 10) == bytes([signal.SIGINT])
    finally:
        assert signal.set_wakeup_fd(before) == writing
        signal.signal(signal.SIGINT, handler)
        os.close(reading)
        os.close(writing)


def test_interrupt_cancels_statement_of_forked_process(database: Database) -> None:
    with database.engine.connect() as connection:
        cancellable(connection, lambda: connection.scalar(sa.text("SELECT 1")))
    database.dispose()
    if (child := os.fork()) == 0:
        code = 1
        try:
            signal.alarm(20)
            with database.engine.connect() as connection:
                send(signal.SIGINT, 0.2)
                cancellable(connection, lambda: connection.execute(SLEEP))
        except KeyboardInterrupt:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


@contextmanager
def reading_ahead(database: Database, value: str) -> Iterator[Generator[Any, None, None]]:
    """Open a session without a time limit, and read a value for each n from 1 to 3 in it."""
    numbers = sa.text("generate_series(1, 3) AS n")
    query: sa.Select[Any] = sa.select(sa.literal_column(value)).select_from(numbers)
    with database.with_limits(statement_ms=0).reading() as session:
        connection = session.connection()
        found = connection.execute(query, execution_options={"yield_per": 1})
        yield read_ahead(connection, found.partitions())
        session.rollback()
        assert session.scalar(sa.text("SELECT 1")) == 1


def test_interrupt_cancels_query_that_is_read_ahead(database: Database) -> None:
    with reading_ahead(database, "pg_sleep(600 * (n - 1))") as parts:
        next(parts)
        send(signal.SIGINT, after=0.3)
        with pytest.raises(KeyboardInterrupt):
            next(parts)


def test_closing_read_ahead_cancels_its_query(database: Database) -> None:
    with reading_ahead(database, "pg_sleep(600 * (n - 1))") as parts:
        next(parts)
        parts.close()


def test_read_ahead_yields_what_came_before_server_error(database: Database) -> None:
    with reading_ahead(database, "1 / (3 - n)") as parts:
        seen = [next(parts), next(parts)]
        with pytest.raises(DataError):
            next(parts)
    assert seen == [[(0,)], [(1,)]]


def test_read_ahead_works_in_another_thread(database: Database) -> None:
    with reading_ahead(database, "n") as parts:
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.extend(len(part) for part in parts))
        thread.start()
        thread.join(60)
    assert seen == [1, 1, 1]


def test_ignored_interrupt_does_not_cancel_statement(database: Database) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with database.engine.connect() as connection:
            timer = send(signal.SIGINT, 0.1)
            query = sa.text("SELECT 1 FROM pg_sleep(0.3)")
            assert cancellable(connection, lambda: connection.scalar(query)) == 1
            timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def table(database: Database) -> Iterator[sa.Connection]:
    with database.writing().engine.connect() as connection:
        connection.execute(sa.text("CREATE TEMPORARY TABLE t (line text)"))
        connection.commit()
        yield connection
        connection.invalidate()


def test_copy_in_raises_error_of_line_iterator(table: sa.Connection) -> None:
    def lines() -> Iterator[str]:
        yield "a\n" * 100_000
        raise LookupError("in the middle")

    with pytest.raises(LookupError, match="in the middle"), table.begin():
        copy_in(table, "t", lines())
    assert table.scalar(sa.text("SELECT count(*) FROM t")) == 0


def test_copy_in_raises_server_error(table: sa.Connection) -> None:
    with table.begin(), pytest.raises(psycopg2.DataError, match="extra data after last expected"):
        copy_in(table, "t", ["one\ttoo many\n"] * 100_000)


def test_interrupt_ends_copy_in_that_waits_for_next_line(table: sa.Connection) -> None:
    def lines() -> Iterator[str]:
        yield "a\n"
        time.sleep(30)
        yield "b\n"

    began = time.monotonic()
    timer = send(signal.SIGINT, 0.2)
    with pytest.raises(KeyboardInterrupt):
        copy_in(table, "t", lines())
    timer.join()
    assert time.monotonic() - began < 25


def test_copy_in_works_in_another_thread(table: sa.Connection) -> None:
    thread = threading.Thread(target=copy_in, args=(table, "t", ["a\n", "é\\\\\n"] * 50_000))
    thread.start()
    thread.join()
    assert table.scalar(sa.text("SELECT count(*) FROM t WHERE line IN ('a', 'é\\')")) == 100_000
