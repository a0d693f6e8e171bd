"""The steps of jobs; each module has a function ``run`` and can be called on its own.

A job has a folder with ``job.json`` (its parameters) and one folder for each step. A step reads the
folders of earlier steps and writes only to its own, which is empty when it begins, so a step that
was interrupted can simply be run again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from aspen.workflows.store import Store
from aspen.workflows.surroundings import Surroundings

P = TypeVar("P", bound=BaseModel)

PARAMETERS_NAME = "job.json"
REASON_NAME = "reason.txt"
"""The file, in the step's folder, that says why the step failed."""
DONE_NAME = "done"
"""The folder, in that of the job, with an empty file for each step that has finished."""
REFUSED = 3
"""The exit code of a step that failed for a reason that it explains."""
AWAY = 75
"""The exit code of a step that lost the database or AWS; it is run again once they are back."""


class StepError(Exception):
    """The reason why a step cannot be finished, in words for people; it names what is at fault."""


@dataclass(frozen=True)
class Workspace:
    """The folder and addresses that a step uses.

    Attributes:
        folder: The folder of the job.
        step: The name of the step.
    """

    folder: Path
    step: str
    surroundings: Surroundings

    def parameters(self, model: type[P]) -> P:
        """Return the job's parameters."""
        return model.model_validate(json.loads((self.folder / PARAMETERS_NAME).read_text()))

    @property
    def out(self) -> Path:
        """Return the folder for this step's files."""
        return self.folder / self.step

    def of(self, step: str) -> Path:
        """Return the folder of an earlier step's files."""
        return self.folder / step

    @property
    def store(self) -> Store:
        """Return the bucket of the database's files."""
        return Store(self.surroundings)
