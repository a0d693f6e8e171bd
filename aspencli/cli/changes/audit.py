"""The audit trail of a target, as commands use it: opened when needed, with what has to wait."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import quote

from aspencli.config import NO_BUCKET, command_for
from aspencli.errors import AspenError, BadInputError, CredentialsError, UnreachableError

if TYPE_CHECKING:  # `config show` needs none of them
    from aspencli.changes.outbox import Outbox, Waiting
    from aspencli.changes.runs import Event
    from aspencli.changes.trail import Entry, Trail
    from aspencli.cli.context import AppContext
    from aspencli.config import Target
    from aspencli.deployments.aws import Aws

FOLDER = "aspencli/audit"
"""The beginning of all keys, unless the target sets another one."""
_SECRET_KEY = "S3_db_bucket"  # noqa: S105 - the name of a value


class TargetTrail:
    """The audit trail of a target, or of the target that its address belongs to.

    Args:
        context: The context of the run.
        target: The target; by default the selected one.
    """

    def __init__(self, context: AppContext, target: Target | None = None):
        self._context = context
        self._target = target or context.target
        self._owner = self._find_owner()
        self._address = ""

    def _find_owner(self) -> Target:
        """Return the target whose trail it is: safety follows the address, not the name."""
        config = self._context.config
        name, _, stack = (self._target.belongs_to or "").partition("/")
        if name not in config.targets:
            return self._target
        return replace(config.configured(name), stack=stack or None)

    @property
    def label(self) -> str:
        """Return the label of the target whose trail it is."""
        return self._owner.label

    @property
    def is_local_only(self) -> bool:
        """Return True if the target is known to have no trail, without reading its secret."""
        bucket = self._owner.audit_bucket
        return bucket == NO_BUCKET or not (bucket or self._owner.secret_name)

    @property
    def described(self) -> str:
        """Return where the trail is, as far as that is known without reading the secret."""
        if self.is_local_only:
            return "on this machine only"
        if bucket := self._owner.audit_bucket:
            return f"bucket {bucket}"
        return f"{_SECRET_KEY} in the secret {self._owner.secret_name}"

    def require(self) -> Trail:
        """Return the trail.

        Raises:
            BadInputError: The target has none.
            AspenError: The target's secret cannot be read.
        """
        if (trail := self.trail) is None:
            raise BadInputError(
                f"{self.label} has no audit trail: its runs are in the history of the machine that "
                "made them only.",
                hint="Choose a target with --env, or set audit_bucket under "
                f"[targets.{self._owner.name}].",
            )
        return trail

    @cached_property
    def aws(self) -> Aws:
        """Return the AWS account with the bucket."""
        if self._owner == self._context.target:
            return self._context.aws
        from aspencli.deployments.aws import Aws

        return Aws(self._owner, interactive=self._context.out.interactive)

    @cached_property
    def trail(self) -> Trail | None:
        """Return the trail, or None if the target has none.

        Raises:
            AspenError: The target's secret cannot be read.
        """
        if self.is_local_only:
            return None
        place = self._owner.audit_bucket or self.aws.secret.get(_SECRET_KEY)
        if place is None:
            return None
        from aspencli.changes.trail import Trail
        from aspencli.deployments.bucket import Bucket

        bucket, _, folder = place.partition("/")
        parts = filter(None, [self._owner.name, self._owner.stack])
        label = "/".join(quote(part, safe="") for part in parts)
        prefix = f"{folder.strip('/') or FOLDER}/{label}/"
        self._address = f"s3://{bucket}/{prefix}"
        return Trail(Bucket(self.aws, bucket), prefix)

    @property
    def address(self) -> str:
        """Return the address of the trail once it is known; empty if there is none."""
        return self._address

    @property
    def outbox(self) -> Outbox:
        """Return the entries that wait to be sent."""
        from aspencli.changes.outbox import Outbox

        return Outbox(self.label)

    @property
    def sync_command(self) -> str:
        """Return the command that sends what waits."""
        return command_for(self.label, "history", "sync")

    def append(self, event: Event, last: Entry | None) -> Entry:
        """Append an event; see `Trail.append`."""
        assert self.trail is not None  # noqa: S101 - callers check it
        return self.trail.append(event, last)

    def facts_of(self, event: Event, entry: Entry | None) -> dict[str, object]:
        """Return what the journal records about an event's entry; None if it waits."""
        facts: dict[str, object] = {"of": event["event"], "trail": self.address or None}
        return facts if entry is None else facts | {"number": entry.number, "sha256": entry.sha256}

    def send(self, last: Entry | None = None) -> list[tuple[Waiting, Entry]]:
        """Send what waits, and return it with its entries.

        Args:
            last: The newest entry, as far as known.

        Raises:
            AspenError: The bucket cannot be written; the rest still waits.
            OSError: The state folder cannot be used.
        """
        outbox, sent = self.outbox, []
        if self.trail is None or not outbox.waiting():
            return []
        with outbox.sending():
            last = last or self.trail.head()
            for waiting in outbox.waiting():
                entry = self.trail.sent_before(waiting.event, last)
                if entry is None:
                    entry = last = self.trail.append(waiting.event, last)
                self.note(waiting.event, entry)
                waiting.done()
                sent.append((waiting, entry))
        return sent

    def note(self, event: Event, entry: Entry) -> None:
        """Record in the journal where an event is in the trail.

        Raises:
            OSError: The journal cannot be written.
        """
        from aspencli.changes.journal import open_journal

        facts = self.facts_of(event, entry)
        at = dt.datetime.now(dt.UTC).isoformat()
        open_journal().append({"event": "audited", "run": event["run"], "at": at, **facts})

    def tell(self, event: Event) -> None:
        """Add an entry about a run that has ended; if that fails, it waits."""
        if self.is_local_only:
            return
        out = self._context.out
        try:
            self.outbox.put(event)
        except OSError as error:
            out.warn(f"The audit trail of {self.label} does not show this: {error}")
            return
        try:
            self.send()
        except (AspenError, OSError) as error:
            out.info(f"{queued_words(self.label, error)} Send it later: {self.sync_command}")


