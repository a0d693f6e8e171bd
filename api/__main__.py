"""``python -m api --port 3000``: the service, as one process."""

from __future__ import annotations

import argparse
import gc
import sys

import uvicorn

from api.logs import set_up
from api.main import create_app
from api.settings import SettingsError

_GRACE_S = 5
_COLLECTED_EACH = 200_000  # objects


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
    _spare_the_collector()
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        ws="none",
        log_config=None,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return 0


def _spare_the_collector() -> None:
    """Let the garbage collector pass over what stays, and come less often.

    Else a request with thousands of rows has it go through every class and function of the
    program again and again: a third of the time that a change of 10,000 samples took.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_EACH)


if __name__ == "__main__":
    sys.exit(main())
