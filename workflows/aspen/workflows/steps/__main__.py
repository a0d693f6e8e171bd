"""``python -m aspen.workflows.steps STEP FOLDER``: run one step of the job in a folder."""

from __future__ import annotations

import argparse
import contextlib
import errno
import sys
import traceback
from importlib import import_module
from pathlib import Path

from aspen.workflows.jobs import steps_package
from aspen.workflows.outages import is_outage
from aspen.workflows.steps import AWAY, DONE_NAME, REASON_NAME, REFUSED, StepError, Workspace
from aspen.workflows.surroundings import Surroundings

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def main() -> int:
    """Run the step; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m aspen.workflows.steps", description=__doc__)
    parser.add_argument("step", help="name of the step, such as tree-export")
    parser.add_argument("folder", type=Path, help="folder of the job")
    given = parser.parse_args()
    workspace = Workspace(given.folder, given.step, Surroundings.from_environment())
    try:
        workspace.out.mkdir(exist_ok=True)
        import_module(f"{steps_package()}.{given.step.replace('-', '_')}").run(workspace)
        _mark_as_done(workspace)
    except StepError as error:
        return _explain(workspace, str(error), REFUSED)
    except OSError as error:
        if error.errno in _FULL:
            return _explain(
                workspace, f"No space left to write {error.filename or 'a file'}", REFUSED
            )
        return _fail(error)
    except Exception as error:  # noqa: BLE001 - the exit code depends on it
        return _fail(error)
    return 0


def _mark_as_done(workspace: Workspace) -> None:
    """Record that the step has finished, in case the worker is killed before it learns of it."""
    folder = workspace.folder / DONE_NAME
    folder.mkdir(exist_ok=True)
    (folder / workspace.step).touch()


def _explain(workspace: Workspace, reason: str, code: int) -> int:
    with contextlib.suppress(OSError):  # the disk may be full
        (workspace.out / REASON_NAME).write_text(reason)
    print(reason, file=sys.stderr)  # noqa: T201 - standard error is the step's log
    return code


def _fail(error: Exception) -> int:
    if is_outage(error):
        print(f"Lost a server: {_first_line(error)}", file=sys.stderr)  # noqa: T201 - same
        return AWAY
    traceback.print_exception(error)
    return 1


def _first_line(error: Exception) -> str:
    """Return an error without its origin, as it is expected, and the step is repeated."""
    return " ".join(traceback.format_exception_only(error)).strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
