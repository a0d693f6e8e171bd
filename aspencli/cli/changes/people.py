"""Onboarding and offboarding people and groups, as planned writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli.changes import step_log
from aspencli.changes.runs import InputFile, Outcome, Subject
from aspencli.cli.changes.execute import ItemChange
from aspencli.cli.context import AppContext
from aspencli.cli.output.formats import DONE, OUTCOME, PLANNED, Column, Row
from aspencli.errors import AspenError, BadInputError, ConflictError
from aspencli.identity.offboarding import OffboardingPlan, OffboardingResult, OffboardingRun
from aspencli.identity.onboarding import OnboardingProgress, OnboardingRun
from aspencli.identity.people import (
    NAME_MISSING,
    Access,
    GroupPlace,
    PersonPlan,
    Step,
    WantedPerson,
)
from aspencli.identity.placement import PersonResult
from aspencli.identity.reading import OnboardingPlan

if TYPE_CHECKING:
    from aspen.database.roles import Right
    from aspencli.changes.journal import Recording
    from aspencli.changes.step_log import StepLog
    from aspencli.identity.new_groups import NewGroupPlan, NewGroupRun
    from aspencli.remote.identity import IdentityProvider

# People read the parts in one column; side by side, they would not fit on a terminal.
_PARTS = (
    Column("account", "Account", retired=True, of=str),
    Column("membership", "Membership", retired=True, of=str),
    Column("user", "User", retired=True, of=str),
    Column("invitation", "Invitation", retired=True, of=str),
    Column("password_link", "Password link", retired=True, of=str),
    Column("changes", "Changes", whole=True, of=str),
)
_REASON = Column("reason", "Reason")
PEOPLE_COLUMNS = (
    Column("email", "E-mail", whole=True, of=str),
    Column("name", "Name", secondary=True),
    Column("group", "Group", secondary=True, of=str),
    Column("role", "Role", whole=True, of=str),
    *_PARTS,
    Column("auth0_user_id", "Auth0 id", retired=True),
    Column("id", "User id", retired=True, of=int | None),
    _REASON,
    OUTCOME,
)
GROUP_COLUMNS = (
    Column("id", "Id", right=True, whole=True, of=int | None),
    Column("name", "Name", of=str),
    Column("prefix", "Prefix", whole=True, of=str),
    Column("auth0_org_id", "Auth0 organization", whole=True),
    Column("admin", "Admin", whole=True, of=str),
    *_PARTS,
    _REASON,
    OUTCOME,
)
OFFBOARD_COLUMNS = (
    Column("id", "Id", right=True, whole=True, of=int | None),
    Column("email", "E-mail", whole=True, of=str),
    Column("name", "Name"),
    Column("sessions", "Sessions", whole=True, of=str),
    Column("memberships", "Memberships", of=list[str]),
    Column("invitations", "Invitations", of=list[str]),
    Column("roles", "Roles", of=list[str]),
    Column("account", "Account", whole=True, of=str),
    Column("samples", "Samples kept", right=True, of=int),
    OUTCOME,
)
_CREATING: dict[str, frozenset[Step]] = {
    "account": frozenset({Step.ACCOUNT}),
    "membership": frozenset({Step.MEMBER}),
    "user": frozenset({Step.USER}),
    "invitation": frozenset({Step.INVITATION}),
    "password_link": frozenset({Step.LINK}),
}
_UPDATING: dict[str, frozenset[Step]] = {
    "account": frozenset({Step.UNBLOCK}),
    "membership": frozenset({Step.MEMBER_ROLE}),
    "user": frozenset({Step.RELINK, Step.ROLE}),
}
_PREVIEW = tuple(c for c in PEOPLE_COLUMNS if c.key not in {"reason", "outcome"})
_RESULT_OF = dict(zip(PLANNED, DONE, strict=False))
_LINK_DAYS = 5
_SESSIONS_STAY = (
    "This identity provider cannot end sessions in browsers, which Auth0 offers with Enterprise "
    "plans only; refresh tokens are revoked one by one. The service rejects all tokens of the "
    "person anyway. To keep them from signing in at all, add --block-account."
)


# Onboarding


@dataclass(frozen=True)
class OnboardingJob:
    """People to onboard, and how.

    Attributes:
        unblock: True to unblock their accounts.
        inviter: The name in invitations.
    """

    context: AppContext
    provider: IdentityProvider
    wanted: Sequence[WantedPerson]
    access: Access
    inviter: str
    unblock: bool = False

    def read(self) -> OnboardingPlan:
        """Compare the people with what exists, and return the plan.

        Raises:
            ConflictError: Some of them cannot be onboarded; all of them are listed.
        """
        from aspencli.identity.reading import read_plan

        plan = read_plan(
            self.context.database(), self.provider, self.wanted, self.access, unblock=self.unblock
        )
        refuse_problems(plan)
        return plan

    def carry_out(self, plan: OnboardingPlan, log: StepLog, results: list[PersonResult]) -> None:
        """Carry out a plan, and add the results in the plan's order, also if an error ends it."""
        places = {one.key: place for place, one in enumerate(plan.people)}
        database = self.context.database(writable=True)
        with self.context.out.estimated("Onboarding", len(plan.people)) as update:

            def tell(progress: OnboardingProgress) -> None:
                update(progress.done, progress.seconds)

            run = OnboardingRun(
                database, self.provider, plan, inviter=self.inviter, log=log, tell=tell
            )
            try:
                run.run()
            finally:
                results += sorted(run.results, key=lambda one: places[one.plan.key])


