"""``python -m local.supervisor --home D --parts a,b``: started in the background by ``up``."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

from aspencli.files import open_own
from local.aws.content import made_values, new_credentials
from local.record import Process
from local.state import State
from local.supervisor.supervisor import Supervisor
from local.supervisor.timing import Timing

_LOCK_S = 1.0  # a command that checks whether we are alive holds the lock briefly
_TAKEN = 3


def main() -> int:
    """Keep the parts running until SIGTERM; refuse if another process already does."""
    parser = argparse.ArgumentParser(prog="python -m local.supervisor", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the folder of the deployment")
    parser.add_argument("--parts", required=True, help="the parts to keep, with commas")
    parser.add_argument("--timing", default="{}", help="how patient to be, as a JSON object")
    chosen = parser.parse_args()
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until a handler is installed
    state = State(chosen.home)
    descriptor = open_own(state.alive)
    if not _lock(descriptor):
        sys.stderr.write("another process keeps this deployment already\n")
        return _TAKEN
    made_values(state.part("aws"))  # before two parts could create them at once
    if "aws" in (ports := state.ports()):
        new_credentials(state.part("aws"), ports["aws"])
    timing = Timing(**json.loads(chosen.timing))
    supervisor = Supervisor(state, tuple(chosen.parts.split(",")), os.environ, timing)
    Process.of(os.getpid()).write(descriptor)  # commands wait for this
    asyncio.run(supervisor.run())
    return 0


def _lock(descriptor: int) -> bool:
    """Lock the file that shows that this process is alive, for as long as it is."""
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


if __name__ == "__main__":
    sys.exit(main())
