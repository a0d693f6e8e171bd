"""Starts the console by itself, for tests and measurements: ``driver.py ADDRESS [OPTIONS]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli.cli.console.run import ConsoleRequest, run
from aspencli.config import Safety

if TYPE_CHECKING:
    from aspen.database.engine import Database


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("-c", dest="code")
    parser.add_argument("--script", type=Path)
    parser.add_argument("--safety", default="local")
    parser.add_argument("--label", default="local")
    parser.add_argument("--answer", default="yes", help="what the operator answers %%write")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--lazy", action="store_true", help="do not connect at the start")
    options, arguments = parser.parse_known_args()

    def open_database() -> Database:
        from aspen.database.engine import Database

        return Database(options.address, application_name="console-test", writable=options.write)

    request = ConsoleRequest(
        open_database=open_database,
        address=options.address,
        target_label=options.label,
        safety=Safety(options.safety),
        confirm_write=lambda: options.answer == "yes",
        writing=options.write,
        code=options.code,
        script=options.script,
        arguments=arguments,
        profile=options.profile,
        connect=not options.lazy,
        debug=options.debug,
    )
    try:
        return run(request)
    except Exception as error:  # noqa: BLE001 - as the command line does
        from aspencli.cli.failures import explain

        failure = explain(error)
        request.messages.error(failure.message, hint=failure.hint, details=failure.details)
        return failure.code


if __name__ == "__main__":
    sys.exit(main())
