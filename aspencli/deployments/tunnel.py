"""Ways to a database server that this machine cannot reach itself: ssh, SSM, or a command.

**ssh.** One listener on 127.0.0.1, on a free port. For each connection to it, ``ssh -W server:5432
bastion`` runs, whose standard input and output *are* the accepted socket. It is the operator's own
ssh, with its configuration, agent, certificates, and control master. No port can be taken in
between, nothing has to be copied, and when either side ends, so does ssh: also after ``kill -9``,
when the kernel closes our sockets.

**SSM and commands.** A program that listens on a local port itself. A watchdog stops it when this
process is gone, however it ended.

A process that is replaced by another program (psql) hands its tunnel over before; see
`Tunnel.hand_over`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, NamedTuple, NoReturn

from aspencli.errors import AspenError, BadInputError, CredentialsError, UnreachableError
from aspencli.text import visible

LOOPBACK = "127.0.0.1"
CONNECT_S = 8
"""The time that ssh may take to reach the bastion, in seconds."""
_ALIVE_S, _ALIVE_COUNT = 15, 3
_SETTLE_S = 1.0  # for ssh to end and explain itself after it closed the connection
_REMIND_S = 3.0  # after which ssh seems to wait for the operator
_START_S = 10.0  # for a program to begin to listen
# Signals from the terminal reach the whole foreground group. They are for us, not for ssh, which
# keeps ignoring what it was started with.
_IGNORING = 'trap "" INT QUIT TSTP; exec "$@"'
_WATCHDOG = (
    'trap "" INT QUIT TSTP HUP; read -r _; kill "$1" 2>/dev/null; sleep 1; kill -9 "$1" 2>/dev/null'
)
_OPENED = re.compile(rb"Port (\d+) opened")
_PLUGIN = "session-manager-plugin"
_PLUGIN_VERSION = (1, 2, 497)  # the first that reads the session's token from the environment
_RESPONSE = "AWS_SSM_START_SESSION_RESPONSE"


class Tunnel(ABC):
    """A local port that leads to a server; opened on creation, and closed with `close`.

    Attributes:
        host: The address to connect to.
        port: The port to connect to.
        through: A description of the way: ``bastion bastion.example.org``.
    """

    host = LOOPBACK
    port: int
    through: str

    @abstractmethod
    def failure(self) -> AspenError | None:
        """Return why a connection through it failed, or None if the way was not the reason."""

    @abstractmethod
    def hand_over(self) -> None:
        """Keep it open for the program that is about to replace this process, and its children."""

    @abstractmethod
    def close(self) -> None:
        """Close it; connections through it end on their own when either side closes."""


class SshTunnel(Tunnel):
    """A tunnel through a bastion, with the operator's own ssh.

    Args:
        bastion: The host to go through, as ssh knows it.
        host: The server's name, resolved by the bastion.
        port: The server's port.
        notify: Shows the operator what ssh waits for; None if there is no terminal, so that ssh
            must not ask for anything, such as a passphrase.

    Raises:
        UnreachableError: ssh is not installed.
    """

    def __init__(self, bastion: str, host: str, port: int, *, notify: Callable[[str], None] | None):
        ssh = shutil.which("ssh")
        if ssh is None:
            raise UnreachableError(
                "ssh was not found on PATH; it is needed to reach the database through the bastion "
                f"{bastion}.",
                hint="Install the OpenSSH client (openssh-client).",
            )
        self.bastion, self.through = bastion, f"bastion {bastion}"
        self._server = f"{host}:{port}"
        place = f"[{host}]:{port}" if ":" in host else self._server
        options = [
            *(f"ConnectTimeout={CONNECT_S}", f"ServerAliveInterval={_ALIVE_S}"),
            *(f"ServerAliveCountMax={_ALIVE_COUNT}", "LogLevel=VERBOSE"),
        ]
        if notify is None:
            options.append("BatchMode=yes")
        named = [word for option in options for word in ("-o", option)]
        self._notify = notify
        self._may_ask = notify is not None
        self._words = [ssh, "-T", *named, "-W", place, "--", bastion]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the tunnel
        self._children: list[subprocess.Popen[bytes]] = []
        self._listener = socket.create_server((LOOPBACK, 0), backlog=16)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, name="aspencli-tunnel", daemon=True).start()

    def _serve(self) -> None:
        """Start one ssh for each connection, until the listener is closed."""
        ssh, *arguments = self._words
        master = ["-o", "ControlMaster=no"] if _is_brief_master(ssh, self.bastion) else []
        words = ["/bin/sh", "-c", _IGNORING, "sh", ssh, *master, *arguments]
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            with accepted:
                self._children = [one for one in self._children if one.poll() is None]
                # A client of a control master obeys signals from the terminal even if it is to
                # ignore them: Ctrl-C would end the connection, and the master would notice that
                # only at its next keep-alive. It has nothing to ask on the terminal.
                apart = not self._may_ask or self._has_master()
                try:
                    child = _start(
                        words, accepted.fileno(), accepted.fileno(), self._log, apart=apart
                    )
                except OSError as error:
                    self._note(f"ssh could not be started: {error.strerror}\n")
                else:
                    self._children.append(child)
                    self._remind_later(child)

    def _remind_later(self, child: subprocess.Popen[bytes]) -> None:
        """Once, if ssh does not sign in soon, say what it may be waiting for.

        It asks for a passphrase on the terminal itself, but not for the touch of a security key.
        """
        notify, self._notify = self._notify, None
        if notify is None:
            return

        def remind() -> None:
            if child.poll() is None and not self._has_signed_in():
                notify(
                    f"Waiting for ssh to sign in to the bastion {self.bastion}. If your key needs "
                    "a touch or a code, give it now."
                )

        timer = threading.Timer(_REMIND_S, remind)
        timer.daemon = True
        timer.start()

    def _has_signed_in(self) -> bool:
        # A control master has signed in before, and its clients do not.
        return "Authenticated to" in self._messages() or self._has_master()

    def _has_master(self) -> bool:
        found = subprocess.run(  # noqa: S603 - the operator's ssh
            [self._words[0], "-O", "check", "--", self.bastion],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return found.returncode == 0

    def _note(self, text: str) -> None:
        os.write(self._log.fileno(), text.encode())

    def failure(self) -> AspenError | None:
        """Return ssh's own reason, or None if it is connected."""
        deadline = time.monotonic() + _SETTLE_S
        while any(one.poll() is None for one in self._children) and time.monotonic() < deadline:
            time.sleep(0.02)
        return explain_ssh(self._messages(), self.bastion, self._server)

    def _messages(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def hand_over(self) -> None:
        """Let a child process accept the connections, which ends with the next program."""
        kept, ours = os.pipe()
        with warnings.catch_warnings():  # the child uses nothing that another thread could hold
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            self._run_helper(kept, ours)
        os.close(kept)
        os.set_inheritable(ours, True)  # closed when the last program that has it ends
        self._listener.close()

    def _run_helper(self, kept: int, ours: int) -> NoReturn:
        try:
            for one in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):  # for the program only
                signal.signal(one, signal.SIG_IGN)
            os.close(ours)
            # The output of the program must end with it, not with this process.
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            threading.Thread(target=self._serve, daemon=True).start()
            os.read(kept, 1)
        finally:
            os._exit(0)

    def close(self) -> None:
        """Close the listener."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for child in self._children:
            child.poll()


def _is_brief_master(ssh: str, bastion: str) -> bool:
    """Return True if each first connection would become a control master that ends with it.

    The next connection would then be lost if it began just as such a master ends. An existing
    master is used either way, and one that persists is started as usual.
    """
    found = subprocess.run(  # noqa: S603 - the operator's ssh
        [ssh, "-G", "--", bastion],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    settings = dict(line.split(" ", 1) for line in found.stdout.splitlines() if " " in line)
    is_master = settings.get("controlmaster", "false") not in {"false", "no"}
    return is_master and settings.get("controlpersist", "no") in {"no", "false"}


class _Meaning(NamedTuple):
    pattern: str  # of ssh's messages; its group, if any, is quoted
    kind: type[AspenError]
    message: str
    hint: str


# The most telling first.
_MEANINGS = (
    _Meaning(
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        CredentialsError,
        "The host key of the bastion {bastion} has changed, so ssh refused to connect.",
        "Ask the deployment's owner if it was replaced before you change known_hosts. "
        "aspencli never accepts a host key itself.",
    ),
    _Meaning(
        "Host key verification failed",
        CredentialsError,
        "The host key of the bastion {bastion} is not known, so ssh refused to connect.",
        "Connect once yourself, and compare the fingerprint: ssh {word} true",
    ),
    _Meaning(
        "Permission denied|Too many authentication failures",
        CredentialsError,
        "The bastion {bastion} did not accept your ssh key or certificate.",
        "Renew your certificate, or check ~/.ssh/config. Try it yourself: ssh {word} true",
    ),
    _Meaning(
        "administratively prohibited",
        CredentialsError,
        "The bastion {bastion} does not allow forwarding to {server}.",
        "Ask its administrator to permit it (AllowTcpForwarding, PermitOpen).",
    ),
    _Meaning(
        "open failed: (?:connect failed: )?(.+)",
        UnreachableError,
        "The bastion {bastion} could not reach the database server {server}: {quoted}.",
        "Check DB_address in the deployment's secret, and that the server is running.",
    ),
    _Meaning(
        "Could not resolve hostname",
        UnreachableError,
        "The name of the bastion {bastion} could not be resolved.",
        "Check your network or VPN, and bastion_host in the deployment's secret.",
    ),
    _Meaning(
        "timed out",
        UnreachableError,
        "The bastion {bastion} did not answer.",
        "Check your network or VPN. Try it yourself: ssh {word} true",
    ),
    _Meaning(
        "(Connection refused|No route to host|Network is unreachable)",
        UnreachableError,
        "The bastion {bastion} cannot be reached: {quoted}.",
        "Check your network or VPN. Try it yourself: ssh {word} true",
    ),
)
_HARMLESS = ("Transferred: ", "Bytes per second: ", "Warning: Permanently added")
_OTHERWISE = _Meaning(
    "",
    UnreachableError,
    "ssh could not connect to the bastion {bastion}: {quoted}.",
    "Try it yourself: ssh {word} true",
)


def explain_ssh(messages: str, bastion: str, server: str) -> AspenError | None:
    """Return the error that ssh's messages describe, or None if they describe none.

    Args:
        messages: All that ssh wrote to standard error, for one or more connections.
        bastion: The host that it connects to.
        server: The database server behind it.
    """
    lines = [line.strip() for line in messages.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_HARMLESS)]
    # After a successful sign-in, earlier messages no longer matter.
    signed_in = [n for n, line in enumerate(lines) if line.startswith("Authenticated to")]
    text = "\n".join(lines[signed_in[-1] + 1 :] if signed_in else lines)
    matches = ((one, re.search(one.pattern, text)) for one in _MEANINGS)
    meaning, found = next(((one, match) for one, match in matches if match), (_OTHERWISE, None))
    if not text:
        return None
    quoted = found[found.re.groups] if found else text.splitlines()[-1]
    names = {"bastion": bastion, "server": server, "word": shlex.quote(bastion)}
    names["quoted"] = visible(quoted).rstrip(".")
    return meaning.kind(meaning.message.format(**names), hint=meaning.hint.format(**names))


class ProgramTunnel(Tunnel):
    """A tunnel through a program that listens on a local port itself.

    Args:
        words: The program and its arguments.
        through: A description of the way.
        port: The port that it will listen on; None if it reports the port itself.
        environment: More variables for it, which may hold secrets.

    Raises:
        UnreachableError: It does not exist, ends early, or does not listen in time.
    """

    def __init__(
        self,
        words: Sequence[str],
        through: str,
        *,
        port: int | None,
        environment: Mapping[str, str] | None = None,
    ):
        self.through = through
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the tunnel
        self._name = words[0]
        try:
            self._child = _start(
                ["/bin/sh", "-c", _IGNORING, "sh", *words],
                *(subprocess.DEVNULL, self._log, self._log),
                environment,
            )
        except OSError as error:
            raise UnreachableError(f"Could not start {self._name}: {error.strerror}") from error
        reading, self._kept = os.pipe()
        # It stops the program when the other end of the pipe is closed, however we end.
        watch = ["/bin/sh", "-c", _WATCHDOG, "sh", str(self._child.pid)]
        self._watchdog = _start(watch, reading, subprocess.DEVNULL, subprocess.DEVNULL)
        os.close(reading)
        try:
            self.port = self._wait(port)
        except BaseException:
            self.close()
            raise

    def _wait(self, port: int | None) -> int:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                raise self._ended()
            if port is None:
                found = _OPENED.search(self._output())
                port = int(found[1]) if found else None
            elif _listens(port):
                return port
            time.sleep(0.02)
        raise UnreachableError(
            f"{self._name} did not open a port within {_START_S:.0f} s.",
            hint=self._said() or "Run it yourself to see why, or fix tunnel_command.",
        )

    def _output(self) -> bytes:
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0)

    def _said(self) -> str | None:
        lines = self._output().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), None)
        return f"Its last message: {visible(last.strip())}" if last else None

    def _ended(self) -> UnreachableError:
        return UnreachableError(
            f"{self._name} ended with exit code {self._child.returncode}; there is no way to the "
            "database.",
            hint=self._said() or "Run it yourself to see why, or fix tunnel_command.",
        )

    def failure(self) -> AspenError | None:
        """Return the program's reason if it has ended."""
        return self._ended() if self._child.poll() is not None else None

    def hand_over(self) -> None:
        """Let the next program hold the pipe that keeps the tunnel open."""
        os.set_inheritable(self._kept, True)

    def close(self) -> None:
        """Stop the program."""
        self._child.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(1)
        self._child.kill()
        self._child.wait()
        self._watchdog.kill()
        self._watchdog.wait()
        with suppress(OSError):
            os.close(self._kept)


