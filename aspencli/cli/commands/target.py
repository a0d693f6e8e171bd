"""``aspencli target`` and ``aspencli stacks``: the deployments, and whether they can be reached."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from aspencli.cli.app import examples, group
from aspencli.cli.context import LOCAL_DEPLOYMENT, AppContext, current
from aspencli.cli.output.formats import Column, Row, prints
from aspencli.config import Safety
from aspencli.errors import AspenError, NotFoundError, UnreachableError
from aspencli.text import duration_text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from aspencli.config import Target

app = group("List targets, and check each part of the way to one.")
stacks_app = group("List the stacks of remote development environments.")

LIST_COLUMNS = (
    Column("name", "Target", whole=True, of=str),
    Column("safety", "Safety", of=str),
    Column("api_url", "API", blank=lambda row: _missing(row["name"])),
    Column("database", "Database", blank=lambda row: _missing(row["name"])),
    Column("way", "Way", blank=lambda _row: "(from the secret)"),
    Column("selected", "Selected", secondary=True, of=bool),
)
CHECK_COLUMNS = (
    Column("part", "Part", whole=True, of=str),
    Column("state", "State", whole=True, of=str),
    Column("seconds", "Time", right=True, whole=True, of=float | None),
    Column("found", "Found", of=str),
    Column("step", "Next step", secondary=True),
)
STACK_COLUMNS = (Column("name", "Stack", whole=True, of=str), Column("api_url", "API", of=str))

_OK, _NOTE, _FAILED, _SKIPPED = "ok", "note", "failed", "skipped"
_ANSWERS = {b"S": "offers TLS", b"N": "has no TLS"}


@app.command("list", epilog=examples("aspencli target list"))
@prints(LIST_COLUMNS)
def list_targets(ctx: typer.Context) -> None:
    """List all targets: where their API and database are, and how the database is reached."""
    context = current(ctx)
    chosen = context.config.setting("env").value
    rows = [
        {
            "name": target.name,
            "safety": target.safety.value,
            "api_url": target.api_url,
            "database": _database_words(target),
            "way": _way_words(target),
            "selected": target.name == chosen,
        }
        for target in map(context.config.configured, context.config.targets)
    ]
    if context.out.has_layout:
        # As records, because addresses are too long for a column and must not be cut.
        context.out.records(LIST_COLUMNS, rows)
    else:
        context.out.rows(LIST_COLUMNS, rows)


def _database_words(target: Target) -> str | None:
    if target.database_url:
        return "database_url"
    if target.secret_name:
        return f"{target.database_name or '?'}, secret {target.secret_name}"
    return None


def _missing(name: str) -> str:
    return "(automatic)" if name == "local" else "(not set)"


def _way_words(target: Target) -> str | None:
    if target.way or target.bastion:
        return target.way or "ssh"
    return None if target.secret_name and not target.database_url else "direct"


@app.command(
    epilog=examples("aspencli --env staging target check", "aspencli --env prod target check")
)
@prints(CHECK_COLUMNS)
def check(ctx: typer.Context) -> None:
    """Check each part of the way to the target, from AWS and the database to the API and sign-in.

    The last part is the identity provider: whether the management credentials
    are accepted, and have the scopes that onboarding people needs.
    Prints what was found, how long it took, and what to do if it failed. The exit code is that of
    the first failure. Nothing is written.
    """
    context = current(ctx)
    rows, codes = [], []
    for row, code in _Check(context).rows():
        rows.append(row)
        codes += [code] if code else []
        if context.out.has_layout:
            _show(context, row)
    if not context.out.has_layout:
        context.out.rows(CHECK_COLUMNS, rows)
    if not codes:
        context.out.done(f"{context.target.label} can be reached")
        return
    count = sum(row["state"] == _FAILED for row in rows)
    context.out.warn(f"{count} of {len(rows)} parts failed; the steps above say what to do.")
    raise typer.Exit(codes[0])


def _show(context: AppContext, row: Row) -> None:
    """Print a part as soon as it is known, because the next one may take seconds."""
    style = {_OK: "done", _NOTE: "warn", _FAILED: "error", _SKIPPED: "hint"}[row["state"]]
    seconds = "" if row["seconds"] is None else duration_text(row["seconds"])
    state = context.out.styled(style, f"{row['state']:<8}")
    context.out.text(f"{row['part']:<18} {state} {seconds:>7}  {row['found']}")
    if row["step"] and row["state"] != _SKIPPED:
        context.out.text(f"{'':<18} {'':<8} {'':>7}  {context.out.styled('hint', row['step'])}")


class _NotedError(AspenError):
    """A part that works, with a remark."""


class _SkippedError(AspenError):
    """A part that this target does not have, or that cannot be checked."""


class _Check:
    """The parts of the way to a target, each of which may need earlier ones."""

    def __init__(self, context: AppContext):
        self._context = context
        self._failed: set[str] = set()
        self._opened: Connection | None = None

    def rows(self) -> Iterator[tuple[Row, int]]:
        """Yield the row of each part, and the exit code if it failed, or 0."""
        for part, needs, look in self._parts():
            missing = next((one for one in needs if one in self._failed), None)
            if missing:
                self._failed.add(part)
                yield _row(part, _SKIPPED, None, f"needs: {missing}"), 0
                continue
            began = time.monotonic()
            code = 0
            try:
                state, found, step = _OK, look(), None
            except _NotedError as note:
                state, found, step = _NOTE, note.message, note.hint
            except _SkippedError as reason:
                yield _row(part, _SKIPPED, None, reason.message, reason.hint), 0
                continue
            except Exception as error:  # noqa: BLE001 - each part is reported, and the next one tried
                from aspencli.cli.failures import explain

                failure = explain(error)
                state, found, step, code = _FAILED, failure.message, failure.hint, failure.code
                self._failed.add(part)
            yield _row(part, state, time.monotonic() - began, found, step), code

    def _parts(self) -> Iterator[tuple[str, tuple[str, ...], Callable[[], str]]]:
        target = self._context.target
        database: tuple[str, ...] = ("Tunnel",)
        if target.secret_name and not target.database_url:
            yield "AWS identity", (), self._identity
            yield "Secret", ("AWS identity",), self._secret
            database = ("Secret", "Tunnel")
        if not self._context.is_on_laptop and self._context.knows_database:
            yield "Tunnel", database[:-1], self._tunnel
        if self._context.knows_database:
            yield "Database", database, self._database
            yield "TLS", ("Database",), self._tls
            yield "Role", ("Database",), self._role
            yield "Schema", ("Database",), self._schema
        yield "API", (), self._api
        yield "Sign-in", ("API",), self._sign_in
        yield "Identity provider", ("Secret",), self._identity_provider
        if target.safety is not Safety.LOCAL:
            yield "Audit trail", (), self._audit_trail

    def _identity(self) -> str:
        return self._context.aws.arn

    def _secret(self) -> str:
        return f"{self._context.aws.secret.name} was read"

    def _tunnel(self) -> str:
        """Open a connection, and ask for TLS as a client does, but do not sign in."""
        database = self._context.deployed_database
        (host, port), tunnel = database.server, database.tunnel
        answer = b""
        with contextlib.suppress(OSError), database.asked_for_tls() as (_connection, found):
            answer = found
        if answer not in _ANSWERS:
            raise database.no_answer()
        through = tunnel.through if tunnel else "direct"
        return f"{through}: {host}:{port} answers and {_ANSWERS[answer]}"

    @property
    def _connection(self) -> Connection:
        """Return one connection for all parts: each new one takes several round trips."""
        if self._opened is None:
            self._opened = self._context.database().engine.connect()
        return self._opened

    @property
    def _driver(self) -> Any:
        return self._connection.connection.driver_connection

    def _database(self) -> str:
        names = "SELECT current_database(), current_user, current_setting('server_version')"
        before = self._context.target
        with self._connection.begin():
            name, user, version = self._connection.exec_driver_sql(names).one()
        pooler = ", through a pooler" if self._driver.pooled else ""
        found = f"{name} as {user}, PostgreSQL {version.split(' ')[0]}{pooler}"
        target = self._context.target
        if target is not before:  # the database was recognized
            raise _NotedError(
                f"{found}. This is the database of {target.belongs_to}: it is treated as "
                "production.",
                hint=f"If it should be another one: {self._context.command('config', 'show')}",
            )
        return found

    def _tls(self) -> str:
        info = self._driver.info
        protocol = info.ssl_attribute("protocol") if info.ssl_in_use else None
        mode = info.dsn_parameters.get("sslmode", "prefer")
        here = info.host in {"localhost", "127.0.0.1", "::1"} or info.host.startswith("/")
        if protocol is None:
            if here and not self._context.route:
                return "not used, on this machine"
            raise _NotedError("The connection is not encrypted.", hint="Add sslmode=require.")
        if mode == "verify-full":
            return f"{protocol}, certificate verified for {info.host}"
        raise _NotedError(
            f"{protocol}, but the server's certificate is not verified (sslmode={mode}).",
            hint=f"Set ca_file under [targets.{self._context.target.name}] to the certificates "
            "that it must be signed by.",
        )

    def _role(self) -> str:
        from aspen.database import roles

        rights = roles.rights(self._driver)
        if role := self._context.target.read_only_role:
            return f"{rights.user} switches to {role} in reading sessions"
        if not rights.can_write:
            return f"{rights.user} can only read"
        if rights.reader:
            return f"{rights.user} can write; reading sessions of psql switch to {rights.reader}"
        raise _NotedError(
            f"{rights.user} can write, and there is no role that can only read, so reading "
            "sessions are read-only by convention.",
            hint=f"Create one: {self._context.command('db', 'access', 'ensure-readonly')}",
        )

    def _schema(self) -> str:
        from aspencli.admin.databases import visible_schema_state

        state = visible_schema_state(self._context.database())
        if state.word == "up to date":
            return f"revision {state.revision}, up to date"
        raise _NotedError(
            f"revision {state.revision or 'none'}, {state.word}"
            + (f": {state.hidden}" if state.hidden else ""),
            hint=state.older or f"See: {self._context.command('db', 'status')}",
        )

    def _audit_trail(self) -> str:
        from aspencli.changes.outbox import count_waiting
        from aspencli.cli.changes.audit import TargetTrail

        place = TargetTrail(self._context)
        if (trail := place.trail) is None:
            raise _NotedError(
                "on this machine only",
                hint="To record writes for everyone, set audit_bucket under "
                f"[targets.{self._context.target.name}].",
            )
        head = trail.head()
        found = f"{place.address}: {head.number if head else 0:,} entries"
        if waiting := count_waiting().get(place.label):
            raise _NotedError(f"{found}; {waiting:,} more wait", hint=f"Send: {place.sync_command}")
        return found

    def _api(self) -> str:
        if self._context.target.name == "local":
            self._context.api()  # says how to start it
        self._context.access.check_health()
        return self._context.access.at.api_url

    def _sign_in(self) -> str:
        access = self._context.access
        held = access.session.found()
        if held is None:
            raise _NotedError("not signed in", hint=f"Sign in: {access.login_command}")
        self._context.api().users.me()
        return f"as {held.who}"

    def _identity_provider(self) -> str:
        """Get a token for the Management API; no other request is sent."""
        source = self._context.management_source
        try:
            provider = self._context.identity if source is not None else None
        except UnreachableError as error:
            if source != LOCAL_DEPLOYMENT:
                raise
            raise _SkippedError(error.message, hint=error.hint) from error  # it has none yet
        if provider is None:
            raise _no_management(source)
        missing = provider.missing_scopes()
        if missing == []:
            return f"{provider.host}: token obtained, with all scopes that onboarding needs"
        if missing is None:
            raise _NotedError(
                f"{provider.host}: token obtained, but its scopes are not known.",
                hint="Check in the provider's dashboard that the management client has them.",
            )
        raise _NotedError(
            f"{provider.host}: token obtained, but onboarding also needs: {', '.join(missing)}",
            hint="Grant these scopes to the management client, in the provider's dashboard under "
            "APIs > Management API > Machine to Machine Applications.",
        )


def _no_management(source: str | None) -> _SkippedError:
    from aspencli.deployments.identity import NAMES

    return _SkippedError(
        "no management credentials: "
        + ("not configured" if source is None else f"not in the {source}"),
        hint=f"To onboard people, set {', '.join(NAMES)}, or add them to the secret.",
    )


def _row(part: str, state: str, seconds: float | None, found: str, step: str | None = None) -> Row:
    return {
        "part": part,
        "state": state,
        "seconds": None if seconds is None else round(seconds, 3),
        "found": found,
        "step": step,
    }


@stacks_app.command("list", epilog=examples("aspencli stacks list"))
@prints(STACK_COLUMNS)
def list_stacks(ctx: typer.Context) -> None:
    """List the stacks of remote development environments, as their deployment tool knows them."""
    from aspencli.deployments.aws import Aws

    context = current(ctx)
    target = context.config.configured("rdev")
    pattern = target.api_url or ""
    names = Aws(target, interactive=context.out.interactive).stacks()
    rows = [{"name": name, "api_url": pattern.replace("{stack}", name)} for name in names]
    if not rows:
        raise NotFoundError("There are no stacks.")
    from aspencli.cli.completion.values import as_name, store

    stacks = [name for row in rows for name in as_name("stacks", row)]
    store(target.name, "stacks", stacks, is_production=False, whole=True)
    context.out.rows(STACK_COLUMNS, rows)
