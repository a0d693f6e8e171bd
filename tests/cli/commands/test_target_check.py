"""``target check`` with API addresses that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from tests.conftest import CliRunner


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://user:s3cr3t-horse@127.0.0.1:1", "contains a user name or password"),
        ("http://127.0.0.1:3000/\x01", "Invalid URL for the local API"),
    ],
)
def test_target_check_reports_unusable_api_address_without_its_password(
    run_cli: CliRunner, seeded: Database, address: str, message: str
) -> None:
    done = run_cli("target", "check", database=seeded, env={"ASPEN_API": address})
    assert done.code == 2, done.err
    assert message in done.out
    assert "s3cr3t" not in done.out + done.err
