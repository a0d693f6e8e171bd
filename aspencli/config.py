"""The deployments that can be administered, and settings: flag, environment, config file, default.

A target has the strictest safety level of all targets at its addresses.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from aspencli import files
from aspencli.errors import BadInputError

CONFIG_VARIABLE = "ASPEN_CONFIG"
OUTPUT_FORMATS = ("table", "json", "jsonl", "csv", "tsv")


class Safety(Enum):
    """The safety level of a target, which determines how writes are confirmed."""

    LOCAL = "local"
    """A personal deployment; writes are confirmed with ``--yes`` or at the prompt."""
    SHARED = "shared"
    """A deployment used by colleagues; confirmed the same way, shown in another color."""
    PRODUCTION = "production"
    """Public health laboratories depend on it; its name must be given or typed."""


@dataclass(frozen=True)
class Target:
    """One deployment. An attribute is None if it is not known, or does not apply."""

    name: str
    safety: Safety
    stack: str | None = None  # of a remote development environment
    api_url: str | None = None  # without a trailing slash
    auth_url: str | None = None  # its OpenID issuer, such as https://x.auth0.com
    auth_client_id: str | None = None  # the client whose tokens its API accepts
    auth_audience: str | None = None  # requested for the access token; usually None
    database_url: str | None = None  # may contain a password, so it is left out of repr
    # How its database is found without an address: through a secret in AWS Secrets Manager.
    secret_name: str | None = None
    aws_profile: str | None = None  # the one that can read that secret
    aws_region: str | None = None
    aws_endpoint_url: str | None = None  # of AWS itself; None for the usual one
    database_name: str | None = None
    # How its server is reached: one of `WAYS`, and what that way needs.
    way: str | None = None
    bastion: str | None = None  # a host that ssh knows; by default the secret's
    ssm_target: str | None = None  # an EC2 instance or an ECS task
    tunnel_command: str | None = None  # with {host}, {port}, and {local_port}
    ca_file: str | None = None  # certificates that the server's must be signed by
    read_only_role: str | None = None  # the role that reading sessions switch to
    iam_user: str | None = None  # the database user of reading sessions, with an IAM token
    # The bucket of the audit trail, perhaps with a prefix for keys; by default the secret's, and
    # none at all if it is `NO_BUCKET`.
    audit_bucket: str | None = None
    # The label of a stricter target at the same address, whose safety level therefore applies.
    belongs_to: str | None = None
    # Where each of these comes from, by name; those that are not set have none.
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        return f"Target({self.label!r}, {self.safety.value})"

    @property
    def label(self) -> str:
        """Return the name, with the stack if there is one: ``rdev/mystack``."""
        return f"{self.name}/{self.stack}" if self.stack else self.name

    @property
    def is_production(self) -> bool:
        """Return True if writes have to be confirmed by the target's name."""
        return self.safety is Safety.PRODUCTION

    @property
    def confirmed_by(self) -> str:
        """Return the name that confirms a write: that of the target that owns the address."""
        return self.belongs_to or self.label

    @property
    def title(self) -> str:
        """Return the target's name for prompts and banners: ``prod (as local)``."""
        return f"{self.belongs_to} (as {self.label})" if self.belongs_to else self.label

    @property
    def warning(self) -> str | None:
        """Return a warning if the address belongs to another target, or None."""
        if self.belongs_to is None:
            return None
        treated = "production" if self.is_production else f"{self.safety.value} target"
        return (
            f"Target: {self.label}, but this address belongs to {self.belongs_to}. "
            f"Treated as {'' if self.is_production else 'a '}{treated}."
        )


STRICTNESS = (Safety.LOCAL, Safety.SHARED, Safety.PRODUCTION)
"""The safety levels, from least to most strict."""
NO_BUCKET = "none"
"""The audit bucket of a target whose writes are recorded on this machine only."""
WAYS = ("direct", "ssh", "ssm", "command")
"""The ways to reach a database server; see `aspencli.deployments.tunnel`."""


