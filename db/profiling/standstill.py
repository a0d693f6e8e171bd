"""Changing an engine's listeners while other threads run queries on it.

SQLAlchemy iterates over a deque of listeners for each event. Adding or removing a listener breaks
the iteration of another thread ("deque mutated during iteration"), whose query would then fail.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sqlalchemy.engine import base

PATIENCE_S = 1.0
"""Seconds to wait for a moment when no other thread iterates over listeners."""
_GLANCE_S = 0.0002
_UNDISTURBED_S = 1.0  # far longer than adding and removing takes
_ALONE = threading.Lock()


@contextmanager
def standstill() -> Iterator[None]:
    """Run a non-blocking ``with`` block while no other thread iterates over listeners."""
    deadline = time.monotonic() + PATIENCE_S
    with _ALONE:
        interval = sys.getswitchinterval()
        try:
            # No other thread may run between this check and the end of the block.
            sys.setswitchinterval(_UNDISTURBED_S)
            while _somebody_walks() and time.monotonic() < deadline:
                sys.setswitchinterval(interval)
                time.sleep(_GLANCE_S)
                sys.setswitchinterval(_UNDISTURBED_S)
            yield
        finally:
            sys.setswitchinterval(interval)


def _somebody_walks() -> bool:
    me = threading.get_ident()
    return any(_walks(frame) for thread, frame in sys._current_frames().items() if thread != me)  # noqa: SLF001 - documented, despite the underscore


def _walks(frame: FrameType | None) -> bool:
    """Return True if a thread is between two listeners, or in one.

    The engine's own module calls listeners, except while it waits for the driver in one of the
    dialect's ``do_...`` functions.
    """
    called = ""
    while frame is not None:
        if frame.f_code.co_filename == base.__file__:
            return not called.startswith("do_")
        called = frame.f_code.co_name
        frame = frame.f_back
    return False
