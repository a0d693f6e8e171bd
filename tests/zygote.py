"""Processes of the program and its servers that start without loading their modules again.

Most of the time of a command or of a server's start goes into loading Python modules. So one
process of each kind (a zygote) loads them once per test run and forks for each start. The child
is still a process with its own PID, streams, environment, directory, signals, and exit code; only
``exec`` is left out. The first start of each command and each server in a test run, and any start
that changes how Python itself starts (``PYTHON...``, the locale), uses a new interpreter, as
for an operator.

``python tests/zygote.py KIND`` is a process that forks; it exits with its last client.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import random
import runpy
import select
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pexpect
import ptyprocess  # type: ignore[import-untyped] # no type stubs

if TYPE_CHECKING:
    from aspen.local.processes import Account

PROGRAM = "aspencli"
WARNINGS = "error:the service redirected"
"""Fails a test, even inside a command, if one of our paths has a wrong slash and is redirected."""
# Python or a library reads these while starting, so a fork would not notice a change.
_AT_START = ("PYTHON", "LC_", "LANG", "COVERAGE", "LD_", "MALLOC_", "SSL_", "OPENSSL_")
# The child applies these itself.
_OBEYED = frozenset({"PYTHONPATH", "PYTHONWARNINGS", "PYTHON_KEYRING_BACKEND"})
_COLORS = frozenset({"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TERMINAL_WIDTH"})
_LARGEST = 100_000  # bytes per message
_LONGEST_COMMAND = 4096  # as shown in the process list
_STREAMS = 3
_NUMBER = struct.Struct("q")
_HELLO = b"hello"
_PATIENCE_S = 120

_SUPERVISOR, _SERVICE = "aspen.local.supervisor", "aspen.local.launch"
_SECRET = "aspencli.deployments.secret_process"
FRESH = "TESTS_START_NEW_PROCESSES"
"""Set this variable to start every part of a command in a new interpreter."""
_STEPS = "aspen.workflows.steps"

_run_folder: list[Path] = []
_detached: list[subprocess.Popen[Any]] = []
_connected: dict[str, socket.socket] = {}
_connecting = threading.Lock()


def run(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: bytes | None = None,
    timeout: float = 120,
    module: str = PROGRAM,
) -> subprocess.CompletedProcess[bytes]:
    """Run the program to its end, like ``subprocess.run``.

    Args:
        arguments: The arguments after the program's name.
        env: The whole environment.
        stdin: The content of standard input; None for nothing.
        timeout: The number of seconds after which it is killed.
        module: The module to run as the program.
    """
    given = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    streams: dict[str, Any] = {"stdin": given, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(arguments, env=env, module=module, **streams) as process:
        try:
            out, err = process.communicate(stdin, timeout)
        except BaseException:  # including the caller's timeout and Ctrl-C
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_text(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: str | None = None,
    timeout: float = 120,
    module: str = PROGRAM,
) -> subprocess.CompletedProcess[str]:
    """Run the program like `run`, with text streams and universal newlines."""
    given = None if stdin is None else stdin.encode()
    done = run(arguments, env=env, stdin=given, timeout=timeout, module=module)
    out, err = (
        io.IncrementalNewlineDecoder(None, translate=True).decode(said.decode(), final=True)
        for said in (done.stdout, done.stderr)
    )
    if module == PROGRAM:
        from tests.cli.schema_check import require_valid  # not for the process that forks

        require_valid(arguments, out)
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def start(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    module: str = PROGRAM,
    **options: Any,
) -> subprocess.Popen[Any]:
    """Start the program or one of its servers, like ``subprocess.Popen``.

    Args:
        arguments: The arguments after the program's name.
        env: The whole environment; None for the current one.
        module: The module to run as the program.
        options: Options of ``Popen``: streams, working directory, new session, and text mode.
    """
    wanted = dict(os.environ if env is None else env)
    words = _command(module, arguments)
    if _starts(module, arguments, wanted):
        return subprocess.Popen(words, env=wanted, **options)
    return _Forked(words, module, arguments, env=wanted, **options)


def spawn_detached(
    command: Sequence[str], *, account: Account, environ: Mapping[str, str], log: Path
) -> int:
    """Start a supervisor as ``aspen.local.processes.spawn_detached`` would, or call that itself.

    The forked supervisor has already loaded the services, and forks them in turn.
    """
    from aspen.local import processes  # the zygote's path lacks our packages yet

    module, arguments = list(command[3:4]), list(command[4:])
    # The supervisor gets no TLS settings, and reads none when it starts.
    settings = {name: value for name, value in os.environ.items() if name.startswith("SSL_")}
    if module != [_SUPERVISOR] or _starts(_SUPERVISOR, arguments, {**settings, **environ}):
        return processes.spawn_detached(command, account=account, environ=environ, log=log)
    with log.open("ab") as output:
        _detached.append(
            _Forked(
                list(command),
                _SUPERVISOR,
                arguments,
                env=dict(environ),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        )
    return _detached[-1].pid


def wait_for_detached() -> None:
    """Wait until everything that was started detached has ended."""
    while _detached:
        _detached.pop().wait(_PATIENCE_S)


def at_terminal(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    module: str = PROGRAM,
    **options: Any,
) -> Any:
    """Start the program on a new pseudo-terminal, like ``pexpect.spawn``.

    Args:
        arguments: The arguments after the program's name.
        env: The whole environment.
        module: The module to run as the program, or the path of a script.
        options: Options of ``pexpect.spawn``.
    """
    if _starts(module, arguments, env):
        words = _command(module, arguments)
        return pexpect.spawn(words[0], words[1:], env=dict(env), **options)
    return _AtTerminal(arguments, module, env, **options)


def _command(module: str, arguments: Sequence[str]) -> list[str]:
    named = [module] if module.endswith(".py") else ["-m", module]
    return [sys.executable, *named, *arguments]


def _starts(module: str, arguments: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return True if a new interpreter has to be started."""
    can_fork = hasattr(os, "pidfd_open")
    fits = len(str(arguments)) + len(str(env)) < _LARGEST
    return not (can_fork and fits) or _is_new(module, arguments) or _starts_otherwise(env)