def _deployed(name: str, safety: Safety, stage: str, **more: Any) -> Target:
    return Target(
        name,
        safety,
        secret_name=f"{stage}/genepi-config",
        aws_region="us-west-2",
        **{"database_name": "aspen_db", "aws_profile": "genepi-dev", **more},
    )


# The client IDs are those of the device flow, which are public.
BUILT_IN: dict[str, Target] = {
    "local": Target("local", Safety.LOCAL),
    "rdev": _deployed(
        "rdev",
        Safety.SHARED,
        "dev",
        api_url="https://{stack}-backend.dev.czgenepi.org",
        auth_url="https://czgenepi-rdev.us.auth0.com",
        auth_client_id="nMAEvqOwOcBkZIGzKxjL40ve2kO83DlC",
        database_name="{stack}",
    ),
    "staging": _deployed(
        "staging",
        Safety.SHARED,
        "gestaging",
        api_url="https://api.staging.czgenepi.org",
        auth_url="https://covidtracker-staging.auth0.com",
        auth_client_id="YIKBzdeiwgSoMZ88Fo1F65Ebd16Rj5mP",
    ),
    "prod": _deployed(
        "prod",
        Safety.PRODUCTION,
        "geprod",
        api_url="https://api.czgenepi.org",
        auth_url="https://covidtracker.us.auth0.com",
        auth_client_id="PAl0i5pE2rfNS184du02LpAHK5lDhcE2",
        aws_profile="genepi-prod",
    ),
}
"""The four targets that every installation has, named as in the service's own Makefile."""


