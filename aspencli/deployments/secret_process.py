"""A process that reads a deployment's secret while this one loads SQLAlchemy.

Each takes 0.2 s of CPU time, nearly all of it for imports, which threads of one process cannot do
at the same time. The secret comes back through a pipe, and is in no file or argument.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

from aspencli import errors
from aspencli.config import Safety, Target
from aspencli.errors import AspenError

_VARIABLE = "ASPENCLI_SECRET_TO_READ"
_KEPT = ("name", "stack", "secret_name", "aws_profile", "aws_region", "aws_endpoint_url")
_KINDS = ("BadInputError", "CredentialsError", "NotFoundError", "UnreachableError")
_END_S = 1.0  # for the process to restore the terminal, if it was asking for a code


class SecretProcess:
    """A process that reads the secret of a target; it starts at once.

    Args:
        target: The target, with all settings resolved.
        interactive: True if there is a terminal, so that credentials may wait for the operator.
    """

    def __init__(self, target: Target, *, interactive: bool):
        # Whoever has the other end open is alive.
        kept, self._alive = os.pipe()
        request = {
            "target": {name: getattr(target, name) for name in _KEPT},
            "interactive": interactive,
            "alive": kept,
        }
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(  # noqa: S603 - ours
                [sys.executable, "-P", "-m", __name__],
                env=os.environ | {_VARIABLE: json.dumps(request)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # it has nothing to say but its answer
                pass_fds=[kept],
            )
        except OSError:
            self._process = None
        finally:
            os.close(kept)

    def read(self) -> str | None:
        """Return the secret's text, or None if the process ended without an answer.

        Raises:
            AspenError: It cannot be read; the message names the reason.
        """
        if self._process is None:
            return None
        try:
            answer, _ = self._process.communicate()
        finally:
            self.close()
        try:
            found = json.loads(answer)
        except ValueError:
            return None
        if (kind := found.get("kind")) is not None:
            error: AspenError = getattr(errors, kind)(found["message"], hint=found["hint"])
            raise error
        return str(found["text"])

    def close(self) -> None:
        """End the process if it is still running."""
        process, self._process = self._process, None
        if process is None:
            return
        os.close(self._alive)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _answer(target: Target, *, interactive: bool) -> dict[str, str | None]:
    """Return the secret's text, or the error as its class, message, and hint."""
    from aspencli.deployments.aws import Aws

    try:
        return {"text": Aws(target, interactive=interactive).secret_text()}
    except AspenError as error:
        kind = type(error).__name__
        if kind not in _KINDS:
            raise
        return {"kind": kind, "message": error.message, "hint": error.hint}


def _end_with(parent: int) -> None:
    """End this process as soon as the one that started it has ended, or has no use for it."""
    os.read(parent, 1)
    os.kill(os.getpid(), signal.SIGINT)  # a question for a code then restores the terminal first


def main() -> None:
    """Read the secret that the environment names, and write it to standard output."""
    request: dict[str, Any] = json.loads(os.environ.pop(_VARIABLE))
    threading.Thread(target=_end_with, args=(request["alive"],), daemon=True).start()
    target = Target(safety=Safety.PRODUCTION, **request["target"])
    found = _answer(target, interactive=request["interactive"])
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