def queued_words(label: str, error: Exception | None) -> str:
    """Return a sentence about an entry that waits, with the reason."""
    reason = error.message if isinstance(error, AspenError) else str(error or "")
    return f"The entry for the audit trail of {label} is queued. {reason}".rstrip()


class RunTrail:
    """The audit trail of a run's target, which has an entry when the run begins and when it ends.

    A production target is not written to without an entry. On others, entries that cannot be
    written wait on this machine.

    Args:
        context: The context of the run.
        target: The target of the write; by default the selected one.
    """

    def __init__(self, context: AppContext, target: Target | None = None):
        self._context = context
        self._target = target or context.target
        self._place = TargetTrail(context, target)
        self._last: Entry | None = None
        self._aws: str | None = None
        self._failure: AspenError | None = None
        self._is_prepared = False
        self._has_begun = False

    @property
    def _is_absent(self) -> bool:
        return self._place.is_local_only or (self._failure is None and self._place.trail is None)

    def prepare(self) -> None:
        """Read the newest entry, and send what waits.

        Raises:
            AspenError: The bucket of a production target cannot be used.
        """
        self._is_prepared = True
        if self._place.is_local_only:
            return
        try:
            with self._context.out.progress("Reading the audit trail"):
                if (trail := self._place.trail) is None:
                    return
                self._aws = self._place.aws.arn
                self._last = trail.head()
                if sent := self._place.send(self._last):
                    self._last = sent[-1][1]
        except AspenError as error:
            self._fail(error)
        except OSError as error:
            self._fail(AspenError(f"The state folder cannot be used: {error}"))

    def _fail(self, error: AspenError) -> None:
        """Note why entries have to wait.

        Raises:
            AspenError: They may not wait, because the target is production.
        """
        self._failure = error
        if not self._target.is_production:
            return
        kind = CredentialsError if isinstance(error, CredentialsError) else UnreachableError
        raise kind(
            "Nothing was changed, because this run cannot be recorded in the audit trail of "
            f"{self._place.label}. {error.message}",
            hint=error.hint,
            details=error.details,
        ) from error

    def begin(self, event: Event) -> Mapping[str, object]:
        """Add the entry of a run that begins; see `aspencli.changes.journal.Witness`."""
        if not self._is_prepared:
            self.prepare()
        if self._is_absent:
            return self._without_trail()
        event = {**event, "aws": self._aws, "log": self._log_id()}
        self._has_begun = True
        entry = None
        if self._failure is None:
            try:
                entry = self._last = self._place.append(event, self._last)
            except AspenError as error:
                # Without an answer, the entry may be there, so there has to be one of its end.
                self._has_begun = isinstance(error, UnreachableError)
                self._fail(error)
                self._has_begun = True
        if entry is None:
            self._queue(event)
            self._say_queued()
        return {"aws": self._aws, **self._place.facts_of(event, entry)}

    def _without_trail(self) -> Mapping[str, object]:
        if self._target.is_production:
            self._context.out.info(f"Audit trail of {self._place.label}: on this machine only.")
        aws = identity_in_aws(self._context)
        return {} if aws is None else {"aws": aws}

    def end(self, event: Event) -> Callable[[], Mapping[str, object]]:
        """Queue the entry of a run that ended, and return a function that sends it."""
        if not self._has_begun:
            return dict
        try:
            waiting = self._place.outbox.put(event)
        except OSError as error:
            message = (
                f"The audit trail of {self._place.label} has no entry of the run's end: {error}"
            )
            self._context.out.warn(message)
            return dict
        return lambda: self._send_end(waiting)

    def _send_end(self, waiting: Waiting) -> Mapping[str, object]:
        event, failure = waiting.event, self._failure
        queued = self._place.facts_of(event, None)
        if failure is not None:
            return queued
        outbox = self._place.outbox
        try:
            # Another process of this operator sends what waits, too.
            with outbox.sending():
                if not outbox.has(waiting):
                    return {}
                entry = self._place.append(event, self._last)
                waiting.done()
        except (AspenError, OSError, KeyboardInterrupt) as error:
            reason = error.message if isinstance(error, AspenError) else str(error)
            self._context.out.warn(
                f"The end of this run is not in the audit trail of {self._place.label} yet. "
                f"{reason or 'Interrupted.'} Send it: {self._place.sync_command}"
            )
            return queued
        return self._place.facts_of(event, entry)

    def _queue(self, event: Event) -> None:
        """Queue an entry.

        Raises:
            AspenError: It cannot be written; nothing was changed.
        """
        try:
            self._place.outbox.put(event)
        except OSError as error:
            raise AspenError(
                f"Cannot queue the entry for the audit trail: {error}; nothing was changed.",
                hint="Free disk space or fix the permissions, or set ASPEN_HOME to another "
                "directory.",
            ) from error

    def _say_queued(self) -> None:
        words = queued_words(self._place.label, self._failure)
        self._context.out.info(f"{words} Send it later: {self._place.sync_command}")

    def _log_id(self) -> str | None:
        from aspencli.changes.journal import open_journal

        try:
            return open_journal().id
        except OSError:  # the journal itself was just written
            return None


def identity_in_aws(context: AppContext) -> str | None:
    """Return the identity in the target's AWS account, if its credentials are in use."""
    if not context.uses_aws:
        return None
    try:
        return context.aws.arn
    except AspenError:  # nothing but this record needs it
        return None
