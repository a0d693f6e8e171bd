"""``python -m aspen.api --port 3000``: run the service; ``--workers 4`` runs several processes.

SIGHUP replaces the workers one at a time, each once its successor is ready. Log messages go to
stderr, with secrets masked.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import multiprocessing.connection
import os
import re
import resource
import signal
import sys
import threading

import uvicorn
from fastapi import FastAPI

from aspen.api.main import create_app
from aspen.api.protocol import LimitedProtocol
from aspen.api.settings import SettingsError

_GRACE_S, _GRACE_OF_WORKERS_S = 5, 30
_HUNG_S = 120
_COLLECTED_EACH = 200_000  # objects

# A magic link to a tree, the query of a sign-in callback, and the ticket of an invitation.
_SECRET = re.compile(r"(/access/)[^/?\s]+|([?&](?:code|state|invitation|magic_link)=)[^&\s]+")


def main() -> int:
    """Serve until SIGTERM or Ctrl-C, then let requests in progress finish within a time limit.

    Returns:
        The exit code: 2 if the service cannot start as configured. SIGTERM and Ctrl-C shut it
        down gracefully, and then end the process in their usual way.
    """
    arguments = _arguments()
    set_up()
    _allow_connections()
    try:
        # Workers create their own application; for them, this one only tests the configuration.
        app = create_app()
    except SettingsError as error:
        sys.stderr.write(f"The service cannot start: {error}\n")
        return 2
    _serve(app, arguments)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m aspen.api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=3000, help="port to listen on")
    parser.add_argument("--workers", type=_positive, default=1, help="number of worker processes")
    return parser.parse_args()


def _serve(app: FastAPI, arguments: argparse.Namespace) -> None:
    several = arguments.workers > 1
    if not several:
        _spare_the_collector()
    uvicorn.run(
        f"{__package__}.__main__:create_worker" if several else app,
        factory=several,
        workers=arguments.workers,
        host=arguments.host,
        port=arguments.port,
        http=LimitedProtocol,
        loop=f"{__package__}.protocol:SharingEventLoop" if several else "auto",
        ws="none",
        log_config=None,
        timeout_graceful_shutdown=_GRACE_OF_WORKERS_S if several else _GRACE_S,
        timeout_worker_healthcheck=_HUNG_S,
    )


def create_worker() -> FastAPI:
    """Return the application of a worker process, which exits when its parent does."""
    set_up()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    app = create_app()
    _spare_the_collector()
    return app


def _end_with(sentinel: int) -> None:
    """Stop this process when its parent ends, even by SIGKILL; otherwise it would keep the port."""
    multiprocessing.connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more: {text!r}")
    return int(text)


def _allow_connections() -> None:
    """Raise the open-file limit to fit the connection limit; many systems default to 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * LimitedProtocol.limits.connections
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _spare_the_collector() -> None:
    """Exempt existing objects from garbage collection, and collect less often.

    Otherwise, a request with thousands of rows makes the collector traverse every class and
    function of the program repeatedly: a third of the time that updating 10,000 samples took.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_EACH)


def set_up() -> None:
    """Configure this process to log to stderr."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # httpx logs a line for each outgoing request of the service.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").addFilter(_mask_secrets)


def _mask_secrets(record: logging.LogRecord) -> bool:
    """Mask secrets in the path of an access log line (uvicorn's third argument)."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            masked(value) if isinstance(value, str) else value for value in record.args
        )
    return True


def masked(path: str) -> str:
    """Return a path with its secrets masked."""
    return _SECRET.sub(lambda found: f"{found[1] or found[2]}***", path)


if __name__ == "__main__":
    sys.exit(main())
