"""Jobs of a test: their folders, the addresses that their steps use, and stand-ins for programs."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from aspen.database.engine import Database
from aspen.local.aws.content import DB_BUCKET, REGION
from aspen.workflows.steps import PARAMETERS_NAME, REASON_NAME, StepError, Workspace
from aspen.workflows.surroundings import Surroundings
from tests import zygote
from tests.local.test_aws import StandIn

SHARED = Path(os.environ.get("ASPEN_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
"""The folder of real records, which is not part of the repository."""
needs_shared_data = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the folder of real records is missing"
)


def surroundings_of(database: Database, aws: StandIn | None = None) -> Surroundings:
    address = database.url.render_as_string(hide_password=False)
    return Surroundings(address, DB_BUCKET, REGION, aws.address if aws else "http://127.0.0.1:9")


@dataclass
class Job:
    """A job, whose steps run in this process or as processes of their own."""

    folder: Path
    surroundings: Surroundings

    def run(self, *steps: str) -> None:
        """Run steps in this process, each from the beginning."""
        for step in steps:
            workspace = Workspace(self.folder, step, self.surroundings)
            shutil.rmtree(workspace.out, ignore_errors=True)
            workspace.out.mkdir()
            module = import_module(f"aspen.workflows.steps.{step.replace('-', '_')}")
            module.run(workspace)

    def fails(self, *steps: str) -> str:
        """Run steps, the last of which fails; return its reason."""
        self.run(*steps[:-1])
        with pytest.raises(StepError) as caught:
            self.run(steps[-1])
        return str(caught.value)

    def start(self, step: str, **environment: str) -> subprocess.Popen[str]:
        """Start a step as a process."""
        shutil.rmtree(self.folder / step, ignore_errors=True)
        return zygote.start(
            [step, str(self.folder)],
            env={**os.environ, **self.surroundings.to_environment(), **environment},
            module="aspen.workflows.steps",
            stderr=subprocess.PIPE,
            text=True,
        )

    def reason(self, step: str) -> str:
        return (self.folder / step / REASON_NAME).read_text()


def seconds_of_children() -> float:
    """Return the processor time of ended child processes; a busy machine does not change it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def new_job(folder: Path, surroundings: Surroundings, **parameters: Any) -> Job:
    folder.mkdir(parents=True)
    (folder / PARAMETERS_NAME).write_text(json.dumps(parameters))
    return Job(folder, surroundings)


def install(folder: Path, name: str, source: Path, **settings: Any) -> Path:
    """Install a stand-in for a program: a script that reads its settings from a file."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!{sys.executable} -IS\n{source.read_text()}")
    program.chmod(0o755)
    configure(program, settings)
    return program


def configure(program: Path, settings: Mapping[str, Any]) -> None:
    """Replace the settings of a stand-in."""
    program.with_suffix(".json").write_text(json.dumps(settings))
