"""``python -m api``: the service, started from a checkout; `aspen.api.__main__` has the options."""

from __future__ import annotations

import sys

from aspen.api.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
