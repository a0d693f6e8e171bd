"""``python -m aspen.workflows.steps STEP FOLDER``: run one step of the job in a folder."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from aspen.workflows.steps import REASON_NAME, REFUSED, StepError, Workspace
from aspen.workflows.surroundings import Surroundings


def main() -> int:
    """Run the step; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m aspen.workflows.steps", description=__doc__)
    parser.add_argument("step", help="name of the step, such as tree-export")
    parser.add_argument("folder", type=Path, help="folder of the job")
    given = parser.parse_args()
    workspace = Workspace(given.folder, given.step, Surroundings.from_environment())
    workspace.out.mkdir(exist_ok=True)
    module = import_module(f"aspen.workflows.steps.{given.step.replace('-', '_')}")
    try:
        module.run(workspace)
    except StepError as error:
        (workspace.out / REASON_NAME).write_text(str(error))
        print(error, file=sys.stderr)  # noqa: T201 - standard error is the step's log
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
