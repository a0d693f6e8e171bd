"""Onboarding: several people at a time, each of them whole or not at all.

A person's steps at the provider are taken while a database transaction holds the lock on the
person, has written the user, and waits. It is committed once everything else exists, so that a
user who is complete in the database is complete. If a step fails, what this run created for the
person is reverted, the newest first, unless someone has used it since.

If the process is killed, whatever exists stays. The next run finds it and adds the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy.exc import InterfaceError, OperationalError

from aspen.database.engine import Database
from aspen.identity.management import Management
from aspencli.changes.step_log import StepLog
from aspencli.errors import CredentialsError, UnreachableError
from aspencli.identity.people import DATABASE_STEPS, PersonPlan, Step
from aspencli.identity.placement import Carried, Means, PersonResult, Placement
from aspencli.identity.reading import OnboardingPlan
from aspencli.remote.identity import IdentityProvider

_FATAL = (UnreachableError, CredentialsError, OperationalError, InterfaceError)
"""Errors that everyone would meet, so that no further person is begun."""
_AT_ONCE = 6
"""The number of people in progress, each with a transaction; more would not be faster."""


@dataclass(frozen=True)
class OnboardingProgress:
    """The progress of a run: the number of finished people, and an estimate of the seconds left."""

    done: int
    seconds: float | None


class OnboardingRun:
    """One run that carries out a plan.

    Args:
        database: The database, which may be written.
        provider: The identity provider.
        plan: The plan.
        inviter: The name in invitations.
        log: The log of steps.
        tell: Called with the progress after each person.

    Attributes:
        results: The results so far, in the order in which people were finished.
    """

    def __init__(
        self,
        database: Database,
        provider: IdentityProvider,
        plan: OnboardingPlan,
        *,
        inviter: str,
        log: StepLog,
        tell: Callable[[OnboardingProgress], None],
    ):
        self.results: list[PersonResult] = []
        self._database, self._provider, self._plan = database, provider, plan
        self._inviter, self._log, self._tell = inviter, log, tell
        self._stopped = ""  # why no further person is begun
        self._requests = sum(_requests_for(one.steps) for one in plan.people)

    def run(self) -> None:
        """Carry out the plan; the results say what became of each person.

        An interrupt lets the people in progress finish; a second one does not.

        Raises:
            KeyboardInterrupt: The run was interrupted.
        """
        self._provider.run(self._work)

    async def _work(self, management: Management) -> None:
        means = self._means(management)
        waiting = iter(_by_person(self._plan.people))

        async def worker() -> None:
            for plans in waiting:
                await self._person(means, plans)

        workers = [asyncio.create_task(worker()) for _ in range(_AT_ONCE)]
        try:
            await asyncio.wait(workers)
        except asyncio.CancelledError:
            self._stop("the run was interrupted")
            await asyncio.wait(workers)
            raise
        finally:
            if pace := management.pace:
                self._log.note(requests=pace.sent, refused=pace.refusals)
        for one in workers:
            one.result()  # raises an unexpected error

    def _means(self, management: Management) -> Means:
        return Means(
            self._database,
            management,
            self._provider.explained,
            self._plan.role_ids,
            self._inviter,
            self._log,
        )

    async def _person(self, means: Means, plans: Sequence[PersonPlan]) -> None:
        carried = Carried()
        for plan in plans:
            result = await self._result(means, plan, carried)
            self._requests -= _requests_for(plan.steps)
            self.results.append(result)
            pace = means.management.pace
            seconds = pace.seconds_for(self._requests) if pace else None
            self._tell(OnboardingProgress(len(self.results), seconds))

    async def _result(self, means: Means, plan: PersonPlan, carried: Carried) -> PersonResult:
        if not plan.steps:
            account = plan.account.id if plan.account else None
            user = plan.user.id if plan.user else None
            return PersonResult(plan, "unchanged", account, user)
        if carried.failed or self._stopped:
            why = "another group of the same person failed" if carried.failed else self._stopped
            return PersonResult(plan, "skipped", reason=f"not started: {why}")
        result = await Placement(means, plan, carried).carry_out()
        if isinstance(result.error, _FATAL):
            self._stop(result.reason)
        return result

    def _stop(self, why: str) -> None:
        self._stopped = self._stopped or why


def _by_person(plans: Iterable[PersonPlan]) -> list[list[PersonPlan]]:
    def email(plan: PersonPlan) -> str:
        return plan.wanted.email

    return [list(some) for _, some in groupby(sorted(plans, key=email), key=email)]


def _requests_for(steps: Iterable[Step]) -> int:
    return sum(step not in DATABASE_STEPS for step in steps)