def refuse_problems(plan: OnboardingPlan, *, is_admin: bool = False) -> None:
    """Refuse a plan that has problems; it may be that for the first admin of a group.

    Raises:
        ConflictError: It has; all of them are listed.
    """
    found = plan.problems
    if not found:
        return
    if is_admin and found[0].problem == NAME_MISSING:
        raise BadInputError(
            f"{found[0].wanted.email} is new, so a name is needed; nothing was written.",
            hint="Pass --admin-name.",
        )
    if len(found) == 1 == len(plan.people):
        one = found[0]
        raise ConflictError(
            f"{one.wanted.email} cannot be onboarded: {one.problem}; nothing was written.",
            hint=one.hint,
        )
    raise ConflictError(
        f"{len(found):,} of {len(plan.people):,} people cannot be onboarded; nothing was written.",
        hint="Fix the problems listed above, or leave these people out.",
        details=[line for one in found for line in _problem_lines(one)],
    )


def _problem_lines(plan: PersonPlan) -> tuple[str, str]:
    line = f"line {plan.wanted.line}: " if plan.wanted.line else ""
    return f"{line}{plan.wanted.email}: {plan.problem}", f"  {plan.hint}"


def person_row(plan: PersonPlan) -> Row:
    """Return the plan for a person as a row of `PEOPLE_COLUMNS`."""
    return {
        "email": plan.wanted.email,
        "name": plan.name,
        "group": plan.group.name,
        "role": plan.wanted.role,
        **_planned_parts(plan),
        "auth0_user_id": plan.account.id if plan.account else None,
        "id": plan.user.id if plan.user else None,
        "reason": None,
        "outcome": plan.outcome,
    }


def _planned_parts(plan: PersonPlan) -> dict[str, str]:
    steps = frozenset(plan.steps)
    parts = {}
    for part, creating in _CREATING.items():
        is_link = part in {"invitation", "password_link"}
        parts[part] = "skip" if is_link else "unchanged"
        if steps & creating:
            parts[part] = "create"
        elif steps & _UPDATING.get(part, frozenset()):
            parts[part] = "update"
    if plan.found.invitation and parts["invitation"] == "skip":
        parts["invitation"] = "unchanged"
    changed = [part for part, word in parts.items() if word in PLANNED[:3]]
    return {**parts, "changes": ", ".join(changed).replace("_", " ")}


def _result_row(result: PersonResult) -> Row:
    plan = result.plan
    parts = {}
    planned = _planned_parts(plan)
    changes = planned.pop("changes")
    for part, word in planned.items():
        steps = (_CREATING[part] | _UPDATING.get(part, frozenset())) & frozenset(plan.steps)
        undone = "skipped" if result.outcome == "skipped" else "failed"
        parts[part] = _RESULT_OF[word] if steps <= result.done else undone
    return {
        **person_row(plan),
        **parts,
        "changes": changes if result.outcome in DONE[:2] else "",
        "auth0_user_id": result.account,
        "id": result.user,
        "reason": result.reason or None,
        "outcome": result.outcome,
    }


