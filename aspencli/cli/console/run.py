"""The console request, and the choice between a prompt and a script.

Nothing heavy is imported here, so that the prompt appears before SQLAlchemy is loaded.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli.cli.output.console import Output
from aspencli.targets import Safety

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import Engine

    from aspen.database.engine import Database


@dataclass(frozen=True)
class ConsoleRequest:
    """One use of the console.

    Attributes:
        open_database: Creates the database, read-only or writable. At a prompt it is called in a
            background thread while the operator starts to type, so it must not ask anything.
        address: Database address, for the banner. It may contain a password, which is never
            shown, so it is left out of ``repr``.
        target_label: Display name of the target: ``local``, ``rdev/mystack``, ``prod``.
        safety: Safety level of the target; sets the color of the prompt.
        confirm_write: Asks the operator whether ``%write`` may open a writable session.
        writing: Whether ``open_database`` creates a writable one (the banner needs it earlier).
        code: Code to run instead of showing a prompt.
        script: File to run instead; ``-`` means standard input.
        arguments: Contents of ``sys.argv[1:]`` for the code or script.
        profile: Whether to print each query and its time from the start.
        connect: Whether to connect immediately, so that a wrong password is reported early.
        debug: Whether to show full tracebacks for database errors.
        how_to_write: Hint for a script that tries to write without permission.
        messages: Destination of everything that is not a result.
        around: Context manager entered with the console's engine at startup, exited at the end.
        ended: Called when the code or script has ended.
    """

    open_database: Callable[[], Database]
    address: str = field(repr=False)
    target_label: str
    safety: Safety
    confirm_write: Callable[[], bool]
    writing: bool = False
    code: str | None = None
    script: Path | None = None
    arguments: Sequence[str] = ()
    profile: bool = False
    connect: bool = True
    debug: bool = False
    how_to_write: str = "Run it again with --write."
    messages: Output = field(default_factory=Output)
    around: Callable[[Engine], AbstractContextManager[None]] | None = None
    ended: Callable[[], None] = lambda: None

    @property
    def interactive(self) -> bool:
        """Return True if there is a prompt: no code was given and stdin is a terminal."""
        return self.code is None and self.script is None and sys.stdin.isatty()


def run(request: ConsoleRequest) -> int:
    """Show the prompt or run the code, and return the exit code.

    Code and scripts exit with 0, with 1 if they raised, with the code of an `AspenError` or of
    ``sys.exit``, or with 130 if interrupted. Leaving the prompt exits with 0.

    Raises:
        sqlalchemy.exc.OperationalError: If the database is unreachable (only with ``connect``).
    """
    if not request.interactive:
        from aspencli.cli.console.script import execute

        return execute(request)
    # Off until the prompt is shown: garbage collection takes a tenth of the startup time.
    gc.disable()
    try:
        from aspencli.cli.console.terminal import interact

        return interact(request)
    finally:
        gc.enable()
