"""The AWS account of a deployment: who we are in it, its secret, and its list of stacks.

Every call has a time limit, and no secret is stored or logged. boto3 takes 0.2 s to import, so it
is imported only when a value from AWS is needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from aspencli.config import BUILT_IN, Target
from aspencli.errors import (
    AspenError,
    BadInputError,
    CredentialsError,
    NotFoundError,
    UnreachableError,
)
from aspencli.text import visible

if TYPE_CHECKING:
    import boto3
    from botocore.session import Session as CoreSession

    from aspencli.deployments.secret_process import SecretProcess

T = TypeVar("T")
_CONNECT_S, _READ_S, _ATTEMPTS = 2, 3, 2  # together, at most 10 s
_PATIENCE_S = 10.0  # for credentials, which may wait for a browser
_CONNECTIONS = 16  # of one client
STACK_LISTS = ("/happy/genepi/rdev/stacklist", "/happy/rdev/stacklist")
"""The parameters with the names of all stacks; the first that exists counts (happy)."""
# Variables that give botocore credentials without a profile.
_GIVEN = (
    *("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)
_SIGNED_OUT, _NO_CREDENTIALS, _NO_ANSWER = "signed out", "no credentials", "no answer"
# A HEAD request has no body, so its code is the status.
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"})
_MISSING = frozenset(
    {"ResourceNotFoundException", "ParameterNotFound", "TargetNotConnected", "NoSuchBucket"}
)
_SIGN_IN = "Sign in: {login}"


class _Meaning(NamedTuple):
    codes: frozenset[str]
    kind: type[AspenError]
    message: str  # what follows "Could not ...: "
    hint: str


_MEANINGS = (
    _Meaning(
        frozenset({_SIGNED_OUT, "ExpiredToken", "ExpiredTokenException", "RequestExpired"}),
        CredentialsError,
        "the AWS sign-in of {who} has expired or is missing.",
        _SIGN_IN,
    ),
    _Meaning(
        frozenset({_NO_CREDENTIALS}),
        CredentialsError,
        "{who} has no AWS credentials.",
        _SIGN_IN,
    ),
    _Meaning(
        frozenset(
            {
                *("UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch"),
                *("InvalidSignatureException", "AuthFailure", "IncompleteSignature"),
                *("InvalidAccessKeyId", "InvalidToken"),
            }
        ),
        CredentialsError,
        "AWS does not accept the credentials of {who} ({code}).",
        "Sign in again: {login}",
    ),
    _Meaning(
        _DENIED,
        CredentialsError,
        "AWS denied it to {who}.",
        "Ask the account's administrator for access, or set aws_profile to a profile that has it. "
        "To see who you are: {check}",
    ),
    _Meaning(
        _MISSING,
        NotFoundError,
        "it does not exist in region {region}.",
        "Check secret_name, aws_profile, and aws_region: {show}",
    ),
    _Meaning(
        frozenset(
            {
                *("Throttling", "ThrottlingException", "ThrottledException", "SlowDown"),
                *("TooManyRequestsException", "RequestLimitExceeded", "ServiceUnavailable"),
                *("InternalServiceError", "InternalServerError"),
            }
        ),
        UnreachableError,
        "AWS is limiting requests, or is overloaded ({code}).",
        "Try again in a minute.",
    ),
    _Meaning(
        frozenset({_NO_ANSWER}),
        UnreachableError,
        "AWS does not answer.",
        "Check your network, VPN, and proxy settings.",
    ),
)
_OTHERWISE = _Meaning(
    frozenset(),
    BadInputError,
    "{said}.",
    "Check the AWS configuration files (~/.aws/config and ~/.aws/credentials).",
)


@dataclass(frozen=True)
class Login:
    """A user name and password of a database."""

    user: str
    password: str = field(repr=False)


class Secret:
    """The contents of a deployment's secret.

    An empty value counts as absent, as in the service.

    Args:
        name: The secret's name, for messages.
        text: Its value.

    Raises:
        BadInputError: It is not a JSON object.
    """

    def __init__(self, name: str, text: str):
        self.name = name
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise BadInputError(
                f"The secret {name} is not a JSON object, so it cannot be used.",
                hint="Ask the deployment's owner to fix it. Its value was not shown or stored.",
            )
        self._values: Mapping[str, Any] = found

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"

    def get(self, key: str) -> str | None:
        """Return a value, or None if it is absent or empty."""
        value = self._values.get(key)
        return str(value) if value else None

    def require(self, key: str) -> str:
        """Return a value.

        Raises:
            BadInputError: It is absent or empty.
        """
        value = self.get(key)
        if value is None:
            raise BadInputError(
                f"The secret {self.name} has no value for {key}.",
                hint="Ask the deployment's owner to add it, or set the target's database_url.",
            )
        return value

    def login(self, kind: str) -> Login | None:
        """Return the login of a kind (``ro``, ``rw`` or ``admin``), or None if there is none."""
        user, password = self.get(f"DB_{kind}_username"), self.get(f"DB_{kind}_password")
        return Login(user, password) if user and password else None


class Aws:
    """The AWS account that a target is deployed in.

    Args:
        target: The target, with all settings resolved.
        interactive: True if there is a terminal, so that credentials may wait for the operator.
        core: A session of botocore to use; its profile and region do not matter.
        read_s: The number of seconds to wait for the next piece of a response.
    """

    def __init__(
        self,
        target: Target,
        *,
        interactive: bool,
        core: CoreSession | None = None,
        read_s: float = _READ_S,
    ):
        self._target = target
        self._read_s = read_s
        self._interactive = interactive
        self._core = core
        self._started: list[subprocess.Popen[bytes]] = []
        self._clients: dict[str, Any] = {}
        self._reading: SecretProcess | None = None

    def begin_reading_secret(self, exits: ExitStack) -> None:
        """Begin to read the secret in a process of its own, which `exits` ends."""
        if self._reading is None and "secret" not in self.__dict__:
            from aspencli.deployments.secret_process import secret_process

            self._reading = secret_process()
            exits.callback(self._reading.close)
            self._reading.ask(self._target, interactive=self._interactive)

    @cached_property
    def secret(self) -> Secret:
        """Return the deployment's secret.

        Raises:
            AspenError: It cannot be read; the message names the reason.
        """
        text = self._reading.read() if self._reading is not None else None
        return Secret(str(self._target.secret_name), self.secret_text() if text is None else text)

    @property
    def is_used(self) -> bool:
        """Return True if anything was or is being read with the account's credentials."""
        found = vars(self)
        return self._reading is not None or "secret" in found or "session" in found

    def secret_text(self) -> str:
        """Return the text of the deployment's secret.

        Raises:
            AspenError: It cannot be read; the message names the reason.
        """
        name = self._target.secret_name
        if name is None:
            raise BadInputError(
                f"No secret is configured for {self._target.label}.",
                hint=f"Set secret_name or database_url under [targets.{self._target.name}].",
            )
        what = f"read the secret {name}"
        found = self._call(what, "secretsmanager", "get_secret_value", SecretId=name)
        text = found.get("SecretString")
        if not isinstance(text, str):
            raise BadInputError(
                f"The secret {name} holds binary data, so it cannot be used.",
                hint="Ask the deployment's owner to fix it.",
            )
        return text

    @cached_property
    def arn(self) -> str:
        """Return the ARN of the identity that calls are made as.

        Raises:
            AspenError: AWS does not answer, or there are no credentials.
        """
        return str(self._call("ask AWS who you are", "sts", "get_caller_identity")["Arn"])

    def stacks(self) -> list[str]:
        """Return the names of all stacks of remote development environments.

        Raises:
            NotFoundError: There is no list of stacks.
            BadInputError: The list is not a JSON array.
        """
        for name in STACK_LISTS:
            try:
                found = self._call("list the stacks", "ssm", "get_parameter", Name=name)
            except NotFoundError:
                continue
            try:
                names = json.loads(found["Parameter"]["Value"])
            except ValueError:
                names = None
            if not isinstance(names, list):
                raise BadInputError(
                    f"The parameter {name} is not a JSON array, so the stacks are not known.",
                    hint="Ask the deployment's owner to fix it.",
                )
            return sorted(map(str, names))
        raise NotFoundError(
            f"There is no list of stacks: neither {' nor '.join(STACK_LISTS)} exists.",
            hint=f"Check the account and region: aspencli --env {self._target.name} target check",
        )

    def database_token(self, host: str, port: int, user: str) -> str:
        """Return a token that a database user can sign in with for 15 minutes.

        It is signed on this machine (RDS, "IAM database authentication").
        """
        names = {"DBHostname": host, "Port": port, "DBUsername": user}
        what = f"create a sign-in token for database user {user}"
        token: str = self._call(what, "rds", "generate_db_auth_token", **names)
        return token

    def start_session(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Start a session of Session Manager, and return AWS's answer, whose token is secret."""
        what = f"start a session on {parameters['Target']}"
        session: Mapping[str, Any] = self._call(what, "ssm", "start_session", **parameters)
        return session

    @property
    def profile(self) -> str | None:
        """Return the profile that is used, or None for credentials from the environment."""
        return self.session.profile_name if self._uses_profile else None

    @cached_property
    def session(self) -> boto3.Session:
        """Return the session of this run.

        Raises:
            CredentialsError: The profile does not exist.
        """
        import boto3
        from botocore.exceptions import BotoCoreError, ProfileNotFound

        profile = None
        try:
            profile = self._target.aws_profile if self._uses_profile else None
            names = {"profile_name": profile, "region_name": self._target.aws_region}
            found = boto3.Session(**names, botocore_session=self._core)
        except ProfileNotFound:
            raise CredentialsError(
                f"AWS profile {profile} for {self._target.label} was not found.",
                hint=f"Create it (aws configure sso --profile {profile}), or set aws_profile under "
                f"[targets.{self._target.name}] in the config file to one that exists.",
            ) from None
        except BotoCoreError as error:  # such as a config file that cannot be parsed
            raise self._explained(error, "read the AWS configuration") from error
        self._watch(found)
        return found

    @cached_property
    def _uses_profile(self) -> bool:
        """Return False if the built-in profile does not exist, but credentials are given."""
        wanted = self._target.aws_profile
        own = BUILT_IN.get(self._target.name)
        if wanted is None or own is None or wanted != own.aws_profile:
            return wanted is not None
        if not any(map(os.environ.get, _GIVEN)):
            return True
        from botocore.session import Session

        return wanted in Session().available_profiles

    def _watch(self, session: boto3.Session) -> None:
        """Keep track of programs that give credentials, to be able to stop one that hangs."""
        from botocore.exceptions import UnknownCredentialError

        resolver = session._session.get_component("credential_provider")  # noqa: SLF001 - boto3 has no other way
        # These are not public; without them, such a program only outlives a time limit.
        with suppress(AttributeError, UnknownCredentialError):
            provider = resolver.get_provider("custom-process")
            start = provider._popen  # noqa: SLF001 - same

            def popen(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
                process: subprocess.Popen[bytes] = start(*args, **options)
                self._started.append(process)
                return process

            provider._popen = popen  # noqa: SLF001 - same

    def _call(self, what: str, service: str, method: str, **parameters: Any) -> Any:
        return self.use(what, service, lambda client: getattr(client, method)(**parameters))

    def use(self, what: str, service: str, work: Callable[[Any], T]) -> T:
        """Return the result of calls to a service, given its client.

        Args:
            what: The purpose, as the rest of "Could not ...".
            service: The name of the service.
            work: Makes the calls.

        Raises:
            AspenError: A call failed; `code_of` returns AWS's code for it.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        session = self.session

        def call() -> T:
            from botocore.config import Config

            if service not in self._clients:
                self._clients[service] = session.client(
                    service,
                    endpoint_url=self._target.aws_endpoint_url,
                    config=Config(
                        connect_timeout=_CONNECT_S,
                        read_timeout=self._read_s,
                        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
                        max_pool_connections=_CONNECTIONS,
                    ),
                )
            return work(self._clients[service])

        try:
            if not self._interactive:
                self._await_credentials()
            return call()
        except (BotoCoreError, ClientError, ValueError) as error:
            raise self._explained(error, what) from error

    def _await_credentials(self) -> None:
        """Get credentials that calls can be made with, if there are any.

        The calls themselves may take long, such as the download of a large file, and have time
        limits of their own.

        Raises:
            CredentialsError: Credentials did not arrive in time.
            BotoCoreError: They could not be read.
        """
        session = self.session
        outcome: list[BaseException | None] = []

        def run() -> None:
            try:
                if (found := session.get_credentials()) is not None:
                    found.get_frozen_credentials()
                outcome.append(None)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                outcome.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(_PATIENCE_S)
        if not outcome:
            for process in self._started:
                with suppress(OSError):
                    process.kill()
            raise CredentialsError(
                f"AWS credentials of {self._named} did not arrive within {_PATIENCE_S:.0f} s.",
                hint=f"There is no terminal to wait for. Sign in first: {self._login}",
            )
        if outcome[0] is not None:
            raise outcome[0]

    @property
    def _named(self) -> str:
        return f"profile {self._target.aws_profile}" if self._uses_profile else "the environment"

    @property
    def _login(self) -> str:
        profile = self._target.aws_profile
        return f"aws sso login --profile {profile}" if profile else "aws sso login"

    def _explained(self, error: Exception, what: str) -> AspenError:
        """Return the error with a message for the operator: what failed, why, and what to do."""
        code, name = _code(error), self._target.name
        meaning = next((one for one in _MEANINGS if code in one.codes), _OTHERWISE)
        names = {
            "code": code,
            "who": self._named,
            "login": self._login,
            "region": self._target.aws_region,
            "check": f"aspencli --env {name} target check",
            "show": f"aspencli --env {name} config show",
            "said": visible(str(error)).partition(". ")[0].rstrip("."),
        }
        message = f"Could not {what}: {meaning.message.format(**names)}"
        return meaning.kind(message, hint=meaning.hint.format(**names))


def code_of(error: AspenError) -> str:
    """Return AWS's code for an error that `Aws.use` raised; empty if AWS did not answer."""
    from botocore.exceptions import ClientError

    return _code(error.__cause__) if isinstance(error.__cause__, ClientError) else ""


def _code(error: Exception) -> str:
    """Return AWS's error code, or the name of the class for an error of this machine."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    signed_out = (exceptions.SSOError, exceptions.TokenRetrievalError)
    kinds: tuple[tuple[str, Any], ...] = (
        (_SIGNED_OUT, (*signed_out, exceptions.CredentialRetrievalError)),
        (_NO_CREDENTIALS, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)),
        (_NO_ANSWER, (exceptions.HTTPClientError, exceptions.ConnectionError)),
    )
    return next((word for word, types in kinds if isinstance(error, types)), type(error).__name__)
