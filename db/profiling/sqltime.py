"""The log lines on the logger ``sqltime``, and the setup that makes them visible."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass

from db.profiling.hooks import Execution

LOGGER_NAME = "sqltime"
FORMAT = "%(levelname)s:%(name)s:%(message)s"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

logger = logging.getLogger(LOGGER_NAME)


class LogSink:
    """A sink that logs each execution to ``sqltime`` at DEBUG, but never its parameters."""

    def started(self, execution: Execution) -> None:
        """Log the statement."""
        # A literal in the SQL must not be able to control the terminal.
        logger.debug(
            "Start Query: %s", _CONTROL.sub("\N{REPLACEMENT CHARACTER}", execution.statement)
        )

    def completed(self, execution: Execution) -> None:
        """Log the execution time, in seconds."""
        logger.debug("Query Complete!")
        logger.debug("Total Time: %f", execution.seconds)

    def failed(self, execution: Execution) -> None:
        """Log the class of the error and the time; not the message, which may contain data."""
        logger.debug("Query Failed: %s", type(execution.error).__name__)
        logger.debug("Total Time: %f", execution.seconds)


class CurrentStderrHandler(logging.Handler):
    """A handler for the current ``sys.stderr``, which a console or a test may replace."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        if sys.stderr is None:  # the process was started without one
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            self.handleError(record)  # closed or broken, which must not fail a query


@dataclass(frozen=True)
class _Found:
    """The original state of the logger, to be restored."""

    level: int
    propagate: bool
    disabled: bool
    handler: logging.Handler | None


class Visibility:
    """A counted switch that makes ``sqltime`` records visible, then restores the logger."""

    def __init__(self) -> None:
        self._users = 0
        self._found: _Found | None = None

    def acquire(self) -> None:
        """Add a user; the first one sets up the logger."""
        self._users += 1
        if self._users == 1:
            self._found = self._set_up()

    def release(self) -> None:
        """Remove a user; the last one restores the logger."""
        self._users -= 1
        if self._users or self._found is None:
            return
        found, self._found = self._found, None
        if found.handler is not None:
            logger.removeHandler(found.handler)
            found.handler.close()
        logger.setLevel(found.level)
        logger.propagate = found.propagate
        logger.disabled = found.disabled

    def _set_up(self) -> _Found:
        handler = None if _somebody_shows_debug() else CurrentStderrHandler()
        found = _Found(logger.level, logger.propagate, logger.disabled, handler)
        logger.setLevel(logging.DEBUG)
        logger.disabled = False  # logging.config.fileConfig disables loggers it does not know
        if handler is not None:
            logger.addHandler(handler)
            # Logging that is configured later must not print the records a second time.
            logger.propagate = False
        return found


def _somebody_shows_debug() -> bool:
    """Return True if a handler of the application gets this logger's DEBUG records."""
    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            if handler.level <= logging.DEBUG and not isinstance(handler, logging.NullHandler):
                return True
        current = current.parent if current.propagate else None
    return False
