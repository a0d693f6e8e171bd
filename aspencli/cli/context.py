"""The context of a run: its target, its output, and resources that open on first use."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from itertools import islice
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from aspen.database import settings
from aspencli import __version__, files
from aspencli.config import Config, Safety, Target, command_for, given_format
from aspencli.errors import (
    JSON_FORMATS,
    AspenError,
    BadInputError,
    RefusedError,
)
from aspencli.machine import Endpoints, clear_environment, read_endpoints

if TYPE_CHECKING:
    import typer

    from aspen.database.driver import EarlyConnection
    from aspen.database.engine import Database
    from aspen.database.settings import Guard, Limits, Route, SessionPolicy
    from aspen.identity.management import Credentials
    from aspen.local.deployment import Laptop
    from aspencli.cli.access import ActingAccount, ApiAccess
    from aspencli.cli.meter import Meter
    from aspencli.cli.output.console import Output
    from aspencli.deployments.aws import Aws
    from aspencli.deployments.database import DeploymentDatabase
    from aspencli.remote.api import Api
    from aspencli.remote.identity import IdentityProvider

LOCAL_DEPLOYMENT = "local deployment"
"""The source of values that `local` takes from the deployment on this machine."""
_LOOK_MS = 10_000  # for a query that only adds details to an error


class Backend(enum.Enum):
    """The backend through which a command reaches the data of a target."""

    DB = "db"
    API = "api"


class Options:
    """The global options that were given before or after the command."""

    def __init__(self) -> None:
        self._given: dict[str, Any] = {}

    def give(self, name: str, value: Any) -> None:
        """Record the value of an option.

        Raises:
            BadInputError: The option was already given with another value.
        """
        if self._given.setdefault(name, value) != value:
            raise BadInputError(
                f"--{name.replace('_', '-')} was given twice: {self._given[name]} and {value}",
                hint="Pass it once.",
            )

    def __getitem__(self, name: str) -> Any:
        return self._given.get(name)

    def values(self) -> dict[str, str | None]:
        """Return the options that have a text value, by name."""
        return {name: value for name, value in self._given.items() if isinstance(value, str)}


class AppContext:
    """The context of one run of the program."""

    def __init__(self) -> None:
        self.options = Options()
        self._exits = ExitStack()
        self._relays_commits = False
        self._has_recognized = False
        self.writes_database = False
        self.has_results = False  # the command prints rows or a document
        self.argv: tuple[str, ...] = ()  # as typed, without the program's name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exits.close()

    def closing(self, file: IO[bytes]) -> IO[bytes]:
        """Register a file to be closed when the run ends, and return it."""
        return self._exits.enter_context(file)

    @cached_property
    def config(self) -> Config:
        """Return the settings from the flags, the environment, and the config file."""
        return Config(self.options.values())

    @cached_property
    def target(self) -> Target:
        """Return the selected target with the strictest safety level of all at its address."""
        return self.config.safest_target

    @cached_property
    def out(self) -> Output:
        """Return the output for results and messages."""
        from aspencli.cli.output.console import Output

        return Output(
            self.config.value("output"),
            no_input=bool(self.options["no_input"]),
            json_errors=self.wants_json,
            quiet=bool(self.options["quiet"]),
            meter=self._meter,
        )

    @cached_property
    def _meter(self) -> Meter | None:
        """Return what counts connections and requests, or None without ``--verbose``.

        Raises:
            BadInputError: ``--quiet`` was given, too.
        """
        if not self.options["verbose"]:
            return None
        if self.options["quiet"]:
            raise BadInputError("--quiet and --verbose cannot be combined.", hint="Pass one.")
        from aspencli.cli.meter import Meter

        return Meter()

    @property
    def wants_json(self) -> bool:
        """Return True if errors are for programs, also if the options or settings are invalid."""
        given = self.options["output"] or given_format(self.argv)
        if given is None:
            try:
                given = self.config.value("output")
            except AspenError:
                return False
        return given in JSON_FORMATS

    def prepare_output(self, command: Any, name: str) -> None:
        """Apply the options about the results of a command, before it does anything.

        Raises:
            BadInputError: They contradict each other, or do not fit what the command prints.
        """
        from aspencli.cli.output.formats import results_of

        results = results_of(command)
        self.has_results = results is not None
        if any(self.options[option] is not None for option in ("columns", "jq", "template")):
            from aspencli.cli.output.choosing import prepare

            prepare(self.out, results, self.options, name)

    @cached_property
    def run_id(self) -> str:
        """Return the ID that the history has for a write of this command."""
        from aspencli.changes.journal import new_id

        return new_id()

    def remember(self, rows: Iterable[Any], *, kinds: Sequence[str]) -> Iterator[Any]:
        """Yield rows of a list, and store their names for completion when the run ends."""
        from aspencli.cli.completion.values import KINDS, as_name, store

        names: dict[str, list[tuple[str, str]]] = {kind: [] for kind in kinds}

        def keep() -> None:
            for kind, found in names.items():
                if found:
                    store(self.target.label, kind, found, is_production=self.target.is_production)

        self._exits.callback(keep)
        rows = iter(rows)
        for row in islice(rows, max(KINDS[kind] for kind in kinds)):
            fields: Any = row._asdict() if hasattr(row, "_asdict") else row
            for kind, found in names.items():
                found.extend(as_name(kind, fields))
            yield row
        yield from rows

    def choose_target(self, label: str) -> None:
        """Select a target by its label, such as ``rdev/mystack``.

        Raises:
            BadInputError: Another one was given with ``--env`` or ``--stack``.
        """
        name, _, stack = label.partition("/")
        self.options.give("env", name)
        if stack:
            self.options.give("stack", stack)
        for known in ("config", "target"):
            self.__dict__.pop(known, None)

    def beside(self, label: str) -> AppContext:
        """Return a context for another target, with the same output; it is only read from."""
        other = AppContext()
        for name in ("debug", "override_timeouts"):
            if self.options[name]:
                other.options.give(name, self.options[name])
        other.choose_target(label)
        other.__dict__.update(out=self.out, run_id=self.run_id)
        return self._exits.enter_context(other)

    @property
    def messages(self) -> Output:
        """Return an output for errors that works even if the settings are invalid."""
        from aspencli.cli.output.console import Output

        return self.__dict__.get("out") or Output()

    def authorize(
        self,
        what: str,
        *,
        default_yes: bool = False,
        by_name: bool = False,
        dry_run: bool = True,
        target: Target | None = None,
        stdin: str = "",
    ) -> None:
        """Get the confirmation that the target's safety level requires for a write.

        Args:
            what: The action, as a verb phrase.
            default_yes: True to act as if ``--yes`` was given.
            by_name: True to require the target's name even if it is not production.
            dry_run: True if the command has ``--dry-run``, which a refusal then suggests.
            target: The target of the write, if it is not the selected one.
            stdin: The noun for the file on standard input, on which no question can be answered.

        Raises:
            RefusedError: The write was declined, or there is no terminal to confirm it on.
        """
        from aspencli.cli.changes.execute import authorize

        authorize(
            target or self.target,
            self.out,
            what,
            yes=bool(self.options["yes"]) or default_yes,
            name=self.options["confirm"],
            by_name=by_name,
            dry_run=dry_run,
            stdin=stdin,
        )
        self.out.finish_anyway()

    def choose_backend(self, given: Backend | None, usual: Backend | None = None) -> Backend:
        """Return the backend for a command that supports both.

        The order is: the option, the setting, the command's ``usual`` backend if it has one, and
        then the database for ``local`` and the API for other targets, or the database if only its
        address is known.
        """
        if given is not None:
            return given
        chosen = self.config.value("via")
        if chosen is not None:
            return Backend(chosen)
        if usual is not None:
            return usual
        only_database = self.target.database_url is not None and self.target.api_url is None
        return Backend.DB if self.target.name == "local" or only_database else Backend.API

    def announce(self, backend: Backend) -> None:
        """Show the target and the backend if standard error is a terminal."""
        if self.out.err.isatty():
            if self.target.warning:
                self.out.warn(self.target.warning)
            self.out.info(self.describe_target(backend))
        else:
            self.out.detail(self.describe_target(backend))

    def describe_target(self, backend: Backend) -> str:
        """Return the target and backend for banners and prompts: ``Target: prod (API)``."""
        name = "database" if backend is Backend.DB else "API"
        return f"Target: {self.target.title} ({name})"

    def backend(self, given: Backend | None, usual: Backend | None = None) -> Backend:
        """Return the backend for a command that supports both, and show it on a terminal."""
        backend = self.choose_backend(given, usual)
        self.announce(backend)
        return backend

    @property
    def given_api(self) -> str | None:
        """Return the API address given for this run, or None for the target's own."""
        given = self.target.api_url if self.config.value("api") else None
        # One with a password is refused where it is used, and must not appear in suggestions.
        return None if given and "@" in given else given

    def command(self, *words: str) -> str:
        """Return a command line for this target, including the options it needs."""
        account = self.config.setting("account")
        given = account.value if account.source.startswith("flag") else None
        return command_for(self.target.label, *words, api=self.given_api, account=given)

    @cached_property
    def access(self) -> ApiAccess:
        """Return the access to the target's API, including the sign-in."""
        from aspencli.cli.access import ApiAccess

        return ApiAccess(
            self._with_laptop(self.target),
            self.config,
            self.out,
            debug=bool(self.options["debug"]),
            exits=self._exits,
            broken=self._broken_samples,
        )

    @property
    def acting_account(self) -> ActingAccount | None:
        """Return the account whose sign-in the API requests of this command carry.

        None if there is none, or it is not known. It is cheap and raises no error; see
        `ApiAccess.acting_account`.
        """
        try:
            return self.access.acting_account()
        except AspenError:  # the target itself is not usable, which the command reports
            return None

    def _broken_samples(self, ids: Sequence[int] | None) -> list[str]:
        """Describe samples that make the live service fail; empty if no database is known."""
        if not (self.target.database_url or self.is_on_laptop):
            return []  # reading a secret takes longer than this is worth
        from sqlalchemy.exc import SQLAlchemyError

        from aspen.database.settings import Limits
        from aspencli.reference.database import incomplete_samples

        try:
            database = self.database(limits=Limits(statement_ms=_LOOK_MS))
            with database.reading() as session:
                return incomplete_samples(session, ids)
        except (AspenError, SQLAlchemyError) as error:  # this only adds details to another error
            self.out.info(f"Could not look up the sample in the database: {_first(error)}")
            return []

    def api(self) -> Api:
        """Return the target's API client; its first request signs in if needed.

        Raises:
            UnreachableError: No API address is configured, or the local API is not running.
            CredentialsError: No sign-in settings are configured.
        """
        if self.target.name == "local" and not self.target.api_url:
            found = self._endpoints
            if not (found and found.runs("api", "identity")):
                self.laptop.check_api()
        return self.access.api

    @property
    def api_address(self) -> str | None:
        """Return the address of the target's API, or None if it is not known or has a password."""
        found = self._with_laptop(self.target).api_url
        return None if found and "@" in found else found

    @property
    def database_address(self) -> str | None:
        """Return the normalized address of the target's database, or None if it is not known.

        It is not looked up in a secret for this, which would take longer than it is worth.
        """
        if not (self.target.database_url or self.is_on_laptop):
            return None
        from aspencli.addresses import database_address

        try:
            return str(database_address(self.database_url()))
        except AspenError:
            return None

    def _with_laptop(self, target: Target) -> Target:
        """Return the target; unset values of `local` come from the deployment on this machine."""
        if target.name != "local":
            return target
        found = self._endpoints
        if found is None and files.data_dir().is_dir():  # else no version ever started one
            found = self.laptop.endpoints()
        if found is None:
            return target
        return replace(
            target,
            api_url=target.api_url or found.api_url,
            auth_url=target.auth_url or found.auth_url,
            auth_client_id=target.auth_client_id or found.client_id,
        )

    @cached_property
    def _endpoints(self) -> Endpoints | None:
        """Return the addresses of the deployment on this machine, if it ever started."""
        return read_endpoints(files.data_dir())

    @cached_property
    def laptop(self) -> Laptop:
        """Return the deployment on this machine, to change it or to explain why it does not run."""
        from aspen.local.deployment import Laptop

        return Laptop()

    @property
    def is_on_laptop(self) -> bool:
        """Return True if the target's database belongs to the deployment on this machine."""
        return self.target.name == "local" and not self.target.database_url

    def require_laptop(self, database: Database, what: str) -> None:
        """Check that the deployment on this machine created a database; close its connections.

        Raises:
            RefusedError: It was not, or its origin cannot be determined.
        """
        identity = database.identity()
        database.dispose()
        if not self.laptop.owns(identity.system):
            raise RefusedError(
                f"Cannot {what}: {database.display_url} was not created by the local deployment "
                "on this machine; nothing was written.",
                hint=f"Unset {Config.database_variable('local')}, remove database_url under "
                f"[targets.local] in {self.config.path}, then run: aspencli local up",
            )

    def database(
        self,
        *,
        writable: bool = False,
        limits: Limits | None = None,
        admin: bool = False,
        guard: Guard | None = None,
        early: bool = False,
    ) -> Database:
        """Return the target's database, which connects on first use.

        With ``early`` it begins to connect now, in the background, for a command that is about to
        read from it. Loading SQLAlchemy takes as long as connecting to a distant server, so call
        this first.

        With ``admin`` it connects as a role that can create and drop databases; on a target with an
        address, as the user in the address. ``guard`` has the restrictions for code that is not
        ours.

        Raises:
            UnreachableError: No database address is configured.
        """
        if self._is_behind_secret:
            self.aws.begin_reading_secret(self._exits)
            import aspen.database.engine  # noqa: F401 - takes as long as reading the secret
        address = self.database_url(writable=writable, admin=admin)
        policy = self.policy(writable=writable, limits=limits, guard=guard)
        opening = self._begin_connecting(address, policy) if early else None
        from aspen.database.engine import LOG, Database
        from aspencli.cli.output.console import relayed

        self.writes_database |= writable
        if self.out.meter:
            self.out.meter.watch_databases(self.out.detail)
            self._exits.callback(self.out.meter.stop)
        database = Database(address, policy=policy, route=self.route, early=opening)
        self._exits.callback(database.dispose)
        self.recognize(writable=writable, reading=None if writable else database)
        if not self._relays_commits:
            self._relays_commits = True
            self._exits.enter_context(relayed(LOG, self.out))
        return database

    def libpq_parameters(self, address: str) -> dict[str, str]:
        """Return libpq's parameters for an address of the target's, with the way to its server.

        Raises:
            BadInputError: It is not a valid address.
        """
        from aspencli.admin.psql import read_address

        return self._routed(read_address(address))

    def _routed(self, parameters: dict[str, str]) -> dict[str, str]:
        if (route := self.route) is not None:
            parameters |= {name: str(value) for name, value in route.libpq.items()}
        return parameters

    def _begin_connecting(self, address: str, policy: SessionPolicy) -> EarlyConnection | None:
        from aspen.database.driver import EarlyConnection, libpq_parameters

        try:
            parameters = self._routed(libpq_parameters(address))
        except settings.InvalidDatabaseUrlError:
            return None  # the database itself says what is wrong
        opening = EarlyConnection(policy, settings.connection_parameters(policy, parameters))
        self._exits.callback(opening.close)
        return opening

    def policy(
        self, *, writable: bool = False, limits: Limits | None = None, guard: Guard | None = None
    ) -> SessionPolicy:
        """Return the policy for database sessions of this run; see `database`."""
        from aspen.database.settings import Guard, Limits, Overrides, SessionPolicy, cut_name

        return SessionPolicy(
            application_name=cut_name(self.session_name(writable=writable)),
            limits=limits or Limits(),
            writable=writable,
            overrides=Overrides(
                read_only=bool(self.options["override_read_only"]),
                timeouts=bool(self.options["override_timeouts"]),
            ),
            guard=guard or Guard.NONE,
            role=self.target.read_only_role,
        )

    def session_name(self, *, writable: bool) -> str:
        """Return the name of a session in activity views and in the server's log.

        That of a writing session leads to its run in the history. The ID comes before the target
        and the user, because PostgreSQL cuts the name after 63 bytes.
        """
        run = f" {self.run_id}" if writable else ""
        return f"aspencli/{__version__}{run} {self.target.label} {_user()}"

    @cached_property
    def aws(self) -> Aws:
        """Return the AWS account that the target is deployed in."""
        from aspencli.deployments.aws import Aws

        return Aws(self.target, interactive=self.out.interactive)

    @cached_property
    def storage(self) -> Aws:
        """Return the AWS account with the target's bucket.

        For the deployment on this machine, it is that of the emulator, which has no other use here.

        Raises:
            UnreachableError: The emulator on this machine is not running.
        """
        if not self.is_on_laptop or self.target.secret_name:
            return self.aws
        from aspencli.deployments.emulator import emulated

        return emulated(self.target, self._endpoints)

    @property
    def uses_aws(self) -> bool:
        """Return True if the target's AWS credentials are in use."""
        return "aws" in vars(self) and self.aws.is_used

    @cached_property
    def management_credentials(self) -> Credentials:
        """Return the credentials for the identity provider; incomplete if there are none.

        Raises:
            AspenError: The secret cannot be read, or the local deployment is not running.
        """
        from aspencli.deployments.identity import management_credentials

        found = management_credentials(self.target, self.aws)
        if self.is_on_laptop and not found.are_complete:
            return self.laptop.management_credentials()
        return found

    @property
    def management_source(self) -> str | None:
        """Return where the credentials for the identity provider come from, or None.

        Nothing is read for this, so a secret may still lack them.
        """
        from aspencli.deployments.identity import management_source

        is_local = self.target.name == "local"
        return management_source(self.target) or (LOCAL_DEPLOYMENT if is_local else None)

    @cached_property
    def identity(self) -> IdentityProvider | None:
        """Return the target's identity provider, or None without credentials for it.

        Raises:
            AspenError: The secret cannot be read, or the local deployment is not running.
        """
        if not self.management_credentials.are_complete:
            return None
        from aspencli.remote.identity import IdentityProvider

        return IdentityProvider(self.management_credentials)

    @cached_property
    def deployed_database(self) -> DeploymentDatabase:
        """Return the database of a target that is not the deployment on this machine."""
        from aspencli.deployments.database import DeploymentDatabase

        return DeploymentDatabase(
            self.target,
            lambda: self.aws,
            interactive=self.out.interactive,
            warn=self.out.warn,
            say=self.out.info,
            exits=self._exits,
        )

    @property
    def route(self) -> Route | None:
        """Return the way to the target's database; None for the deployment on this machine."""
        return None if self.is_on_laptop else self.deployed_database.route

    def recognize(self, *, writable: bool = True, reading: Database | None = None) -> None:
        """Check whether the target's database is a production database, whatever its address.

        A database seen before on a production target is recognized by its identity, even through a
        tunnel or a pooler; from then on, that target's safety level applies.

        Unless the command may write, a production database already recorded under its address is
        not checked again. With ``reading``, the database that the command is about to read, no
        other connection is opened; without it, nothing changes if the database cannot be reached:
        the command itself fails later.

        Raises:
            AspenError: No database address is configured.
            DBAPIError: The database to read cannot be reached.
        """
        if self._has_recognized or self.is_on_laptop:
            return
        self._has_recognized = True
        from aspencli.deployments.database import ProductionDatabases

        known = ProductionDatabases()
        recorded = known.all()
        if not (self.target.is_production or recorded):
            return
        from sqlalchemy.exc import DBAPIError

        from aspen.database.engine import Database
        from aspen.database.errors import NotAllowedError, StandbyError
        from aspen.database.settings import Limits, Overrides

        policy = self.policy(limits=Limits(statement_ms=5_000, connect_s=5))
        # It only reads, but read-only mode is not available everywhere. Production must also be
        # recognized where sessions are read-only by default.
        policy = replace(policy, writable=True, overrides=Overrides(read_only=True))
        database = reading or Database(self.database_url(), policy=policy, route=self.route)
        addresses = {entry["address"] for entry in recorded.values()}
        if self.target.is_production and not writable and database.display_url in addresses:
            return
        try:
            identity = database.identity()
        except (DBAPIError, NotAllowedError, StandbyError):
            if reading is not None:
                raise
            return
        finally:
            if reading is None:
                database.dispose()  # a pooler may allow only one connection
        if self.target.is_production:
            known.record(self.target.confirmed_by, database.display_url, identity)
        elif label := known.label_of(identity):
            self.__dict__["target"] = replace(
                self.target, safety=Safety.PRODUCTION, belongs_to=label
            )

    def database_url(self, *, writable: bool = False, admin: bool = False) -> str:
        """Return the address of the target's database, including its password; see `database`.

        Raises:
            AspenError: It is not known, or the local database is not running.
        """
        if self.is_on_laptop:
            found = self._endpoints
            if found and found.has_running_database:
                # Settings meant for other servers would break connections to this one.
                clear_environment(settings.MISLEADING | settings.CONNECTION)
                return found.admin if admin else found.database
            return self.laptop.database_url(admin=admin)
        if not self.knows_database:
            raise BadInputError(
                f"No database is configured for {self.target.label}.",
                hint=f"Set {Config.database_variable(self.target.name)}, or database_url or "
                f"secret_name under [targets.{self.target.name}] in {self.config.path}.",
            )
        from aspencli.deployments.database import Access

        access = Access.ADMIN if admin else Access.WRITE if writable else Access.READ
        return self.deployed_database.address(access)

    @property
    def _is_behind_secret(self) -> bool:
        """Return True if the database's address has to be read from a secret."""
        target = self.target
        return not (target.database_url or self.is_on_laptop) and target.secret_name is not None

    @property
    def knows_database(self) -> bool:
        """Return True if the database's address is configured, or can be found."""
        target = self.target
        return bool(target.database_url or target.secret_name) or self.is_on_laptop


def current(ctx: typer.Context) -> AppContext:
    """Return the application context of a command."""
    app = ctx.find_root().obj
    assert isinstance(app, AppContext)  # noqa: S101 - run() sets it
    return app


def _first(error: Exception) -> str:
    message = error.message if isinstance(error, AspenError) else str(error)
    return message.partition("\n")[0]


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
