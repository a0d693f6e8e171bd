"""Commands on a target with a reachable database and a reachable API."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx
import pexpect

from tests import zygote
from tests.api.conftest import CLIENT_ID, Api
from tests.cli.commands.ending import Ended
from tests.remote.naughty import Reply, Seen, reply, reset


class Relay:
    """A route that passes requests on to a service, and loses some of the answers.

    Args:
        service: The address of the service.
        method: The method of the requests to lose.
        delivered: For each such request in turn, True if the service receives it; later requests
            and their answers pass through unchanged.
    """

    def __init__(self, service: str, method: str, delivered: Sequence[bool]):
        self._service = service
        self._method = method
        self._left = list(delivered)

    def __call__(self, seen: Seen) -> Reply:
        lost = seen.method == self._method and bool(self._left)
        if lost and not self._left.pop(0):
            return reset
        headers = {
            name: value
            for name, value in seen.headers.items()
            if name in {"authorization", "content-type", "accept"}
        }
        answer = httpx.request(
            seen.method,
            self._service + seen.target,
            headers=headers,
            content=seen.body,
            timeout=60,
            trust_env=False,
        )
        kind = answer.headers.get("content-type", "")
        return reset if lost else reply(answer.status_code, answer.content, kind=kind)


@dataclass
class ApiLab:
    """A service with its database, and a runner for commands as any user.

    ``lab("samples", "list", who="viewer")`` runs in this process, `run` in a separate one.

    Attributes:
        service: The running service.
    """

    service: Api
    _call: Callable[[Mapping[str, str], tuple[str, ...], str | None], Ended]

    def __call__(
        self,
        *arguments: str,
        who: str = "member",
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> Ended:
        return self._call({**self.environment(who), **(env or {})}, arguments, stdin)

    def run(
        self,
        *arguments: str,
        who: str = "member",
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> Ended:
        """Run the real command in a separate process."""
        done = zygote.run_text(
            arguments,
            env={**os.environ, **self.environment(who), **(env or {})},
            stdin=stdin,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, who: str = "member") -> subprocess.Popen[str]:
        """Start the real command."""
        return zygote.start(
            arguments,
            env={**os.environ, **self.environment(who)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def interrupt(self, process: subprocess.Popen[str], words: str, count: int = 1) -> Ended:
        """Press Ctrl-C once the given words have appeared the given number of times."""
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            count -= words in line
            if not count:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        return Ended(process.returncode, out, "".join(said) + err)

    def on_terminal(self, *arguments: str, who: str = "member", answers: Sequence[str] = ()) -> str:
        """Run a command on a terminal, answer its questions, and return what it shows."""
        child = zygote.at_terminal(
            arguments,
            env={**os.environ, **self.environment(who), "TERM": "dumb"},
            encoding="utf-8",
            timeout=60,
            dimensions=(50, 200),
        )
        seen = ""
        for answer in answers:
            child.expect([r"\[y/N\]", r"Type \S+ to .*:"])
            seen += child.before + child.after
            child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        return seen + str(child.before)

    @staticmethod
    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "aspencli", *arguments]

    def environment(self, who: str) -> dict[str, str]:
        """Return variables that make ``local`` the service and its database, with a sign-in.

        If the service manages an identity provider, commands may, too.
        """
        management = self.service.settings.management
        managed = {
            "AUTH0_MANAGEMENT_DOMAIN": management.url,
            "AUTH0_MANAGEMENT_CLIENT_ID": management.client_id,
            "AUTH0_MANAGEMENT_CLIENT_SECRET": management.secret,
        }
        return {
            **(managed if management.are_complete else {}),
            "ASPEN_DATABASE_URL_LOCAL": self.service.database.url.render_as_string(
                hide_password=False
            ),
            "ASPEN_API": self.service.url,
            "ASPEN_AUTH_URL_LOCAL": self.service.provider.url,
            "ASPEN_AUTH_CLIENT_ID_LOCAL": CLIENT_ID,
            "ASPEN_TOKEN": self.service.token(who),
        }
