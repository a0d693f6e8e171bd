"""A quick sample of generated requests; ``python -m tests.contract.madeup`` runs thousands."""

from __future__ import annotations

import pytest

from tests.api.conftest import Api
from tests.contract.madeup import make_up


@pytest.mark.parametrize("principal", ["sysmember", "viewer"])
def test_generated_requests_get_valid_responses(whole: Api, principal: str) -> None:
    made = make_up(whole, principal, "--phases", "examples,fuzzing", "-n", "2", "--seed", "7")
    assert not made.failed, made.report
    assert made.cases > 50
