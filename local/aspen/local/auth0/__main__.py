"""The identity provider on this machine."""

from __future__ import annotations

import sys

from aspen.local.auth0.app import main

if __name__ == "__main__":
    sys.exit(main())
