"""Waiting for an approval, on a clock that the test controls."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from aspencli.auth.session import Clock, DeviceCode, NotYet, StoredSignIn, wait_for_approval
from aspencli.errors import CredentialsError

DONE = StoredSignIn("token", None, "auth0|x", 0, 0)
PENDING = NotYet("authorization_pending")
SLOW_DOWN = NotYet("slow_down")
NO_ANSWER = NotYet("", "timed out waiting for a response", passing=True)


@dataclass
class Answers:
    """A provider with a queue of answers, the last one repeated; it records when it was asked."""

    answers: list[StoredSignIn | NotYet]
    time: float = 0
    asked: list[float] = field(default_factory=list)
    told: list[int] = field(default_factory=list)

    def poll(self, code: DeviceCode) -> StoredSignIn | NotYet:
        self.asked.append(self.time)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def refusal(self, error: str, description: str) -> CredentialsError:
        return CredentialsError(f"refused: {error}: {description}")

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    @property
    def pauses(self) -> list[float]:
        before = [0.0, *self.asked]
        return [now - then for then, now in zip(before, self.asked, strict=False)]

    def wait(self, *, interval: float = 5, seconds: float = 900) -> StoredSignIn:
        code = DeviceCode("secret", "AB-CD", "https://x", None, seconds, interval)
        clock = Clock(lambda: self.time, self.sleep)
        return wait_for_approval(self, code, self.told.append, clock)


def test_provider_is_polled_at_interval_until_approval() -> None:
    provider = Answers([PENDING, PENDING, DONE])
    assert provider.wait(interval=7) is DONE
    assert provider.pauses == [7, 7, 7]


def test_elapsed_time_is_reported_each_second() -> None:
    provider = Answers([PENDING, DONE])
    provider.wait(interval=3)
    assert provider.told == [1, 2, 3, 4, 5, 6]


def test_slow_down_adds_five_seconds_permanently() -> None:
    provider = Answers([SLOW_DOWN, PENDING, SLOW_DOWN, PENDING, DONE])
    provider.wait()
    assert provider.pauses == [5, 10, 10, 15, 15]


def test_polling_respects_retry_after_of_provider() -> None:
    provider = Answers([NotYet("status 429", passing=True, wait=30), PENDING, DONE])
    provider.wait()
    assert provider.pauses == [5, 30, 5]


def test_polling_backs_off_on_failures_and_recovers() -> None:
    provider = Answers([*[NO_ANSWER] * 5, PENDING, DONE])
    provider.wait()
    assert provider.pauses == [5, 10, 20, 40, 60, 60, 5]


def test_wait_ends_when_device_code_expires() -> None:
    provider = Answers([PENDING])
    with pytest.raises(CredentialsError, match="The sign-in was not approved within 2 minutes"):
        provider.wait(seconds=120, interval=50)
    assert provider.asked == [50, 100, 120]


def test_wait_with_persistent_failures_ends_at_code_expiry() -> None:
    with pytest.raises(CredentialsError, match="expired"):
        Answers([NO_ANSWER]).wait(seconds=600)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (NotYet("access_denied", "User did not"), "was denied on the other device: User did not"),
        (NotYet("access_denied"), "was denied on the other device\\.$"),
        (NotYet("expired_token"), "The code expired before the sign-in was approved"),
        (NotYet("invalid_grant"), "The code expired before the sign-in was approved"),
        (NotYet("unauthorized_client", "no"), "refused: unauthorized_client: no"),
    ],
)
def test_denied_or_rejected_request_ends_wait_immediately(answer: NotYet, words: str) -> None:
    provider = Answers([PENDING, answer])
    with pytest.raises(CredentialsError, match=words):
        provider.wait()
    assert len(provider.asked) == 2