def command_tunnel(template: str, host: str, port: int) -> ProgramTunnel:
    """Open a tunnel with a command, such as ``kubectl port-forward`` or ``cloudflared``.

    Raises:
        BadInputError: The template is invalid.
        UnreachableError: The command does not open the port.
    """
    with socket.create_server((LOOPBACK, 0)) as free:
        local_port = free.getsockname()[1]
    values = {"host": host, "port": str(port), "local_port": str(local_port)}
    try:
        words = [word.format(**values) for word in shlex.split(template)]
    except (ValueError, LookupError) as error:
        raise BadInputError(
            f"Invalid tunnel_command: {template}",
            hint="It may use {host}, {port}, and {local_port}.",
        ) from error
    if not words or shutil.which(words[0]) is None:
        raise UnreachableError(
            f"The program of tunnel_command was not found: {words[0] if words else 'it is empty'}",
            hint="Install it, or fix tunnel_command.",
        )
    return ProgramTunnel(words, f"command {words[0]}", port=local_port)


def ssm_tunnel(
    ssm_target: str,
    start: Callable[[], Mapping[str, Any]],
    *,
    region: str,
    endpoint: str,
    profile: str | None,
    parameters: Mapping[str, Any],
) -> ProgramTunnel:
    """Open a tunnel with AWS's Session Manager.

    Raises:
        UnreachableError: The plugin is not installed, too old, or does not open a port.
    """
    plugin = shutil.which(_PLUGIN)
    if plugin is None:
        raise UnreachableError(
            f"{_PLUGIN} was not found on PATH; it is needed to reach the database through "
            f"{ssm_target}.",
            hint='Install it: AWS\'s documentation, "Install the Session Manager plugin".',
        )
    version = subprocess.run(  # noqa: S603 - the program found above
        [plugin, "--version"], capture_output=True, text=True, check=False
    )
    numbers = tuple(int(part) for part in re.findall(r"\d+", version.stdout)[:3])
    if numbers < _PLUGIN_VERSION:
        wanted = ".".join(map(str, _PLUGIN_VERSION))
        raise UnreachableError(
            f"{_PLUGIN} {version.stdout.strip()} is too old: it would show the session's token to "
            f"other users of this machine.",
            hint=f"Install version {wanted} or newer.",
        )
    session = {key: value for key, value in start().items() if key != "ResponseMetadata"}
    words = [plugin, _RESPONSE, region, "StartSession", profile or "", json.dumps(parameters)]
    environment = {_RESPONSE: json.dumps(session)}
    return ProgramTunnel(
        [*words, endpoint], f"SSM target {ssm_target}", port=None, environment=environment
    )


def _start(
    words: Sequence[str],
    stdin: int,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
    environment: Mapping[str, str] | None = None,
    *,
    apart: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program; ``apart`` from the terminal, no signal from there reaches it."""
    return subprocess.Popen(  # noqa: S603 - no shell reads the operator's words
        words,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, **(environment or {})},
        start_new_session=apart,
    )


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=0.5):
        return True
    return False