@dataclass
class _ChangeInParts(ItemChange):
    """A change whose rows have parts."""

    def leave(self, recording: Recording) -> None:
        """Report that nothing was changed, with the parts in the words of a result."""
        parts = {column.key for column in _PARTS[:-1]}
        self.plan = [
            {key: _RESULT_OF[value] if key in parts else value for key, value in row.items()}
            for row in self.plan
        ]
        super().leave(recording)


@dataclass
class PeopleChange(_ChangeInParts):
    """Onboarding of people; see `people_change`."""

    _: KW_ONLY
    job: OnboardingJob
    onboarding: OnboardingPlan
    file: Path | None = None

    def subject(self) -> Subject:
        """Return the facts to record in the history."""
        found = super().subject()
        if self.file is None:
            return found
        return replace(found, file=InputFile(str(self.file), str(self.file.absolute())))

    def explain(self) -> None:
        """Print what to know about the plan."""
        super().explain()
        for plan in self.onboarding.people:
            for note in plan.notes:
                self.context.out.info(f"Note: {note}")

    def apply(self, recording: Recording) -> None:
        """Carry out the plan, and report what became of each person.

        Raises:
            ConflictError: Someone changed a person after the plan was shown.
            AspenError: Some people could not be onboarded.
        """
        refuse_moved(self.job.read().people, self.onboarding.people)
        results: list[PersonResult] = []
        with logged_steps(self.context, recording) as log, self._printed(results):
            self.job.carry_out(self.onboarding, log, results)
        finish_people(self, recording, results)

    @contextmanager
    def _printed(self, results: list[PersonResult]) -> Iterator[None]:
        """Print the results at the end, also if an error cuts them short."""
        try:
            yield
        finally:
            if results:
                self._print([_result_row(result) for result in results])


def people_change(
    job: OnboardingJob, file: Path | None = None, *, is_list: bool = False
) -> PeopleChange:
    """Return the planned onboarding of one person, or of a list of people from a file.

    Raises:
        ConflictError: Some of them cannot be onboarded; all of them are listed.
    """
    plan = job.read()
    rows = [person_row(one) for one in plan.people]
    return PeopleChange(
        job.context,
        _action_phrase(plan, is_list=is_list),
        PEOPLE_COLUMNS,
        rows,
        lambda: (),
        single=not is_list,
        shown=(_PREVIEW, [row for row in rows if row["outcome"] in PLANNED[:3]]),
        permitted=partial(_require_rights, job.context),
        reason="everyone is complete" if len(rows) > 1 else f"{rows[0]['email']} is complete",
        job=job,
        onboarding=plan,
        file=file,
    )


def _action_phrase(plan: OnboardingPlan, *, is_list: bool) -> str:
    """Return the onboarding as a verb phrase."""
    if not is_list:
        (one,) = plan.people
        return f"onboard {one.wanted.email} in group {one.group.name} as {one.wanted.role}"
    work = [one for one in plan.people if one.steps]
    groups = {one.group.name for one in work}
    where = f"group {groups.pop()}" if len(groups) == 1 else f"{len(groups)} groups"
    return f"onboard {people(len({one.wanted.email for one in work}))} in {where}"


def people(number: int) -> str:
    """Return a number of people in words."""
    return "1 person" if number == 1 else f"{number:,} people"


def _require_rights(context: AppContext, rights: Sequence[Right] = ()) -> None:
    from aspen.database.roles import missing_rights
    from aspencli.changes.apply import require_rights
    from aspencli.identity.database import RIGHTS

    with context.database().reading() as session:
        require_rights(missing_rights(session.connection(), rights or RIGHTS))


def refuse_moved(now: object, planned: object) -> None:
    """Refuse to carry out a plan that is not what was confirmed.

    Raises:
        ConflictError: Something changed.
    """
    if now != planned:
        raise ConflictError(
            "Something changed after the plan was shown, perhaps because another operator is at "
            "work; nothing was written.",
            hint="Run the command again to see the current state.",
        )


@contextmanager
def logged_steps(context: AppContext, recording: Recording) -> Iterator[StepLog]:
    """Provide the log of a run's steps, named in the history."""
    with step_log.create(recording.id, context.out.warn) as log:
        recording.stepping(log.path, lambda: log.begun)
        yield log


