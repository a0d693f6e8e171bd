"""Log messages of other layers, shown to the operator."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from aspencli.output.console import Output


class _Relay(logging.Handler):
    """A log handler that writes to the operator's output."""

    def __init__(self, out: Output):
        super().__init__(logging.INFO)
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record: a warning as a warning, anything else as information."""
        show = self._out.warn if record.levelno >= logging.WARNING else self._out.info
        show(record.getMessage())


@contextmanager
def relayed(logger: logging.Logger, out: Output) -> Iterator[None]:
    """Show the messages of a logger within a ``with`` block."""
    relay = _Relay(out)
    logger.addHandler(relay)
    try:
        yield
    finally:
        logger.removeHandler(relay)
