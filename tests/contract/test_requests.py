"""The requests of ``python -m tests.contract.requests``, and the guide that they refer to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.conftest import Api
from tests.contract.asking import facts_of, play
from tests.contract.tables import TABLES

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "service-differences.md"


def test_responses_match_live_service_or_differences_in_guide(whole: Api) -> None:
    facts = facts_of(whole)
    answered = [answer for asks in TABLES.values() for answer in play(whole, facts, asks)]
    assert len(answered) >= 150
    assert not [str(answer) for answer in answered if not answer.fine]


@pytest.mark.parametrize("name", TABLES)
def test_guide_mentions_each_expected_difference(name: str) -> None:
    guide = GUIDE.read_text()
    for ask in TABLES[name]:
        assert ask.differs in guide, f"{ask.method} {ask.path}: {ask.differs}"
