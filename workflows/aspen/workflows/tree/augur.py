"""Run commands of Nextstrain's augur within this process: each one takes a second to start."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from aspen.workflows.steps import StepError

# One core is what a step gets; more threads only take memory.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("AUGUR_RECURSION_LIMIT", "100000")


class AugurFailedError(Exception):
    """A failure of a command, in its own words."""


def run(command: str, *arguments: object, module: str | None = None) -> None:
    """Run a command of augur with the arguments that its command line takes.

    Raises:
        AugurFailedError: The command failed.
    """
    part = import_module(f"augur.{module or command}")
    parser = argparse.ArgumentParser(prog="augur")
    part.register_parser(parser.add_subparsers())
    words = [str(argument) for argument in arguments]
    print("augur", command, *words, flush=True)  # noqa: T201 - standard output is the step's log
    try:
        with _explained(command):
            code = part.run(parser.parse_args([command, *words]))
    finally:
        sys.stdout.flush()
    if code:
        raise AugurFailedError(f"augur {command} ended with exit code {code}")


@contextmanager
def _explained(command: str) -> Iterator[None]:
    """Turn the errors that a command raises into ours."""
    from augur.errors import AugurError
    from treetime import TreeTimeError, TreeTimeUnknownError

    try:
        yield
    except SystemExit as error:
        raise AugurFailedError(f"augur {command} ended with exit code {error.code}") from error
    except (AugurError, TreeTimeError, TreeTimeUnknownError) as error:
        reason = str(error) or type(error.__cause__ or error).__name__
        raise AugurFailedError(f"augur {command}: {reason}") from error
    except RecursionError as error:
        raise StepError("The tree is too deep.") from error
    except (
        Exception
    ) as error:  # as augur's own command line does: data can surprise any of its parts
        raise AugurFailedError(f"augur {command}: {type(error).__name__}: {error}") from error
