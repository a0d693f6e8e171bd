"""The guide "Connect to staging in five minutes": its commands run, and show what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.deployments.rig import Deployment

_GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "staging.md").read_text()
_COMMANDS = [
    line.partition("#")[0].strip()
    for line in _GUIDE.splitlines()
    if line.startswith("    aspencli ") and not line.endswith(" db tunnel")  # it does not end
]
# The exit code without a terminal, where it is not 0.
_CODES = {
    "aspencli --env staging target check": 5,  # there is no API here
    "aspencli --env staging db access ensure-readonly": 3,  # it asks for confirmation
}


@pytest.mark.parametrize("command", _COMMANDS)
def test_commands_of_staging_guide_work(deployment: Deployment, command: str) -> None:
    if "mystack" in command and not deployment.sql(
        "SELECT 1 FROM pg_database WHERE datname = 'mystack'"
    ):
        deployment.sql("CREATE DATABASE mystack OWNER boss")
    parameters = deployment.client("ssm")
    parameters.put_parameter(
        Name="/happy/rdev/stacklist", Value='["mystack"]', Type="String", Overwrite=True
    )
    deployment.sql("GRANT pg_read_all_data TO boss WITH ADMIN OPTION")
    done = deployment.run(*shlex.split(command)[1:], input="")
    assert done.code == _CODES.get(command, 0), done.err


def test_target_check_prints_the_parts_that_the_guide_shows(deployment: Deployment) -> None:
    shown = re.findall(r"^    (\S[^…\n]*?)  +(?:ok|note) ", _GUIDE, re.MULTILINE)
    done = deployment.run("--env", "staging", "target", "check", "-o", "tsv")
    parts = [line.split("\t")[0] for line in done.out.splitlines()[1:]]
    assert shown == parts


def test_keys_in_guides_are_those_of_the_config_file() -> None:
    from aspencli.config import TARGET_KEYS

    text = (Path(__file__).parents[2] / "docs" / "guides" / "targets.md").read_text()
    listed = text.partition("The keys of a target: ")[2].partition("Each of them")[0]
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(["safety", *TARGET_KEYS])
