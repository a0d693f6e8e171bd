"""``python -m api --port 3000``: the service, as one process."""

from __future__ import annotations

import argparse
import sys

import uvicorn

from api.logs import set_up
from api.main import create_app
from api.settings import SettingsError

_GRACE_S = 5


def main() -> int:
    """Serve until told to stop; requests under way get a few seconds.

    Returns:
        The exit code: 2 when the service cannot start as configured. SIGTERM and Ctrl-C stop it
        orderly, and then end the process as they do.
    """
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=3000, help="the port to listen on")
    arguments = parser.parse_args()
    set_up()
    try:
        app = create_app()
    except SettingsError as error:
        sys.stderr.write(f"The service cannot start: {error}\n")
        return 2
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        ws="none",
        log_config=None,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
