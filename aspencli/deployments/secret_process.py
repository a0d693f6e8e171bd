"""A process that reads a deployment's secret while this one loads what it needs.

boto3 and SQLAlchemy take 0.2 s of CPU time each, nearly all of it for imports, which threads of one
process cannot do at the same time. The secret comes back through a pipe, and is in no file or
argument. Until it is asked for the secret, the process only loads boto3, so it can be started
before the target is known.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.session import Session

    from aspencli.config import Target

_KEPT = ("name", "stack", "secret_name", "aws_profile", "aws_region", "aws_endpoint_url")
_KINDS = ("BadInputError", "CredentialsError", "NotFoundError", "UnreachableError")
_END_S = 1.0  # for the process to restore the terminal, if it was asking for a code
_SERVICE = "secretsmanager"
_NO_KEY = {"aws_access_key_id": "-", "aws_secret_access_key": "-"}

_early: list[SecretProcess] = []


class SecretProcess:
    """A process that can read a secret; it starts at once."""

    def __init__(self) -> None:
        asked, self._asks = os.pipe()  # the process ends when the other end is closed
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(  # noqa: S603 - ours
                [sys.executable, "-P", "-m", __name__, str(asked)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # it has nothing to say but its answer
                pass_fds=[asked],
            )
        except OSError:
            self._process = None
        finally:
            os.close(asked)

    def ask(self, target: Target, *, interactive: bool) -> None:
        """Begin to read the secret of a target.

        Args:
            target: The target, with all settings resolved.
            interactive: True if there is a terminal, so that credentials may wait for the operator.
        """
        values = {name: getattr(target, name) for name in _KEPT}
        request = json.dumps({"target": values, "interactive": interactive})
        with suppress(BrokenPipeError):  # it has ended, and `read` says so
            os.write(self._asks, f"{request}\n".encode())

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
            from aspencli import errors

            error: errors.AspenError = getattr(errors, kind)(found["message"], hint=found["hint"])
            raise error
        return str(found["text"])

    def close(self) -> None:
        """End the process if it is still running."""
        process, self._process = self._process, None
        if process is None:
            return
        os.close(self._asks)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def start_early() -> None:
    """Start the process now, for `secret_process`; if nothing asks it, it ends with this one."""
    _early.append(SecretProcess())


def secret_process() -> SecretProcess:
    """Return the process that was started early, or a new one."""
    return _early.pop() if _early else SecretProcess()


def _main(asked: int) -> None:
    gc.disable()  # what is imported lives until the end
    session = _loaded()
    with open(asked, "rb", closefd=False) as requests:
        line = requests.readline()
    if not line:
        return
    threading.Thread(target=_end_with, args=(asked,), daemon=True).start()
    request = json.loads(line)
    from aspencli.config import Safety, Target
    from aspencli.deployments.aws import Aws
    from aspencli.errors import AspenError

    target = Target(safety=Safety.PRODUCTION, **request["target"])
    answer: dict[str, str | None]
    try:
        aws = Aws(target, interactive=request["interactive"], core=session)
        answer = {"text": aws.secret_text()}
    except AspenError as error:
        kind = type(error).__name__
        if kind not in _KINDS:
            raise
        answer = {"kind": kind, "message": error.message, "hint": error.hint}
    sys.stdout.write(json.dumps(answer))


def _loaded() -> Session:
    """Return a session of botocore that has loaded what a client of the service needs."""
    import boto3  # noqa: F401 - takes most of the time
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    first, session = Session(), Session()
    session.register_component("data_loader", first.get_component("data_loader"))
    with suppress(BotoCoreError):  # such as a config file that cannot be parsed; explained later
        first.create_client(_SERVICE, "us-west-2", **_NO_KEY)
    return session


def _end_with(parent: int) -> None:
    """End this process as soon as the one that started it has ended, or has no use for it."""
    os.read(parent, 1)
    os.kill(os.getpid(), signal.SIGINT)  # a question for a code then restores the terminal first


if __name__ == "__main__":
    _main(int(sys.argv[1]))
