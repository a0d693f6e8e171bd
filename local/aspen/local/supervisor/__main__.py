"""The supervisor of a local deployment."""

from __future__ import annotations

import sys

from aspen.local.supervisor.daemon import main

if __name__ == "__main__":
    sys.exit(main())
