"""The generated sides differ in exactly what was planted."""

from __future__ import annotations

from collections import Counter

import pytest

from aspencli.identity.comparison import Kind
from tests.identity.population import population, unequal


@pytest.mark.parametrize("seed", range(3))
def test_population_differs_only_in_planted_objects(seed: int) -> None:
    made = population(people=300, groups=20, each=15, seed=seed)
    counted = made.planted - made.of(Kind.INVITATION)
    assert unequal(made.provider, made.database) == counted
    assert Counter(kind for kind, _group, _person in made.planted) == dict.fromkeys(Kind, 15)
