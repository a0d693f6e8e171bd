"""``python -m local.aws --port P --folder D``: the stand-in as a process of its own.

It reads its content, its access key and S3's objects from the folder, and answers once they are
there. Changed objects are written back before a request is answered; secrets, parameters and jobs
are not.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from aspencli.errors import AspenError
from local.aws.content import read_content, read_credentials
from local.aws.objects import EARLIER, OBJECTS, ObjectFolder


def main() -> int:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m local.aws", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="where to answer on 127.0.0.1")
    parser.add_argument("--folder", type=Path, required=True, help="where the content is kept")
    chosen = parser.parse_args()
    return serve(chosen.port, chosen.folder)


def serve(port: int, folder: Path) -> int:
    """Serve the content of a folder until SIGTERM or Ctrl-C; return the exit code."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    try:
        content, credentials = read_content(folder), read_credentials(folder)
    except AspenError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    from local.aws import server  # importing moto takes a second

    objects = ObjectFolder(folder / OBJECTS)
    objects.adopt(folder / EARLIER)
    listening = server.make(port, credentials, server.fill(content, objects))
    try:
        listening.serve_forever()
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