def use_folder(folder: Path) -> None:
    """Use the folder of a test run, which several processes share."""
    _run_folder[:] = [folder]


class _Forked(subprocess.Popen[Any]):
    """A process forked by the zygote, which reports its end through a pipe."""

    def __init__(self, words: list[str], module: str, arguments: Sequence[str], **options: Any):
        self._module, self._arguments = module, arguments
        super().__init__(words, **options)

    def _execute_child(self, *given: Any) -> None:
        """Ask the zygote to fork; ``Popen`` calls this to start a program, with all its options."""
        folder, env, new_session = given[5], given[6], given[21]
        streams, pipes = [given[10], given[13], given[15]], given[10:16]
        place = str(folder or Path.cwd())
        request = [self._module, list(self._arguments), env, place, new_session]
        self._end, end = os.pipe()
        try:
            passed = [number if one == -1 else one for number, one in enumerate(streams)]
            message = json.dumps(request).encode()
            socket.send_fds(_zygote(_kind(self._module)), [message], [*passed, end])
        finally:
            os.close(end)
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
        self.pid = self._read_number()
        self._child_created = True

    def _internal_poll(self, *_given: Any, **_options: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, flags: int) -> tuple[int, int]:
        """Wait like ``os.waitpid`` does for a child."""
        if self.returncode is not None:
            return 0, 0
        if flags & os.WNOHANG:
            look = select.poll()
            look.register(self._end)
            if not look.poll(0):
                return 0, 0
        status = self._read_number()
        os.close(self._end)
        return self.pid, status

    def _read_number(self) -> int:
        data = os.read(self._end, _NUMBER.size)
        if not data:
            raise RuntimeError(f"the process that forks {self._module} is gone")
        return int(_NUMBER.unpack(data)[0])


