"""Failures and refusals of the live service, and the messages that operators see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from tests.api.conftest import Api, api, shared_api
from tests.cli.commands.api_lab import ApiLab, Relay
from tests.remote.conftest import Serving
from tests.remote.naughty import Reply, Seen, reply

__all__ = ["api", "shared_api"]
FAILED = reply(500, b"Internal Server Error", kind="text/plain; charset=utf-8")


@pytest.fixture
def lab(api: Api, lab_of: Callable[[Api], ApiLab]) -> ApiLab:
    return lab_of(api)


def _failing(lab: ApiLab, method: str) -> Callable[[Seen], Reply]:
    """Return a route that passes requests on, but fails for samples as the live service does."""
    relay = Relay(lab.service.url, "", [])
    return lambda seen: (
        FAILED if seen.method == method and seen.target.endswith("/samples/") else relay(seen)
    )


def _take_location(lab: ApiLab, sample: int) -> None:
    database = Database(lab.service.database.url, application_name="tests", writable=True)
    with database.engine.begin() as connection:
        statement = "UPDATE aspen.samples SET location_id = NULL WHERE id = :id"
        connection.execute(sa.text(statement), {"id": sample})
    database.dispose()


def test_failed_update_names_cause_and_sample(lab: ApiLab, serving: Serving) -> None:
    broken = serving(route=_failing(lab, "PUT")).url
    command = ("samples", "update", "7", "8", "--private", "--org", "1", "--yes")
    unknown = lab(*command, env={"ASPEN_API": broken})
    assert unknown.code == 1
    assert "no location or no genome" in unknown.err
    assert "one of the samples in the request: 7, 8" in unknown.err
    _take_location(lab, 8)
    known = lab(*command, env={"ASPEN_API": broken})
    assert known.code == 1
    assert "sample 8 (" in known.err
    assert "sample 7 (" not in known.err


def test_failed_list_names_cause_and_sample(lab: ApiLab, serving: Serving) -> None:
    broken = serving(route=_failing(lab, "GET")).url
    _take_location(lab, 8)
    command = ("samples", "list", "--org", "1", "--via", "api")
    ended = lab(*command, env={"ASPEN_API": broken})
    assert ended.code == 1
    assert "any sample that you can see has no location" in ended.err
    assert "sample 8 (" in ended.err


@pytest.mark.parametrize(
    "command",
    [
        "groups show 99 --via api",
        "groups members 99 --via api",
        "groups invites 99",
        "groups invite --group 99 a@example.org --yes",
        "samples list --org 99 --via api",
        "samples show 7 --group 99 --via api",
        "samples update 7 --public --group 99 --yes",
        "samples delete 7 --group 99 --yes",
        "samples download X --group 99",
        "samples validate-ids X --group 99",
        "samples update-public-ids --group-id 99 --via api -f MAPPING --yes",
        "samples submission-template X --repository GISAID --group 99",
        "phylo-runs list --group 99 --via api",
        "phylo-runs create X --name N --tree-type overview --group 99 --yes",
        "phylo-runs delete 7 --group 99 --yes",
        "phylo-runs update 7 --name N --group 99 --yes",
        "phylo-trees download 7 --group 99",
        "qc-mutations download X --group 99",
        "usher get-tree-versions --org 99 --via api",
        "usher get-link X --group 99",
        "auspice link 7 --group 99",
    ],
)
def test_command_on_group_without_role_exits_with_4(
    shared_api: Api, lab_of: Callable[[Api], ApiLab], command: str, tmp_path: Path
) -> None:
    mapping = tmp_path / "ids.csv"
    mapping.write_text("private_identifier,public_identifier\na,b\n")
    words = [str(mapping) if word == "MAPPING" else word for word in command.split()]
    ended = lab_of(shared_api)(*words)
    assert ended.code == 4, ended.err
    assert "99" in ended.err
    if "invite" in words:
        assert "aspencli groups invite" not in ended.err