def finish_people(
    change: ItemChange,
    recording: Recording,
    results: Sequence[PersonResult],
    *,
    left: bool = False,
    then: str = "",
) -> None:
    """Record the outcome of a run, and tell what to do next.

    ``left`` means that something else was written or left behind. ``then`` is the command that
    undoes the rest after the people are offboarded.

    Raises:
        AspenError: Some people could not be onboarded.
    """
    out = change.context.out
    failed = [result for result in results if result.outcome == "failed"]
    skipped = [result for result in results if result.outcome == "skipped"]
    done = [result for result in results if result.outcome in DONE[:2]]
    _show_links(change.context, results)
    for result in failed:
        for sentence in result.left:
            out.warn(sentence)
        if result.left:
            out.hint(f"To finish: {_command(change.context, result.plan)}")
    if not (failed or skipped):
        recording.ended(Outcome.WRITTEN)
        return _tell_done(change, results, done, then)
    wrote = left or bool(done) or any(result.left for result in failed)
    recording.ended(
        Outcome.UNFINISHED if wrote else Outcome.ROLLED_BACK,
        failed[0].reason if failed else skipped[0].reason,
    )
    raise _failure(results, failed, skipped, nothing=not wrote)


def _failure(
    results: Sequence[PersonResult],
    failed: Sequence[PersonResult],
    skipped: Sequence[PersonResult],
    *,
    nothing: bool,
) -> Exception:
    first = failed[0].error if failed else None
    if len(results) == 1 and first is not None:
        if isinstance(first, AspenError) and nothing and "nothing was" not in first.message:
            first.message = f"{first.message.rstrip('.')}; nothing was written."
        return first
    kind = type(first) if isinstance(first, AspenError) else AspenError
    missing = f"{len(failed):,} of {people(len(results))} failed"
    if skipped:
        missing += f", and {len(skipped):,} were not started"
    return kind(
        f"{missing} (see the reasons above).",
        hint="Run the same command again: it adds only what is missing.",
    )


def _tell_done(
    change: ItemChange, results: Sequence[PersonResult], done: Sequence[PersonResult], then: str
) -> None:
    out = change.context.out
    onboarded = {one.plan.wanted.email for one in done}
    unchanged = {one.plan.wanted.email for one in results} - onboarded
    if len(results) == 1:
        plan = results[0].plan
        out.done(f"{plan.wanted.email} is onboarded in {plan.group.name} as {plan.wanted.role}.")
    else:
        out.done(f"{people(len(onboarded))} onboarded, {len(unchanged):,} unchanged.")
    if any(Step.INVITATION in result.done and Step.ACCOUNT in result.done for result in done):
        out.hint(
            "The e-mail leads to the sign-in page. People with a new account choose “Forgot "
            "password?” there to set a password."
        )
    if len(done) == 1 and done[0].outcome == "created":
        email = done[0].plan.wanted.email
        out.hint(f"To undo: {change.context.command('users', 'offboard', email)}")
        if then:
            out.hint(f"Then: {then}")


def _show_links(context: AppContext, results: Iterable[PersonResult]) -> None:
    """Show links to set a password, which are shown once and stored nowhere."""
    found = [result for result in results if result.link]
    for result in found:
        context.out.info(f"Password link for {result.plan.wanted.email}: {result.link}")
    if found:
        context.out.warn(
            f"Whoever has a link can set the password once, within {_LINK_DAYS} days. It is shown "
            "only here: pass it on in private."
        )


def _command(context: AppContext, plan: PersonPlan) -> str:
    words = ["users", "onboard", plan.wanted.email, "--name", plan.name]
    return context.command(*words, "--group", plan.group.name, "--role", plan.wanted.role)


# Groups


@dataclass(frozen=True)
class GroupJob:
    """A group to onboard with its first admin.

    Attributes:
        fields: The columns of the group.
        people: The admin, and how to onboard them.
    """

    context: AppContext
    fields: dict[str, object]
    people: OnboardingJob

    def read(self) -> NewGroupPlan:
        """Compare the group with what exists, and return the plan.

        Raises:
            ConflictError: Another group has the name or prefix, or the admin cannot be onboarded.
        """
        from aspencli.identity.new_groups import read_group_plan

        (admin,) = self.people.wanted
        database = self.context.database()
        plan = read_group_plan(
            database, self.people.provider, self.fields, admin, self.people.access
        )
        refuse_problems(plan.admin, is_admin=True)
        return plan


