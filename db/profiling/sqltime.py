"""The lines on the logger ``sqltime``, and the set-up that lets a person see them."""

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
    """Writes each execution to the logger ``sqltime`` at DEBUG; never its parameters."""

    def started(self, execution: Execution) -> None:
        """Write the statement."""
        # A literal inside the SQL must not be able to steer the terminal.
        logger.debug(
            "Start Query: %s", _CONTROL.sub("\N{REPLACEMENT CHARACTER}", execution.statement)
        )

    def completed(self, execution: Execution) -> None:
        """Write how long it took, in seconds."""
        logger.debug("Query Complete!")
        logger.debug("Total Time: %f", execution.seconds)

    def failed(self, execution: Execution) -> None:
        """Write the class of the error and how long it took; no message, it may hold data."""
        logger.debug("Query Failed: %s", type(execution.error).__name__)
        logger.debug("Total Time: %f", execution.seconds)


class CurrentStderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at that moment, which a console or a test may replace."""

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
            self.handleError(record)  # closed or broken; a query must not fail of it


@dataclass(frozen=True)
class _Found:
    """How the logger was before; it is left like that again."""

    level: int
    propagate: bool
    disabled: bool
    handler: logging.Handler | None


class Visibility:
    """Makes the records of ``sqltime`` visible, and puts the logger back as it was."""

    def __init__(self) -> None:
        self._users = 0
        self._found: _Found | None = None

    def acquire(self) -> None:
        """One user more; the first sets the logger up."""
        self._users += 1
        if self._users == 1:
            self._found = self._set_up()

    def release(self) -> None:
        """One user less; the last restores the logger."""
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
            # Logging that is configured from now on must not print the records a second time.
            logger.propagate = False
        return found


def _somebody_shows_debug() -> bool:
    """Whether a handler of the application gets DEBUG records of this logger."""
    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            if handler.level <= logging.DEBUG and not isinstance(handler, logging.NullHandler):
                return True
        current = current.parent if current.propagate else None
    return False
