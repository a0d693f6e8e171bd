"""Reads the names of a target for completion, in a process of its own."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aspencli.cli.context import AppContext

_LONGEST_S = 20
_STATEMENT_MS = 3_000
_CONNECT_S = 3


def refresh(label: str) -> None:
    """Store the names of a target that is not production; do nothing if anything is in the way."""
    from aspencli.cli.completion.values import KINDS, as_name, store
    from aspencli.cli.context import AppContext

    signal.alarm(_LONGEST_S)  # ends the process, whatever it waits for
    os.nice(10)
    context = AppContext()
    context.options.give("no_input", True)
    context.choose_target(label)
    with context:
        if _is_production(context):
            return
        from aspen.database.settings import Limits

        limits = Limits(statement_ms=_STATEMENT_MS, connect_s=_CONNECT_S)
        database = context.database(limits=limits)
        from aspencli.reference.names import read_names

        if _is_production(context):  # recognized by its identity, now that it is open
            return
        with database.connected() as reader:
            for kind, rows in read_names(reader, KINDS):
                names = [name for row in rows for name in as_name(kind, row)]
                store(label, kind, names, is_production=False, whole=True)


def _is_production(context: AppContext) -> bool:
    return context.target.is_production