@dataclass
class GroupChange(_ChangeInParts):
    """Onboarding of a group; see `group_change`."""

    _: KW_ONLY
    job: GroupJob
    onboarding: NewGroupPlan

    def apply(self, recording: Recording) -> None:
        """Create the group, onboard its admin, and report the result.

        Raises:
            ConflictError: Something changed after the plan was shown.
            AspenError: The group or its admin could not be onboarded.
        """
        from aspencli.identity.new_groups import NewGroupRun

        context, job = self.context, self.job
        refuse_moved(job.read(), self.onboarding)
        results: list[PersonResult] = []
        with logged_steps(context, recording) as log:
            database = context.database(writable=True)
            run = NewGroupRun(database, job.people.provider, self.onboarding, log)
            place = self._create(run)
            try:
                self._onboard_admin(place, log, results)
            finally:
                if not results or results[0].outcome == "failed":
                    run.revert()
                    self._warn(run.left)
        self._report(recording, results, place, run.left)

    def _create(self, run: NewGroupRun) -> GroupPlace:
        try:
            return run.create()
        except BaseException:
            self._warn(run.left)
            raise

    def _onboard_admin(self, place: GroupPlace, log: StepLog, results: list[PersonResult]) -> None:
        from aspencli.identity.reading import read_plan

        job = self.job.people
        (admin,) = job.wanted
        plan = read_plan(
            self.context.database(),
            job.provider,
            [admin],
            job.access,
            places={admin.group: place},
        )
        refuse_problems(plan)
        job.carry_out(plan, log, results)

    def _report(
        self,
        recording: Recording,
        results: Sequence[PersonResult],
        place: GroupPlace,
        left: Sequence[str],
    ) -> None:
        (result,) = results
        self._print([group_row(self.onboarding, result, place.id, place.organization)])
        deletion = self.context.command("groups", "delete", place.prefix)
        then = "" if self.onboarding.group else deletion
        finish_people(self, recording, results, left=bool(left), then=then)

    def _warn(self, left: Iterable[str]) -> None:
        for sentence in left:
            self.context.out.warn(sentence)
            self.context.out.hint("To finish, run the same command again.")


def group_change(job: GroupJob) -> GroupChange:
    """Return the planned onboarding of a group.

    Raises:
        ConflictError: Another group has the name or prefix, or the admin cannot be onboarded.
    """
    plan = job.read()
    (admin,) = plan.admin.people
    name, prefix = job.fields["name"], job.fields["prefix"]
    return GroupChange(
        job.context,
        f"onboard group {name} (prefix {prefix}) with {admin.wanted.email} as {admin.wanted.role}",
        GROUP_COLUMNS,
        [group_row(plan)],
        lambda: (),
        single=True,
        permitted=partial(_require_group_rights, job.context),
        reason=f"group {name} is complete",
        job=job,
        onboarding=plan,
    )


def _require_group_rights(context: AppContext) -> None:
    from aspencli.identity.new_groups import RIGHTS

    _require_rights(context, RIGHTS)


def group_row(
    plan: NewGroupPlan,
    result: PersonResult | None = None,
    group: int | None = None,
    organization: str | None = None,
) -> Row:
    """Return the plan for a group, or its result, as a row of `GROUP_COLUMNS`."""
    (admin,) = plan.admin.people
    person = person_row(admin) if result is None else _result_row(result)
    outcome = plan.outcome
    if result is not None:
        is_failed = result.outcome in {"failed", "skipped"}
        outcome = result.outcome if is_failed else _RESULT_OF[outcome]
    known = plan.organization.id if plan.organization else None
    return {
        "id": group or plan.group,
        "name": plan.fields["name"],
        "prefix": plan.fields["prefix"],
        "auth0_org_id": organization or known,
        "admin": admin.wanted.email,
        **{column.key: person[column.key] for column in _PARTS},
        "reason": person["reason"],
        "outcome": outcome,
    }


# Offboarding