@dataclass(frozen=True)
class Known:
    """A target with all of its known addresses."""

    target: Target
    apis: tuple[str, ...]
    databases: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A value and its source."""

    value: str | None
    source: str

    @property
    def place(self) -> str:
        """Return the source without its kind: ``--env``, ``ASPEN_ENV``, or the config file."""
        return self.source.partition(" ")[2]

    def label(self, name: str) -> str:
        """Return what the operator has set: an option, a variable, or a key of the config file."""
        return f"{name} in {self.place}" if self.source.startswith("config") else self.place


@dataclass(frozen=True)
class ConfigKey:
    """The definition of a setting."""

    name: str  # in the config file's [defaults] and on the command line
    variables: tuple[str, ...]  # of the environment; the first one found wins
    default: str | None = None
    choices: tuple[str, ...] = ()  # empty if any value is allowed
    is_kept: bool = True  # False if it cannot be set in the config file

    @property
    def flag(self) -> str:
        """Return the command-line option for it."""
        return "--" + self.name.replace("_", "-")


KEYS = (
    ConfigKey("env", ("ASPEN_ENV",), "local"),
    ConfigKey("stack", ("ASPEN_STACK",)),
    ConfigKey("api", ("ASPEN_API",)),
    # Without it, the active account is used, which `auth switch` chooses for each target.
    ConfigKey("account", ("ASPEN_ACCOUNT",), is_kept=False),
    ConfigKey("org", ("CZGE_ORG",)),
    ConfigKey("pathogen_slug", ("CZGE_PATHOGEN",), "SC2"),
    ConfigKey("output", ("ASPEN_OUTPUT",), None, OUTPUT_FORMATS),
    ConfigKey("via", ("ASPEN_VIA",), None, ("db", "api")),
    # The production targets that assistants may read from; see `aspencli mcp --allow`.
    ConfigKey("mcp_allow", ()),
)
_SIGN_IN_KEYS = ("auth_url", "auth_client_id", "auth_audience")
TARGET_KEYS = (
    *("api_url", *_SIGN_IN_KEYS, "database_url", "secret_name", "aws_profile", "aws_region"),
    *("aws_endpoint_url", "database_name", "way", "bastion", "ssm_target", "tunnel_command"),
    *("ca_file", "read_only_role", "iam_user", "audit_bucket"),
)
"""The keys of a target in the config file, besides its safety."""
SECTIONS = ("defaults", "targets", "maps", "queries")
"""The sections of the config file."""
STACK = "{stack}"
"""The placeholder for the name of the stack."""
STACK_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
"""The names of stacks, which are labels of DNS names."""
_MOST_BYTES = 1_048_576
_NO_WORD = re.compile(r"\W")
# Characters that look like letters of the built-in names, most of them Cyrillic or Greek.
_LOOKS = str.maketrans(
    "\u0430\u0441\u0501\u0435\u0261\u0456\u04cf\u043e\u0440\u0433\u0455\u0442\u03bd\u0475"
    "\u03bf\u03c1\u03b1\u03b9\u03c4\u013101",
    "acdegiloprstvvopaitiol",
)


class Config:
    """The settings from the flags, the environment, and the config file."""

    def __init__(self, flags: Mapping[str, str | None], environ: Mapping[str, str] = os.environ):
        self._flags = flags
        self._environ = environ

    @cached_property
    def path(self) -> Path:
        """Return the path of the config file, which may not exist."""
        chosen = self._environ.get(CONFIG_VARIABLE)
        return files.expand(chosen) if chosen else files.config_dir() / "config.toml"

    @cached_property
    def document(self) -> dict[str, Any]:
        """Return the parsed and validated config file, or an empty dict if there is none.

        Raises:
            BadInputError: The file cannot be read, or contains an unknown key.
        """
        try:
            with self.path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            if self._environ.get(CONFIG_VARIABLE):  # its targets and safety levels would be missing
                raise BadInputError(
                    f"The config file {self.path} does not exist.",
                    hint=f"Fix {CONFIG_VARIABLE}, or unset it.",
                ) from None
            return {}
        except OSError as error:
            raise BadInputError(
                f"Cannot read the config file {self.path}: {error.strerror}",
                hint="Fix its permissions, or set ASPEN_CONFIG to another file.",
            ) from error
        if len(content) > _MOST_BYTES:  # a device such as /dev/zero never ends
            raise BadInputError(
                f"The config file {self.path} is larger than {_MOST_BYTES // 1024} KiB.",
                hint="Check ASPEN_CONFIG: this is probably not a config file.",
            )
        import tomllib  # imported only when there is a file to read

        try:
            document = tomllib.loads(content.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInputError(
                f"The config file {self.path} is not valid TOML: {error}",
                hint="Fix that line, or move the file out of the way.",
            ) from error
        self._check(document)
        return document

    def with_document(self, document: dict[str, Any]) -> Config:
        """Return the settings of a changed config file alone, after checking them.

        Raises:
            BadInputError: The file would contain an unknown key or an invalid value.
        """
        self._check(document)
        found = Config({}, {})
        found.__dict__.update(path=self.path, document=document)
        return found

    def setting(self, name: str) -> Setting:
        """Return the value of a key and its source.

        Raises:
            BadInputError: The value is not one of the key's choices.
        """
        key = next(key for key in KEYS if key.name == name)
        found = self._find(key)
        if key.choices and found.value is not None and found.value not in key.choices:
            raise BadInputError(
                f"Invalid value for {found.label(name)}: {found.value!r} "
                f"(choose {', '.join(key.choices)})"
            )
        return found

    def value(self, name: str) -> str | None:
        """Return the value of a key."""
        return self.setting(name).value

    @cached_property
    def targets(self) -> dict[str, Target]:
        """Return all targets by name: the built-in ones and those in the config file."""
        targets = dict(BUILT_IN)
        for name, table in self.document.get("targets", {}).items():
            targets[name] = self._merge(targets.get(name), name, table)
        return targets

    @cached_property
    def target(self) -> Target:
        """Return the selected target.

        Raises:
            BadInputError: It does not exist, needs a stack, or is production set as the default.
        """
        chosen = self.setting("env")
        target = self.targets.get(chosen.value or "")
        if target is None:
            near = _nearest(chosen.value or "", self.targets)
            raise BadInputError(
                f"Unknown target: {chosen.value!r} (from {chosen.place})",
                hint=(f"Did you mean {near}? " if near else "")
                + f"Targets: {', '.join(self.targets)}.",
            )
        if target.is_production and chosen.source.startswith("config"):
            raise BadInputError(
                f"{self.path} sets {target.name} as the default target.",
                hint="Production cannot be the default: remove that setting, and pass "
                f"--env {target.name} when you need it.",
            )
        return self._complete(target)

    def configured(self, name: str) -> Target:
        """Return a target with the values from all sources; it may still lack its stack."""
        return self._with_environment(self.targets[name])

    def _complete(self, target: Target) -> Target:
        stack = self.setting("stack")
        if target.name == "rdev":
            if not stack.value:
                raise BadInputError(
                    "Target rdev requires a stack.",
                    hint="Add --stack NAME (or set ASPEN_STACK).",
                )
            if not STACK_NAME.fullmatch(stack.value):
                raise BadInputError(
                    f"Invalid stack name: {stack.value!r} (from {stack.place})",
                    hint="A stack name has 1 to 63 letters, digits, and hyphens; it starts with a "
                    "letter and does not end with a hyphen. List the stacks: aspencli stacks list",
                )
            target = replace(target, stack=stack.value)
        elif stack.value and stack.source.startswith("flag"):
            raise BadInputError(
                f"--stack is valid only with --env rdev, not with {target.name}.",
                hint="Remove --stack, or add --env rdev.",
            )
        target = self._with_environment(target)
        given = self.setting("api")
        if given.value:
            target = _with_api(target, given.value, given.source)
        if target.way is not None and target.way not in WAYS:
            raise BadInputError(
                f"Invalid way to reach the database of {target.name}: {target.way!r} "
                f"({target.sources['way']})",
                hint=f"Choose one of: {', '.join(WAYS)}.",
            )
        # One entry covers all stacks.
        values = {key: getattr(target, key) for key in TARGET_KEYS}
        found: dict[str, Any] = {
            key: value.replace(STACK, target.stack or STACK)
            for key, value in values.items()
            if value is not None
        }
        if api := found.get("api_url"):
            found["api_url"] = api.rstrip("/") or None
        return replace(target, **found)

    def _with_environment(self, target: Target) -> Target:
        """Return a target with the values that environment variables set."""
        table = self.document.get("targets", {}).get(target.name, {})
        values: dict[str, Any] = {}
        sources = dict(target.sources)
        for key in TARGET_KEYS:
            variable = self.variable(key, target.name)
            if value := self._environ.get(variable):
                values[key], sources[key] = value, f"environment {variable}"
            elif key in table:
                sources[key] = f"config {self.path}"
            elif getattr(target, key):
                sources[key] = "built-in"
        if api := values.pop("api_url", None):
            target = _with_api(target, api, sources["api_url"])
        return replace(target, **values, sources={**sources, **target.sources})

    @property
    def known(self) -> list[Known]:
        """Return every target with its known addresses from all sources.

        A built-in address stays valid whatever the file says, and one in the file whatever the
        environment says.
        """
        found = []
        for name, target in self.targets.items():
            layers = (BUILT_IN.get(name), target, self._with_environment(target))
            for one in filter(None, layers):
                known = replace(one, safety=target.safety)
                found.append(Known(known, _given([one.api_url]), _given([one.database_url])))
        return found

    @property
    def safest_target(self) -> Target:
        """Return the selected target with the safety level that its addresses require."""
        return safest(self.target, self.known, self._environ)

    @staticmethod
    def variable(key: str, target: str) -> str:
        """Return the environment variable for a key of a target: ``ASPEN_AUTH_URL_STAGING``."""
        return f"ASPEN_{key}_{_NO_WORD.sub('_', target)}".upper()

    @classmethod
    def database_variable(cls, target: str) -> str:
        """Return the environment variable for a target's database address."""
        return cls.variable("database_url", target)

    def column_map(self, name: str) -> dict[str, str]:
        """Return a saved column mapping, from headers to columns.

        Raises:
            BadInputError: There is no mapping with that name.
        """
        maps: dict[str, dict[str, str]] = self.document.get("maps", {})
        if name not in maps:
            raise BadInputError(
                f"No column map named {name!r} in {self.path}",
                hint=f"Maps: {', '.join(maps)}." if maps else f"Add a [maps.{name}] section to it.",
            )
        return maps[name]

    def _find(self, key: ConfigKey) -> Setting:
        given = self._flags.get(key.name)
        if given is not None:
            return Setting(given, f"flag {key.flag}")
        for variable in key.variables:
            if self._environ.get(variable):
                return Setting(self._environ[variable], f"environment {variable}")
        defaults = self.document.get("defaults", {})
        if key.name in defaults:
            return Setting(str(defaults[key.name]), f"config {self.path}")
        return Setting(key.default, "default")

    def _check(self, document: dict[str, Any]) -> None:
        self._only(document, SECTIONS, "")
        kept = [key.name for key in KEYS if key.is_kept]
        self._only(self._table(document, "defaults"), kept, "defaults.")
        for name, table in self._table(document, "targets").items():
            if not isinstance(table, dict):
                raise BadInputError(
                    f"targets.{name} in {self.path} is not a table.",
                    hint=f"Write it as [targets.{name}], with its keys below.",
                )
            self._only(table, ("safety", *TARGET_KEYS), f"targets.{name}.")
        for name, table in self._table(document, "maps").items():
            if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
                raise BadInputError(
                    f"maps.{name} in {self.path} is not a table of headers and columns.",
                    hint=f"Write it as [maps.{name}], with lines below such as "
                    '"Lab ID" = "private_identifier".',
                )
        for name, sql in self._table(document, "queries").items():
            if not isinstance(sql, str):
                raise BadInputError(
                    f"queries.{name} in {self.path} is not a text.",
                    hint=f'Write it as: {name} = "SELECT ..."',
                )
        self._check_names(document.get("targets", {}))

    def _check_names(self, names: Iterable[str]) -> None:
        """Check that no target name can be mistaken for another."""
        seen = {name: name for name in BUILT_IN}
        for name in names:
            other = seen.setdefault(_skeleton(name), name)
            if other != name:
                raise BadInputError(
                    f"The target name {name!a} in {self.path} looks like {other!r}",
                    hint=f"Rename it, or move its keys to [targets.{other}].",
                )

    def _table(self, document: dict[str, Any], name: str) -> dict[str, Any]:
        table = document.get(name, {})
        if not isinstance(table, dict):
            raise BadInputError(
                f"{name} in {self.path} is not a table.", hint=f"Write it as [{name}]."
            )
        return table

    def _only(self, table: Mapping[str, Any], known: Any, prefix: str) -> None:
        for name, value in table.items():
            if name not in known:
                near = _nearest(name, known)
                raise BadInputError(
                    f"Unknown key in {self.path}: {prefix}{name}"
                    + (f" (did you mean {near}?)" if near else ""),
                    hint=f"Valid keys here: {', '.join(known)}.",
                )
            is_section = not prefix or prefix == "targets"
            if not is_section and (isinstance(value, bool) or not isinstance(value, (str, int))):
                raise BadInputError(
                    f"{prefix}{name} in {self.path} must be a string.", hint="Put it in quotes."
                )

    def _merge(self, base: Target | None, name: str, table: Mapping[str, Any]) -> Target:
        fields: dict[str, Any] = {
            key: str(value) for key, value in table.items() if key != "safety"
        }
        safety = self._safety(base, name, table.get("safety"))
        if base is None:
            return Target(name, safety, **fields)
        if api := fields.pop("api_url", None):
            base = _with_api(base, api, f"config {self.path}")
        return replace(base, safety=safety, **fields)

    def _safety(self, base: Target | None, name: str, word: object) -> Safety:
        if word is None:
            return base.safety if base else Safety.PRODUCTION
        try:
            safety = Safety(word)
        except ValueError:
            raise BadInputError(
                f"Invalid value for targets.{name}.safety in {self.path}: {word!r}",
                hint=f"Choose one of: {', '.join(s.value for s in Safety)}.",
            ) from None
        if base and STRICTNESS.index(safety) < STRICTNESS.index(base.safety):
            raise BadInputError(
                f"{self.path} lowers the safety of {name} from {base.safety.value} to {word}.",
                hint="It can only be raised. Give a deployment of your own another name.",
            )
        return safety


