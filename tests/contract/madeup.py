"""``python -m tests.contract.madeup``: send generated requests; exit with 1 on a wrong response."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.api.conftest import Api
from tests.contract.site import whole_service

_ROOT = Path(__file__).parents[2]
_CONFIG = Path(__file__).with_name("schemathesis.toml")
_LENIENT = "negative_data_rejection"
"""Clients of the live service rely on it to accept numbers as strings, and vice versa."""
_FAR = 4_102_444_800  # the year 2100
_PATIENCE_S = 120
_COUNT = re.compile(r"([\d,]+) generated")


@dataclass(frozen=True)
class Made:
    """The result of a run.

    Attributes:
        cases: The number of requests generated.
        failed: True if an answer was wrong.
        report: The output of schemathesis.
    """

    cases: int
    failed: bool
    report: str


def make_up(api: Api, principal: str, *options: str) -> Made:
    """Have schemathesis generate requests to every endpoint, signed in as a principal."""
    _specification(api)  # built on first request; schemathesis waits 10 s at most
    with tempfile.TemporaryDirectory(prefix="aspen-madeup-") as folder:
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                *("--config-file", str(_CONFIG), "run", f"{api.url}/v2/openapi.json"),
                *("--header", f"Authorization: Bearer {api.token(principal, exp=_FAR)}"),
                *("--checks", "all", "--exclude-checks", _LENIENT),
                *("--no-color", "--warnings", "off", "--continue-on-failure"),
                # The speed of generating requests depends on the machine, not on the service.
                *("--suppress-health-check", "too_slow", "--request-timeout", str(_PATIENCE_S)),
                *options,
            ],
            cwd=folder,  # schemathesis creates a folder where it runs
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    found = _COUNT.search(done.stdout)
    cases = int(found[1].replace(",", "")) if found else 0
    return Made(cases, done.returncode != 0, done.stdout + done.stderr)


def main() -> int:
    """Run until there are enough cases; return 1 if an answer is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract.madeup", description=__doc__)
    parser.add_argument("--cases", type=int, default=5_000, help="minimum number of requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--principal", default="sysmember", help="user who sends the requests")
    chosen = parser.parse_args()
    cases, failed, began = 0, False, time.monotonic()
    with whole_service() as api:
        operations = _operations(api)
        seed = chosen.seed
        while cases < chosen.cases and not failed:
            each = max(2, (chosen.cases - cases) // operations)
            made = make_up(api, chosen.principal, "--seed", str(seed), "--max-examples", str(each))
            cases, failed, seed = cases + made.cases, made.failed, seed + 1
            if made.failed or not made.cases:
                sys.stdout.write(made.report)
                failed = True
    sys.stdout.write(
        f"{operations} operations, {cases:,} requests, {time.monotonic() - began:.0f} s,"
        f" {'wrong answers' if failed else 'no wrong answer'}\n"
    )
    return int(failed)


def _specification(api: Api) -> Any:
    found = httpx.get(f"{api.url}/v2/openapi.json", trust_env=False, timeout=_PATIENCE_S)
    return found.raise_for_status().json()


def _operations(api: Api) -> int:
    return sum(len(operations) for operations in _specification(api)["paths"].values())


if __name__ == "__main__":
    sys.exit(main())