class _ForkedPty(ptyprocess.PtyProcess):  # type: ignore[misc] # no type stubs
    """A terminal whose process is not a child of ours."""

    def __init__(self, process: subprocess.Popen[Any], descriptor: int):
        super().__init__(process.pid, descriptor)
        self._process = process

    def isalive(self) -> bool:
        code = self._process.wait() if self.flag_eof else self._process.poll()
        if code is None:
            return True
        self.terminated = True
        self.exitstatus: int | None = code if code >= 0 else None
        self.signalstatus: int | None = -code if code < 0 else None
        self.status = code << 8 if code >= 0 else -code
        return False

    def wait(self) -> int | None:
        self._process.wait()
        self.isalive()
        return self.exitstatus


class _AtTerminal(pexpect.spawn):  # type: ignore[misc] # no type stubs
    """A forked process that runs on a new pseudo-terminal."""

    def __init__(
        self, arguments: Sequence[str], module: str, env: Mapping[str, str], **options: Any
    ):
        self._words, self._module, self._env = arguments, module, env
        super().__init__(sys.executable, **options)

    def _spawnpty(
        self, _args: object, dimensions: tuple[int, int] = (24, 80), **_options: object
    ) -> _ForkedPty:
        ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, dimensions)
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        process = start(
            self._words, env=self._env, module=self._module, start_new_session=True, **streams
        )
        os.close(theirs)
        return _ForkedPty(process, ours)


class _ForkedPart(subprocess.Popen[Any]):
    """A process that its parent forks itself if it is a part of ours, which is already loaded.

    A part of the program is started as for an operator once the program has threads, which a fork
    does not copy, and where a test asks for that with the variable `FRESH`.
    """

    def _execute_child(self, *given: Any) -> None:
        words = list(given[0])
        module = words[3] if words[1:3] == ["-P", "-m"] else ""
        is_service = module == _SERVICE
        is_secret = module == _SECRET and threading.active_count() == 1 and FRESH not in os.environ
        if not (is_service or is_secret):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        self.pid = os.fork()
        if not self.pid:
            folder = "/" if is_service else str(Path.cwd())
            request = [module, words[4:], given[6] or dict(os.environ), folder, is_service]
            streams = [
                number if one < 0 else one  # a negative one is inherited
                for number, one in enumerate((given[10], given[13], given[15]))
            ]
            _be_part(request, streams, given[4])
        self._child_created = True
        self._close_pipe_fds(*given[10:16])  # type: ignore[attr-defined]


def _be_part(request: list[Any], streams: list[int], kept: Sequence[int]) -> NoReturn:
    """Run a part in this child, leaving its parent's event loop behind."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        asyncio._set_running_loop(None)
        subprocess.Popen = _POPEN  # type: ignore[misc]
        _run_program(*_become(request, streams, kept))
    except SystemExit as end:
        sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001 - as Python does at the end of a program
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _kind(module: str) -> str:
    return module if module in _KINDS else PROGRAM


def _environment() -> dict[str, str]:
    """Return the environment that a zygote starts with, whichever test comes first."""
    taken = _COLORS | _OBEYED
    return {name: value for name, value in os.environ.items() if name not in taken}


def _starts_otherwise(env: Mapping[str, str]) -> bool:
    """Return True if a variable that matters to Python's start differs from the zygote's."""
    names = {
        name
        for name in (*env, *os.environ)
        if (name.startswith(_AT_START) and name not in _OBEYED) or name in _COLORS
    }
    mine = _environment()
    changed = any(env.get(name) != mine.get(name) for name in names)
    measured = any(name.startswith("COVERAGE") for name in env)
    hooked = any(Path(one, "sitecustomize.py").exists() for one in _paths(env))
    return changed or measured or hooked


def _paths(env: Mapping[str, str]) -> list[str]:
    return [one for one in env.get("PYTHONPATH", "").split(os.pathsep) if one]


def _is_new(module: str, arguments: Sequence[str]) -> bool:
    """Return True for the first run of a command by any process of the test run."""
    if not _run_folder:
        return False
    command = _command_of(arguments) if module == PROGRAM else [module]
    noted = _run_folder[0] / "commands"
    noted.mkdir(exist_ok=True)
    try:
        (noted / " ".join(command)[:100]).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _command_of(arguments: Sequence[str]) -> list[str]:
    """Return the names of a command and its group, without options of the whole program."""
    from aspencli.cli.main import ENTRIES  # the zygote's path lacks our packages yet

    groups = {name for entry in ENTRIES for name in (entry.name, *entry.aliases)}
    words = [word for word in arguments if word.replace("-", "").isalpha() and word[0] != "-"]
    first = next((place for place, word in enumerate(words) if word in groups), 0)
    return words[first : first + 2]


def _zygote(kind: str) -> socket.socket:
    """Return the connection to the zygote of a kind; the first caller starts it."""
    with _connecting:
        if kind not in _connected:
            if not _run_folder:
                use_folder(Path(tempfile.mkdtemp(prefix="aspen-zygotes-")))
                atexit.register(shutil.rmtree, _run_folder[0], ignore_errors=True)
            path = _run_folder[0] / f"{kind}.socket"
            from aspen.local.processes import file_lock  # the zygote's path lacks our packages yet

            with file_lock(path.with_suffix(".lock")):
                connection = _connect(path)
                if connection is None:
                    connection = _begin(kind, path)
            _connected[kind] = connection
            atexit.register(connection.close)
        return _connected[kind]


def _connect(path: Path) -> socket.socket | None:
    """Connect to a zygote; return None if there is none or it is about to exit."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(_PATIENCE_S)
    try:
        connection.connect(str(path))
        if connection.recv(len(_HELLO)) == _HELLO:
            connection.settimeout(None)
            return connection
    except (FileNotFoundError, ConnectionError):
        pass
    connection.close()
    return None