def setting_names(targets: Iterable[str]) -> list[str]:
    """Return the names that `config set` accepts, with those of the given targets."""
    names = [key.name for key in KEYS if key.is_kept]
    keys = ("safety", *TARGET_KEYS)
    return names + [f"targets.{target}.{key}" for target in targets for key in keys]


def setting_choices(key: str) -> Sequence[str]:
    """Return the values that a key of the config file accepts, if they are few and fixed."""
    fixed = {"way": WAYS, "safety": tuple(one.value for one in Safety)}
    return fixed.get(key) or next((one.choices for one in KEYS if one.name == key), ())


def _with_api(target: Target, api: str, source: str) -> Target:
    """Return a target with another API; the built-in sign-in is for the built-in API only."""
    own = BUILT_IN.get(target.name)
    if own is not None and own.api_url != api:
        drops = [key for key in _SIGN_IN_KEYS if getattr(target, key) == getattr(own, key)]
        none: dict[str, Any] = dict.fromkeys(drops)
        target = replace(target, **none)
    return replace(target, api_url=api, sources={**target.sources, "api_url": source})


def safest(target: Target, known: Iterable[Known], environ: Mapping[str, str]) -> Target:
    """Return the target with the strictest safety level of all targets at its addresses."""
    if not (target.api_url or target.database_url):
        return target
    from aspencli.addresses import Addresses, look_up

    stricter = [one for one in known if _rank(one.target) > _rank(target)]
    stricter.sort(key=lambda one: _rank(one.target), reverse=True)
    apis, databases = filter(None, [target.api_url]), filter(None, [target.database_url])
    mine = Addresses(apis, databases, environ)
    if not (stricter and (mine.apis or mine.databases)):
        return target
    theirs = [(one.target, Addresses(one.apis, one.databases, environ)) for one in stricter]

    def owner(found: Mapping[str, frozenset[str]], *, local: bool) -> Target | None:
        met = (other for other, each in theirs if mine.meets(each, found, local=local))
        return next(met, None)

    other = owner({}, local=True)  # without DNS lookups
    if other is None:
        found = look_up(mine.hosts.union(*(addresses.hosts for _, addresses in theirs)))
        other = owner(found, local=target.safety is Safety.LOCAL)
    return replace(target, safety=other.safety, belongs_to=other.label) if other else target


