"""Long statements that Ctrl-C can stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")


def cancellable(connection: Connection, work: Callable[[], T]) -> T:
    """Do the work; an interrupt cancels its statement on the server, at once.

    The driver waits inside C, where no signal handler of Python runs until the statement is over.
    So the work goes to a thread, and the main thread waits where it can be interrupted. (psycopg2's
    own wait callback would do for statements, but it forbids COPY.)

    Raises:
        KeyboardInterrupt: The work was interrupted; its transaction has failed.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    driver: Any = connection.connection.driver_connection
    done = threading.Event()
    outcome: list[T] = []
    failure: list[BaseException] = []

    turn = threading.Lock()  # whoever takes it first decides whether the work is done at all

    def run() -> None:
        if not turn.acquire(blocking=False):
            return
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, and raised there
            failure.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, name="statement", daemon=True)
    asked = False
    interrupt: KeyboardInterrupt | None = None
    while not done.is_set():
        try:
            if not asked:
                asked = True
                thread.start()
            done.wait()
        except KeyboardInterrupt as error:
            if turn.acquire(blocking=False):  # interrupted while the thread was starting
                raise
            interrupt = error
            driver.cancel()
    if interrupt is not None:
        raise interrupt
    if failure:
        raise failure[0]
    return outcome[0]