def _begin(kind: str, path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen(64)
        # Not a child that we would have to wait for: other clients may still need it when we exit.
        os.posix_spawn(
            sys.executable,
            [sys.executable, __file__, kind, " " * _LONGEST_COMMAND],
            _environment(),
            file_actions=[(os.POSIX_SPAWN_DUP2, listening.fileno(), 0)],
        )
    connection = _connect(path)
    if connection is None:
        raise RuntimeError(f"the process that forks {kind} does not start")
    return connection


# The zygote itself


def _serve(listening: socket.socket) -> tuple[str, list[str]]:
    """Fork for each message; return in the child, with the program and its arguments."""
    clients: set[socket.socket] = set()
    running: dict[int, tuple[int, int]] = {}  # pid and pipe to report to, by pidfd
    with selectors.DefaultSelector() as selector:
        selector.register(listening, selectors.EVENT_READ)
        while True:
            for key, _events in selector.select(None if clients else _PATIENCE_S) or os._exit(0):
                one = key.fileobj
                if one is listening:
                    client = listening.accept()[0]
                    with contextlib.suppress(BrokenPipeError):
                        client.send(_HELLO)
                    clients.add(client)
                    selector.register(client, selectors.EVENT_READ)
                elif isinstance(one, socket.socket):
                    message, fds, _flags, _address = socket.recv_fds(one, _LARGEST * 2, 8)
                    if not message:
                        selector.unregister(one)
                        clients.remove(one)
                        one.close()
                        if not clients:
                            os._exit(0)
                        continue
                    pid = os.fork()
                    if not pid:
                        selector.close()
                        for open_one in (listening, *clients):
                            open_one.detach()
                        return _become(json.loads(message), fds[:_STREAMS])
                    for stream in fds[:_STREAMS]:
                        os.close(stream)
                    _say(fds[_STREAMS], pid)
                    watched = os.pidfd_open(pid)
                    running[watched] = pid, fds[_STREAMS]
                    selector.register(watched, selectors.EVENT_READ)
                else:
                    pid, end = running.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _say(end, os.waitpid(pid, 0)[1])
                    os.close(end)


def _say(descriptor: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(descriptor, _NUMBER.pack(number))


def _become(
    request: list[Any], streams: Sequence[int], kept: Sequence[int] = ()
) -> tuple[str, list[str]]:
    """Set up the child like a newly started process; return the program and its arguments."""
    module, arguments, env, folder, new_session = request
    for number, one in enumerate(streams):
        os.dup2(one, number)
    first = _STREAMS
    for one in (*sorted(kept), 1024):
        os.closerange(first, one)
        first = one + 1
    if new_session:
        os.setsid()
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path[:1] = [folder, *_paths(env)]
    sys.warnoptions[:] = [one for one in env.get("PYTHONWARNINGS", "").split(",") if one]
    warnings._processoptions(sys.warnoptions)  # type: ignore[attr-defined]
    importlib.invalidate_caches()
    time.tzset()
    random.seed()
    encoding, strictness = sys.stdout.encoding, sys.stdout.errors
    sys.stdin = sys.__stdin__ = _text(0, "r", encoding, strictness)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _text(1, "w", encoding, strictness)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _text(2, "w", encoding, "backslashreplace")  # type: ignore[misc]
    return module, arguments


def _text(number: int, mode: str, encoding: str, errors: str | None) -> io.TextIOWrapper:
    opened = open(  # noqa: SIM115 - it lives as long as the process; a number, no path
        number, mode, -1, encoding, errors, "\n", closefd=False
    )
    assert isinstance(opened, io.TextIOWrapper)
    if mode == "w":
        at_once = number == 2 or os.isatty(number) or "PYTHONUNBUFFERED" in os.environ
        opened.reconfigure(line_buffering=at_once)
    return opened


def _run_program(module: str, arguments: list[str]) -> None:
    """Run the program in the child.

    It exits like Python does, except that modules are not torn down, which would copy their memory.
    """
    _show_command(*_command(module, arguments))
    sys.argv = [module, *arguments]
    if module in {_SUPERVISOR, PROGRAM}:
        subprocess.Popen = _ForkedPart  # type: ignore[misc]
    try:
        if module.endswith(".py"):
            sys.path[0] = str(Path(module).parent)
            runpy.run_path(module, run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, int):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            with contextlib.suppress(OSError, ValueError):  # Python itself reports these
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(end.code)
        raise


def _show_command(*words: str) -> None:
    """Show a command line in the process list; the original one was made long enough for it."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[_ARGUMENTS_BEGIN]), int(fields[_ARGUMENTS_BEGIN + 1])
    shown = "\0".join(words).encode()[: end - begin - 1]
    ctypes.memset(begin, 0, end - begin)
    ctypes.memmove(begin, shown, len(shown))


def load_program() -> None:
    """Load everything that commands load, except what looks at the streams."""
    for name in ("aspencli", "aspen.database", "aspen.migrations"):
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not found.name.startswith(_NOT_LOADED) and not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    for name in _ALSO:
        importlib.import_module(name)
    app, main = (importlib.import_module(f"{PROGRAM}.cli.{name}") for name in ("app", "main"))
    for entry in main.ENTRIES:
        app.load_group(entry)
    main.command()
    _load_clients("secretsmanager", "s3", "sts", "ssm", "rds", "stepfunctions", "batch", "logs")
    if _LOOKS_AT_STREAMS in sys.modules:
        raise RuntimeError(f"{_LOOKS_AT_STREAMS} is loaded without a terminal")


def keep_models() -> None:
    """Read each of boto3's models of AWS once per process, not once per client (0.1 s)."""
    from botocore.loaders import JSONFileLoader

    load = functools.cache(JSONFileLoader().load_file)
    JSONFileLoader.load_file = lambda _self, path: load(path)


def _load_clients(*services: str) -> None:
    """Load what clients of services of AWS need."""
    keep_models()
    importlib.import_module("boto3")
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    keys = {"aws_access_key_id": "-", "aws_secret_access_key": "-"}
    with contextlib.suppress(BotoCoreError):  # such as a profile that does not exist
        for service in services:
            Session().create_client(service, "us-west-2", **keys)


def _load_server(*names: str) -> None:
    for name in names:
        importlib.import_module(name)


def _load_aws() -> None:
    _load_clients("s3")
    importlib.import_module("aspen.local.aws.server").load()


def _load_api() -> None:
    _load_server("aspen.api.main", *_UVICORN)
    _load_clients("s3")


def _load_supervisor() -> None:
    _load_aws()
    _load_server("aspen.local.logs", "aspen.local.launch", "aspen.api.main", *_UVICORN)
    _load_server("aspen.local.auth0.app", "aspen.local.aws.server", "aspen.local.auth0.app")
    _load_server(
        "aspen.api.__main__",
        "aspen.local.auth0.store",
        "aspen.local.seed.base",
        "aspen.local.postgres.server",
    )


def _load_steps() -> None:
    """Load the steps of jobs, and what those of trees need of augur."""
    package = importlib.import_module(_STEPS)
    for found in pkgutil.iter_modules(package.__path__, f"{_STEPS}."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    _load_server("aspen.database.models", "sqlalchemy.dialects.postgresql.psycopg2")
    if find_spec("augur"):
        augur = ("refine", "ancestral", "translate", "traits", "export_v2", "validate")
        _load_server("edlib", "piqtree", *(f"augur.{name}" for name in augur))


def _load_worker() -> None:
    _load_server("aspen.workflows.engine.worker", "sqlalchemy.dialects.postgresql.psycopg2", "dbos")


def _use_huge_pages() -> None:
    """Put the heap on huge pages, where Linux has them, so that a fork copies fewer page tables.

    With 150 MB loaded, this takes 5 ms off each command's 60 ms.
    """
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights, _offset, _device, _inode, *name = line.split()
        if rights == "rw-p" and name in ([], ["[heap]"]):
            first, last = (int(each, 16) // _HUGE for each in addresses.split("-"))
            for number in range(first + 1, last):
                advise(number * _HUGE, _HUGE, _COLLAPSE)  # a kernel without it refuses


_HUGE = 2 << 20
_COLLAPSE = 25  # MADV_COLLAPSE, since Linux 6.1
_ARGUMENTS_BEGIN = 45  # index in /proc/self/stat, after the process name
# IPython inspects the standard streams when its terminal is imported.
_NOT_LOADED = (
    *("aspen.migrations.env", "aspen.migrations.versions"),
    "aspencli.cli.console.shell",
)
_LOOKS_AT_STREAMS = "IPython.terminal.interactiveshell"
_ALSO = (
    *("sqlalchemy.dialects.postgresql.psycopg2", "psycopg2.extras", "alembic.command"),
    *("aspen.api.in_process", "aspen.api.main"),  # for db profile --request
    *("IPython.core.completer", "IPython.core.application", "IPython.core.shellapp"),
    *("IPython.core.interactiveshell", "prompt_toolkit.patch_stdout", "prompt_toolkit.shortcuts"),
    *("joserfc.jwt", "rich.table", "rich.progress", "xlsxwriter", "encodings.idna", "dateparser"),
    # Libraries that load half of their modules on first use, and the local deployment.
    *("httpcore", "keyring.core", "keyring.backends.fail", "filelock", "typer._click.decorators"),
    *("encodings.ascii", "encodings.cp1252", "_strptime"),
    *("aspen.local.deployment", "aspen.local.seed"),
)
_UVICORN = (
    *("uvicorn", "uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.auto"),
    *("uvicorn.protocols.websockets.auto", "anyio._backends._asyncio"),
)
_KINDS: dict[str, Callable[[], None]] = {
    PROGRAM: load_program,
    "aspen.api": _load_api,
    "aspen.local.auth0": partial(_load_server, "aspen.local.auth0.app", *_UVICORN),
    "aspen.local.aws": _load_aws,
    _SUPERVISOR: _load_supervisor,
    _STEPS: _load_steps,
    "tests.workflows.engine.run_worker": _load_worker,
}
_POPEN = subprocess.Popen

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who wait for us
    sys.path[0] = ""  # instead of tests/, whose folders would hide packages
    gc.disable()  # whatever is loaded stays
    _KINDS[sys.argv[1]]()
    gc.enable()
    gc.collect()
    gc.freeze()
    _use_huge_pages()
    _run_program(*_serve(socket.socket(fileno=0)))