@dataclass
class OffboardingChange(ItemChange):
    """Offboarding of a person; see `offboarding_change`."""

    _: KW_ONLY
    read: Callable[[], OffboardingPlan]
    provider: IdentityProvider | None
    offboarding: OffboardingPlan
    notes: Sequence[str] = field(default_factory=tuple)

    def explain(self) -> None:
        """Print what to know about the plan."""
        super().explain()
        for note in self.notes:
            self.context.out.warn(note)

    def apply(self, recording: Recording) -> None:
        """Carry out the plan, and report the result.

        Raises:
            ConflictError: The person changed after the plan was shown.
            AspenError: A part failed; the database was changed all the same, if that was possible.
        """
        context, out, plan = self.context, self.context.out, self.offboarding
        refuse_moved(self.read(), plan)
        with logged_steps(context, recording) as log:
            run = OffboardingRun(context.database(writable=True), self.provider, plan, log)
            run.run()
        result = run.result
        outcome = "failed" if result.failures else "updated"
        can_end = not result.keeps_sessions
        self._print([offboarding_row(replace(plan, ends_sessions=can_end), outcome)])
        if plan.ends_sessions and not can_end:
            out.warn(_SESSIONS_STAY)
        if not result.failures:
            recording.ended(Outcome.WRITTEN)
            out.done(f"{plan.email} is offboarded: every request with their tokens is rejected.")
            self._hint_return()
            return
        raise self._report_failure(result, recording)

    def _report_failure(self, result: OffboardingResult, recording: Recording) -> AspenError:
        """Report and record what failed, and return the error that ends the command."""
        out, email = self.context.out, self.offboarding.email
        for sentence, _ in result.failures:
            out.warn(sentence)
        if result.is_stored:
            out.info("The service rejects every request with their tokens already.")
        reason, first = result.failures[0]
        recording.ended(Outcome.UNFINISHED, reason)
        kind = type(first) if isinstance(first, AspenError) else AspenError
        return kind(
            f"{len(result.failures)} of the steps to offboard {email} failed (see above).",
            hint="Run the same command again: it removes what is left.",
        )

    def _hint_return(self) -> None:
        plan, context = self.offboarding, self.context
        name = plan.user.name if plan.user else ""
        for group, roles in plan.roles.items():
            words = ("users", "onboard", plan.email, "--name", name, "--group", group)
            context.out.hint(f"To bring them back: {context.command(*words, '--role', roles[0])}")


def offboarding_change(
    context: AppContext, provider: IdentityProvider | None, read: Callable[[], OffboardingPlan]
) -> OffboardingChange:
    """Return the planned offboarding of a person.

    Raises:
        NotFoundError: Neither side knows the person.
    """
    plan = read()
    return OffboardingChange(
        context,
        f"offboard {plan.email}",
        OFFBOARD_COLUMNS,
        [offboarding_row(plan, "unchanged" if plan.is_empty else "update")],
        lambda: (),
        single=True,
        shown=(OFFBOARD_COLUMNS[:-1], [offboarding_row(plan, "update")]),
        permitted=partial(_require_offboarding_rights, context),
        reason=f"nothing lets {plan.email} in",
        read=read,
        provider=provider,
        offboarding=plan,
        notes=_offboarding_notes(plan),
    )


def _offboarding_notes(plan: OffboardingPlan) -> list[str]:
    notes = [
        f"{plan.email} is the only admin of {group}. Make someone else admin as well."
        for group in plan.last_admin_of
    ]
    if not plan.asked_provider:
        notes.append(
            "There are no management credentials for this target, so the identity provider is left "
            f"as it is. Ask its administrator to end the sessions of {plan.email}, revoke the "
            "refresh tokens, and remove the memberships and invitations."
        )
    if plan.account and not (plan.ends_sessions or plan.is_empty):
        notes.append(_SESSIONS_STAY)
    return notes


def _require_offboarding_rights(context: AppContext) -> None:
    from aspencli.identity.offboarding import RIGHTS

    _require_rights(context, RIGHTS)


def offboarding_row(plan: OffboardingPlan, outcome: str) -> Row:
    """Return the plan for a person, or its result, as a row of `OFFBOARD_COLUMNS`."""
    is_planned = outcome in PLANNED

    def part(word: str, *, changes: bool) -> str:
        if not changes:
            return "unchanged"
        return word if is_planned else "failed" if outcome == "failed" else _RESULT_OF[word]

    fate = "delete" if plan.fate.value == "delete" else "update"
    signed_in = plan.account is not None and not plan.is_empty
    ending = "delete" if plan.ends_sessions else "skip"
    return {
        "id": plan.user.id if plan.user else None,
        "email": plan.email,
        "name": plan.user.name if plan.user else plan.account.name if plan.account else None,
        "sessions": part(ending, changes=signed_in),
        "memberships": [one.organization.display_name for one in plan.memberships],
        "invitations": [one.organization.display_name for one in plan.invitations],
        "roles": [f"{group} ({', '.join(roles)})" for group, roles in plan.roles.items()],
        "account": part(fate, changes=plan.changes_account),
        "samples": plan.samples,
        "outcome": outcome,
    }
