"""``aspencli mcp``: starts the server for assistants."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from aspencli.cli.assistant.context import require_allowed
from aspencli.errors import AspenError

if TYPE_CHECKING:
    from collections.abc import Collection

    from aspencli.cli.assistant.server import Assistants
    from aspencli.cli.context import AppContext

INSTALL = "Install it: pip install 'aspencli[mcp]'"


def serve_assistants(
    context: AppContext, allow: Collection[str], *, shows_personal_data: bool
) -> None:
    """Serve one assistant on standard input and output until it closes them.

    Raises:
        AspenError: The extra is not installed, or the target may not be read.
    """
    try:
        from aspencli.cli.assistant import server
    except ImportError as error:
        raise AspenError(
            f"The server for assistants is not installed: {error}", hint=INSTALL
        ) from error
    from aspencli.cli.assistant.results import Masking
    from aspencli.cli.assistant.tools import all_tools
    from aspencli.cli.main import command

    allowed = server.chosen_targets(context, allow)
    require_allowed(context.target, allowed)
    masking = Masking(is_off=shows_personal_data)
    assistants = server.Assistants(context, all_tools(command()), allowed, masking)
    if sys.stdin.isatty():
        context.out.info("Waiting for an assistant on standard input. Press Ctrl-C to stop.")
    _serve(assistants, masks=not shows_personal_data)


def _serve(assistants: Assistants, *, masks: bool) -> None:
    import anyio

    from aspencli.cli.assistant.server import new_server, serve

    try:
        anyio.run(serve, new_server(assistants, masks=masks))
    except KeyboardInterrupt:
        # A thread still waits for input, and the interpreter would wait for the thread.
        sys.stdout.flush()
        sys.stderr.flush()
        from aspencli.cli.main import interrupt_code

        os._exit(interrupt_code())
