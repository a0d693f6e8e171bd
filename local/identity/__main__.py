"""The command for an identity provider: ``python -m local.identity --port 3031 --folder DIR``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from aspencli.errors import AspenError, ConflictError
from local.identity.settings import Dialect, Settings, own_address
from local.ports import HOST, is_free

_STOP_SECONDS = 2


def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped; return the exit code."""
    os.umask(0o077)
    try:
        return _serve(_settings(arguments))
    except AspenError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        if error.hint:
            print(error.hint, file=sys.stderr)  # noqa: T201 - same
        return error.exit_code


def _serve(settings: Settings) -> int:
    import uvicorn

    from local.identity.app import create_app
    from local.identity.audit import audit, log_to_stderr
    from local.identity.provider import Provider

    if not is_free(settings.port):
        raise ConflictError(
            f"port {settings.port} is taken by another program",
            hint="Name another one with --port, or stop what listens there.",
        )
    # uvicorn re-raises the signal that stops it; this makes that a normal exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log_to_stderr()
    provider = Provider(settings)
    audit("provider.started", issuer=settings.issuer, trial=settings.trial)
    try:
        with provider.database.kept_open():
            # uvicorn's access log would contain the codes in URLs.
            uvicorn.run(
                create_app(provider),
                host=HOST,
                port=settings.port,
                access_log=False,
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
    finally:
        audit("provider.stopped", issuer=settings.issuer)
    return 0


def _settings(arguments: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m local.identity",
        description="Serve the identity provider of a local deployment, on 127.0.0.1 only.",
    )
    parser.add_argument("--port", type=_port, required=True, help="where to listen")
    parser.add_argument("--folder", type=Path, required=True, help="where the state is kept")
    parser.add_argument(
        "--issuer", type=_issuer, help="the address in tokens, where it is not the port's own"
    )
    parser.add_argument(
        "--dialect",
        type=Dialect,
        choices=list(Dialect),
        default=Dialect.AUTH0,
        help="the statuses of errors: 403 for a pending device code (auth0), or 400 (rfc)",
    )
    parser.add_argument(
        "--reuse-seconds",
        type=float,
        default=0,
        metavar="N",
        help="exchange a refresh token once more for so long, for a client that lost the answer",
    )
    parser.add_argument(
        "--burst", type=_burst, default=50, metavar="N", help="Management API: requests at once"
    )
    parser.add_argument(
        "--rate", type=_rate, default=15, metavar="N", help="Management API: requests a second"
    )
    parser.add_argument("--trial", action="store_true", help="let tests make hard cases happen")
    given = parser.parse_args(arguments)
    return Settings(
        folder=given.folder.expanduser().absolute(),
        port=given.port,
        issuer=given.issuer or own_address(given.port),
        dialect=given.dialect,
        reuse_seconds=given.reuse_seconds,
        burst=given.burst,
        rate=given.rate,
        trial=given.trial,
    )


def _port(text: str) -> int:
    if not 0 < (port := int(text)) < 65_536:  # noqa: PLR2004 - the range of ports
        raise ValueError(text)
    return port


def _burst(text: str) -> int:
    if (burst := int(text)) < 1:
        raise ValueError(text)
    return burst


def _rate(text: str) -> float:
    if not 0 < (rate := float(text)) < float("inf"):
        raise ValueError(text)
    return rate


def _issuer(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ValueError(text)
    return f"{text.rstrip('/')}/"


if __name__ == "__main__":
    sys.exit(main())
