"""Carry out a plan on both sides: the identity provider's part inside the database transaction.

The provider changes last, when nothing but the commit can fail in the database. If the provider
fails, the transaction is rolled back; if the commit fails, the provider's values are restored. What
cannot be restored is deleted after the commit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from aspen.database.engine import CURRENT, Database, commit_surely
from aspen.database.errors import OutcomeUnknownError
from aspen.database.sessions import Reader
from aspen.identity.management import Management
from aspencli.errors import AspenError, ConflictError, UnreachableError
from aspencli.identity.sides import ProviderWriter, changed_values, write_database
from aspencli.identity.steps import Step, inverses, on_side
from aspencli.remote.identity import IdentityProvider


@dataclass(frozen=True)
class Plan:
    """The steps of a change, in order."""

    steps: tuple[Step, ...]
    last: tuple[Step, ...] = ()  # at the provider, after the commit: they cannot be reverted
    skipped: tuple[tuple[Step, str], ...] = ()  # steps that are left out, and why
    notes: tuple[str, ...] = ()  # warnings to show with the plan
    left: tuple[str, ...] = ()  # what the operator still has to do at the provider
    verifies: bool = False  # a message is sent to a new e-mail address

    @property
    def all_steps(self) -> tuple[Step, ...]:
        """Return the steps before and after the commit."""
        return self.steps + self.last

    @property
    def can_be_undone(self) -> bool:
        """Return True if an undo can restore what matters."""
        return bool(self.steps) and not self.last


class Planner(ABC):
    """Makes the plan of one change, as often as needed: it depends on both sides as they are now.

    Attributes:
        provider: The identity provider, or None to change only the database.
    """

    provider: IdentityProvider | None

    def lock(self, connection: sa.Connection) -> None:  # noqa: B027 - not every plan needs it
        """Lock the rows that the plan depends on, so that other operators have to wait."""

    @abstractmethod
    def plan(self, reader: Reader) -> Plan:
        """Return the plan.

        Raises:
            ConflictError: Other data stand in the way.
            RefusedError: It would leave a group or the service without an administrator.
        """


class UnfinishedError(AspenError):
    """A change that is done on one side, or in part."""

    is_committed = False  # the database is changed, and only the last steps are missing


class LastStepsError(UnfinishedError):
    """A change whose last steps failed, after the commit."""

    is_committed = True


def apply(
    database: Database,
    planner: Planner,
    approved: Plan,
    *,
    begun: Callable[[int], None],
    before_provider: Callable[[], None],
    before_commit: Callable[[], None],
    before_request: Callable[[int], None],
    ask: str,
    finish: str,
    finish_last: str = "",
) -> None:
    """Carry out an approved plan, or nothing.

    Args:
        database: The database, which may write.
        planner: The planner that made the plan.
        approved: The plan as it was shown.
        begun: Called with the transaction's ID before anything is locked or written.
        before_provider: Called before the provider changes; saves and records the old values.
        before_commit: Called when everything but the commit is done; may raise an error.
        before_request: Called before each request to the provider with the number of steps that are
            done there; may raise an error to stop.
        ask: The command that finds out whether the transaction was committed.
        finish: The command that completes the change if it stops before the commit.
        finish_last: The command that completes it if it stops after the commit.

    Raises:
        ConflictError: Something changed since the plan was made; nothing was written.
        UnfinishedError: One side is changed, and the other is not; the message says what is left.
        AspenError: The provider refused or did not respond; nothing was written.
    """
    changed: list[Step] = []
    try:
        with database.engine.connect() as connection, connection.begin():
            transaction = int(connection.scalar(sa.text(CURRENT)) or 0)
            begun(transaction)
            planner.lock(connection)
            _refuse_changed(planner.plan(connection), approved)
            write_database(connection, on_side(approved.steps, database=True))
            provided = on_side(approved.steps, database=False)
            try:
                if provided or approved.last:
                    before_provider()
                if provided:
                    writer = partial(
                        ProviderWriter,
                        tried=changed,
                        verifies=approved.verifies,
                        before_request=before_request,
                    )
                    _write(planner, writer, provided)
                before_commit()
                commit_surely(connection, database, transaction)
            except OutcomeUnknownError:
                raise
            except BaseException as error:
                _revert(planner, changed, error, finish)
                if isinstance(error, AspenError):
                    error.message = unwritten(error.message)
                raise
    except OutcomeUnknownError as error:
        raise _unknown(approved, ask, finish) from error
    except DBAPIError as error:
        if (rejection := _rejected(error)) is None:
            raise
        raise rejection from error
    _finish(planner, approved.last, finish_last)


def _refuse_changed(plan: Plan, approved: Plan) -> None:
    if plan.all_steps == approved.all_steps:
        return
    there, wanted = set(map(repr, plan.all_steps)), set(map(repr, approved.all_steps))
    gone = [step for step in approved.all_steps if repr(step) not in there]
    new = [step for step in plan.all_steps if repr(step) not in wanted]
    raise ConflictError(
        "Another operator changed this after the plan was made; nothing was written.",
        hint="Run the command again to make a new plan.",
        details=[
            *(f"no longer to do: {step.describe()}" for step in gone),
            *(f"now to do: {step.describe()}" for step in new),
        ],
    )


def _write(
    planner: Planner, writer: Callable[[Management], ProviderWriter], steps: Sequence[Step]
) -> None:
    async def write(management: Management) -> None:
        await writer(management).write(steps)

    _provider(planner).run(write)


def _revert(planner: Planner, changed: Sequence[Step], error: BaseException, finish: str) -> None:
    """Restore the values at the provider that still are as this run wrote them.

    Raises:
        UnfinishedError: Some could not be restored.
    """
    if not changed:
        return
    left = list(changed)

    async def restore(management: Management) -> None:
        done, _other = await changed_values(management, changed)
        left[:] = done
        await ProviderWriter(management).write(inverses(done))
        left.clear()

    try:
        _provider(planner).run(restore, is_known=True)
    except Exception as second:  # noqa: BLE001 - whatever it is, what is left must be named
        raise _not_restored(left, error, second, finish) from error


def _not_restored(
    left: Sequence[Step], error: BaseException, second: Exception, finish: str
) -> UnfinishedError:
    return UnfinishedError(
        "The database was not changed, but the identity provider is, or may be (listed below).",
        hint=f"Run the same command again to complete it: {finish}",
        details=[
            *(f"may be done: {step.describe()}" for step in left),
            f"cause: {_first(error)}",
            f"restoring it failed: {_first(second)}",
        ],
    )


def _finish(planner: Planner, steps: Sequence[Step], finish: str) -> None:
    """Delete what cannot be restored, now that the database is committed."""
    if not steps:
        return

    try:
        _write(planner, ProviderWriter, steps)
    except AspenError as error:
        raise LastStepsError(
            f"The database is changed, but this is left at the identity provider: "
            f"{'; '.join(step.describe() for step in steps)}.",
            hint=f"To complete it: {finish}",
            details=[f"cause: {_first(error)}"],
        ) from error


def _provider(planner: Planner) -> IdentityProvider:
    if planner.provider is None:
        raise RuntimeError("a plan without a provider has no steps there")
    return planner.provider


def _unknown(approved: Plan, ask: str, finish: str) -> AspenError:
    provided = on_side(approved.steps, database=False)
    details = [f"done at the identity provider: {step.describe()}" for step in provided]
    if details:
        details.append(f"if it was rolled back, run the same command again: {finish}")
    return AspenError(
        "Connection lost during the commit; it is unknown whether the changes were written.",
        hint=f"When the database is reachable again, run: {ask}",
        details=details,
    )


def _rejected(error: DBAPIError) -> AspenError | None:
    """Return the error for the operator, or None if it explains itself."""
    lines: Sequence[str] = str(error.orig).strip().splitlines()
    if isinstance(error, IntegrityError):
        return ConflictError(
            "The database rejected the changes; nothing was written.",
            hint="Someone else may have changed the same data. Run the command again.",
            details=lines,
        )
    if error.connection_invalidated:
        return UnreachableError(
            "Connection to the database lost; nothing was written.",
            hint="Run the command again.",
            details=lines,
        )
    return None


def unwritten(message: str) -> str:
    """Return the message of an error with the fact that nothing was written."""
    if "nothing was" in message.lower():
        return message
    return f"{message.rstrip('.')}; nothing was written."


def _first(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    message = error.message if isinstance(error, AspenError) else str(error)
    return message.partition("\n")[0]
