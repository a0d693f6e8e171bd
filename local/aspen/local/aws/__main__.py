"""The AWS emulator on this machine."""

from __future__ import annotations

import sys

from aspen.local.aws.server import main

if __name__ == "__main__":
    sys.exit(main())
