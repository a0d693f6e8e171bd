"""The requests of ``python -m tests.contract.requests``, and the guide that they refer to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.conftest import Api
from tests.contract.asking import facts_of, play
from tests.contract.tables import TABLES

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "service-differences.md"


def test_every_answer_is_what_the_live_service_gives_or_the_guide_tells(whole: Api) -> None:
    facts = facts_of(whole)
    answered = [answer for asks in TABLES.values() for answer in play(whole, facts, asks)]
    assert len(answered) >= 150
    assert not [str(answer) for answer in answered if not answer.fine]


@pytest.mark.parametrize("name", TABLES)
def test_where_an_answer_differs_the_guide_says_so(name: str) -> None:
    guide = GUIDE.read_text()
    for ask in TABLES[name]:
        assert ask.differs in guide, f"{ask.method} {ask.path}: {ask.differs}"
