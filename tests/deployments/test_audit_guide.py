"""The guide to the audit trail: its commands run, in the order in which it shows them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.deployments.rig import Deployment

_GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "audit.md").read_text()
_COMMANDS = [
    line.partition(" # ")[0].strip()
    for line in _GUIDE.splitlines()
    if line.startswith("    aspencli ")
]
# The exit code where it is not 0.
_CODES = {"aspencli --env staging target check": 5}  # there is no API here


def test_commands_of_the_audit_guide_work(deployment: Deployment) -> None:
    assert len(_COMMANDS) == 10
    run = "RUN"
    for command in _COMMANDS:
        done = deployment.run(*shlex.split(command.replace("RUN", run))[1:], input="")
        assert done.code == _CODES.get(command, 0), (command, done.err)
        if "-o json" in command:
            run = json.loads(done.out)[0]["run"]
    everyone = ("--env", "staging", "history", "list", "--everyone", "-o", "json")
    rows = json.loads(deployment.run(*everyone).out)
    assert [(row["command"], row["reason"]) for row in rows] == [
        ("db interact", "ticket 42"),
        ("db psql", "ticket 42: close a group"),
        ("users create", None),
    ]


def test_guide_names_the_keys_and_the_setting_of_the_program() -> None:
    from aspencli.cli.changes.audit import FOLDER
    from aspencli.config import NO_BUCKET, TARGET_KEYS

    assert f"`{FOLDER}/`" in _GUIDE
    assert f'`audit_bucket = "{NO_BUCKET}"`' in _GUIDE
    assert set(re.findall(r"^    (\w+) = ", _GUIDE, re.MULTILINE)) <= set(TARGET_KEYS)
