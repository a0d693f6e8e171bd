"""The size of requests, determined on servers of several kinds."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from aspencli.samples.rename_run import LARGEST, SMALLEST, Steering

ROWS = 10_000


def live(size: int) -> float:
    """Return the measured time of a request: 50 rows 0.27 s, 250 0.48 s, 500 0.8 s, 10,000 96 s."""
    return 0.25 + 0.00088 * size + 8.7e-7 * size**2


def quick(size: int) -> float:
    return 0.02 + 0.00005 * size


def steep(size: int) -> float:
    return 0.05 + 0.00001 * size**2


def total(cost: Callable[[int], float], steering: Steering, rows: int = ROWS) -> float:
    seconds = 0.0
    while rows > 0:
        size = min(steering.size, rows)
        took = cost(size)
        steering.took(size, took)
        seconds += took
        rows -= size
    return seconds


def best(cost: Callable[[int], float]) -> float:
    return min(ROWS / size * cost(size) for size in range(SMALLEST, LARGEST, 10))


@pytest.mark.parametrize("cost", [live, quick, steep])
def test_batch_size_approaches_optimum_on_any_server(cost: Callable[[int], float]) -> None:
    assert total(cost, Steering()) < 1.3 * best(cost)


def test_batched_renames_take_a_fifth_of_one_live_request() -> None:
    assert total(live, Steering()) < 0.22 * live(ROWS)


@pytest.mark.parametrize("seed", range(5))
def test_batch_size_tolerates_varying_response_times(seed: int) -> None:
    dice = random.Random(seed)
    assert total(lambda size: live(size) * dice.uniform(0.8, 1.3), Steering()) < 0.3 * live(ROWS)


@pytest.mark.parametrize("seed", range(20))
def test_batch_size_recovers_from_random_failures_and_delays(seed: int) -> None:
    dice, steering = random.Random(seed), Steering()
    rows, requests = ROWS, 0
    while rows > 0:
        requests += 1
        size, chance = min(steering.size, rows), dice.random()
        if chance < 0.3:
            steering.stumbled()
        else:
            steering.took(size, live(size) / 10 + 30 * (chance < 0.38))
            rows -= size
    assert requests < 300  # it used to be up to 1,440, nearly all of ten rows


def test_batch_size_shrinks_when_server_slows_down() -> None:
    steering = Steering()
    total(quick, steering)
    large = steering.size
    total(steep, steering, 40 * ROWS)
    assert steering.size < large / 4


def test_batch_size_limits_expected_request_time() -> None:
    steering = Steering()
    assert total(lambda size: 5 + size / 100, steering) > 0
    assert steering.size <= 800


def test_batch_size_shrinks_on_failure_and_recovers() -> None:
    steering = Steering()
    total(live, steering)
    before = steering.size
    steering.stumbled()
    assert SMALLEST <= steering.size <= before // 2
    steering.took(steering.size, 1)
    assert steering.size == before
    for _ in range(50):
        steering.stumbled()
    assert steering.size == SMALLEST
    total(live, steering, 20 * ROWS)
    assert steering.size > 100


def test_batch_size_that_always_fails_is_not_retried_endlessly() -> None:
    steering, failed, rows = Steering(), 0, 10 * ROWS
    while rows > 0:
        size = steering.size
        if size > 300:
            failed += 1
            steering.stumbled()
        else:
            steering.took(size, live(size))
            rows -= size
    assert failed < 40
