"""``python -m tests.contract.requests``: send requests for every path, role, and error.

The expected responses are those measured at the live service. Where ours differ on purpose, as
documented in ``docs/guides/service-differences.md``, they are marked ``differs``.
"""

from __future__ import annotations

import argparse
import sys

from tests.contract.asking import facts_of, play
from tests.contract.site import whole_service
from tests.contract.tables import TABLES


def main() -> int:
    """Send all requests and print each; return 1 if an answer is not as expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract.requests", description=__doc__)
    parser.add_argument("--wrong", action="store_true", help="print only wrong responses")
    chosen = parser.parse_args()
    total = differing = wrong = 0
    with whole_service() as api:
        facts = facts_of(api)
        for name, asks in TABLES.items():
            if not chosen.wrong:
                sys.stdout.write(f"\n# {name}\n")
            for answered in play(api, facts, asks):
                total += 1
                wrong += not answered.fine
                differing += answered.fine and bool(answered.ask.differs)
                if not (chosen.wrong and answered.fine):
                    sys.stdout.write(f"{answered}\n")
    sys.stdout.write(
        f"\n{total} requests: {total - differing - wrong} as the live service answers,"
        f" {differing} documented differences, {wrong} wrong\n"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
