"""What is asked of the console, and the choice between a prompt and a script.

Nothing heavy is imported here: the prompt stands before SQLAlchemy is loaded.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli.output.console import Output
from aspencli.targets import Safety

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import Engine

    from db.database import Database


@dataclass(frozen=True)
class ConsoleRequest:
    """One use of the console.

    Attributes:
        open_database: Makes the database, read-only or writing. At a prompt it is called in a
            background thread while the operator starts to type, so it must not ask anything.
        address: The database's address, for the banner. May hold a password, which is never
            shown, and so is left out of ``repr``.
        target_label: What the operator calls the target: ``local``, ``rdev/mystack``, ``prod``.
        safety: How dangerous the target is; it colours the prompt.
        confirm_write: Asks the operator whether ``%write`` may open a writing session.
        writing: Whether ``open_database`` makes a writing one (the banner says so beforehand).
        code: Code to run instead of showing a prompt.
        script: A file to run instead; ``-`` stands for standard input.
        arguments: What the code or the script finds in ``sys.argv[1:]``.
        profile: Whether each query and its time are printed from the start.
        connect: Whether a connection is opened at once, so that a wrong password shows at once.
        debug: Whether errors of the database show their whole traceback.
        how_to_write: What a script that may not write is told to do.
        messages: Where everything goes that is no result.
        around: Entered with the console's engine at the start, and left at the end.
        ended: Called when the code or the script has ended.
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
        """Whether there is a prompt: no code was given, and somebody is there to type it."""
        return self.code is None and self.script is None and sys.stdin.isatty()


def run(request: ConsoleRequest) -> int:
    """Show the prompt, or run the code; returns the exit code.

    Code and scripts end with 0, with 1 when they raised, with the code of an `AspenError` or of
    ``sys.exit``, with 130 when interrupted. A prompt that was left ends with 0.

    Raises:
        sqlalchemy.exc.OperationalError: The database cannot be reached (only with ``connect``).
    """
    if not request.interactive:
        from aspencli.shell.script import execute

        return execute(request)
    # Until the prompt stands: walking over what is being imported takes a tenth of that time.
    gc.disable()
    try:
        from aspencli.shell.terminal import interact

        return interact(request)
    finally:
        gc.enable()