def _rank(target: Target) -> int:
    return STRICTNESS.index(target.safety)


def _skeleton(name: str) -> str:
    """Return how a name looks: without letter case, spaces, or invisible characters."""
    from unicodedata import category, normalize

    text = normalize("NFKC", name).casefold()
    seen = "".join(character for character in text if category(character)[0] not in "ZCM")
    return seen.translate(_LOOKS)


def _given(addresses: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(address for address in addresses if address)


def _nearest(name: str, known: Any) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), n=1)), None)


def given_format(words: Sequence[str]) -> str | None:
    """Return the output format that a command line asks for, even if it cannot be parsed."""
    found: str | None = None
    for number, word in enumerate(words):
        if word == "--":
            break
        name, joined, value = word.partition("=")
        if word in {"-o", "--output"}:
            found = words[number + 1] if number + 1 < len(words) else None
        elif word.startswith("-o"):
            found = word[2:]
        elif name == "--output" and joined:
            found = value
    return found or None


def command_for(
    target: str, *words: str, api: str | None = None, account: str | None = None
) -> str:
    """Return an aspencli command line for a target, with the API and account that were given."""
    name, _, stack = target.partition("/")
    place = ["--env", name, *(["--stack", stack] if stack else [])]
    place += ["--api", api] if api else []
    place += ["--account", account] if account else []
    return shlex.join(["aspencli", *place, *words])
