"""Explanations of database errors for operators."""

from __future__ import annotations

import re
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError, NoResultFound

from aspen.database import settings
from aspen.database.engine import refusal_state
from aspen.database.errors import NotAllowedError, StandbyError, TemporaryTablesDeniedError
from aspen.database.settings import InvalidDatabaseUrlError

PRIMARY_NEEDED = (
    "Connect to the primary: set the target's database_url to it, or list all hosts there and add "
    "target_session_attrs=read-write."
)


class _Rule(NamedTuple):
    code: int
    message: str
    hint: str


# Keyed by SQLSTATE, its prefix (PostgreSQL, appendix A), or a name of our own.
_STATES = {
    "08": _Rule(5, "The connection to the database was lost", "Try again."),
    "28": _Rule(4, "The database rejected this user", "Check the user and password."),
    "3D000": _Rule(
        6, "The database does not exist", "Check its name, or create it: aspencli db create"
    ),
    "3F000": _Rule(6, "The schema is missing", "Create it: aspencli db upgrade"),
    "42P01": _Rule(6, "A table is missing", "Upgrade the schema: aspencli db upgrade"),
    "42501": _Rule(4, "This database user does not have permission", "Use one that does."),
    "25006": _Rule(3, "This session is read-only; nothing was written", "To allow writes: --write"),
    "57014": _Rule(
        5,
        "The statement was canceled: it took too long, or someone canceled it",
        "Try again when the database is less busy.",
    ),
    "57P": _Rule(5, "The database is shutting down or restarting", "Try again in a moment."),
    "55P03": _Rule(
        7,
        "Another session holds a lock on the data to change; nothing was written",
        "Try again later, or find the session: aspencli db activity",
    ),
    "40": _Rule(7, "Conflict with another transaction; nothing was written", "Try again."),
    "23505": _Rule(7, "It already exists", "Choose another value."),
    "23": _Rule(7, "It violates a constraint of the database", "See the details."),
    "22P05": _Rule(
        2,
        "The database's encoding cannot store {}; nothing was written",
        "Replace it, or use a UTF-8 database: aspencli db create creates one.",
    ),
    "plain": _Rule(
        4,
        "The database does not accept unencrypted connections from here for this user",
        "If it requires TLS, add ?sslmode=require to its address. Otherwise ask its administrator "
        "to allow your host in pg_hba.conf.",
    ),
    "certificate": _Rule(
        5,
        "The database server's certificate was rejected",
        "Check sslrootcert, and that the host in the address matches the certificate.",
    ),
    "28000": _Rule(
        4,
        "The database server rejected this user",
        "The user may not exist, may lack LOGIN, or may not be allowed to connect from your host "
        "(pg_hba.conf). Check the user in the target's address, or ask the administrator.",
    ),
    "53300": _Rule(
        5,
        "The connection limit of the server, database, or user has been reached",
        "Try again later, or see who is connected: aspencli db activity --all",
    ),
    "53": _Rule(5, "The database is out of resources", "Try again later, or free some."),
}
# States that mean something else while a connection is being opened.
_REFUSALS = {
    "42501": _Rule(
        4,
        "This user is not allowed to connect to the database",
        "Ask its owner to run: GRANT CONNECT ON DATABASE … TO …",
    ),
    "55000": _Rule(
        5,
        "The database does not accept connections",
        "Its owner can allow them: ALTER DATABASE … ALLOW_CONNECTIONS true",
    ),
}
_OPENING = (
    (r"no pg_hba\.conf entry .*, (?:no encryption|SSL off)", "plain"),
    (r"certificate verify failed|certificate .* does not match host name", "certificate"),
    (r"password authentication failed|no password supplied|pg_hba|role .* does not exist", "28"),
    (r"database .* does not exist", "3D000"),
    (r"too many (clients|connections)|remaining connection slots", "53"),
    (r"starting up|shutting down|recovery mode", "57P"),
)
_UNTRANSLATABLE = "22P05"
_STATES_OF_SERVERS = frozenset({"28", "3D000", "53", "57P"})
_UNANSWERED = _Rule(5, "The database is not responding", "Check that it is running and reachable.")
# Errors that libpq itself reports about connection settings. They are always in English, because
# the driver's libpq is built without translations.
_SETTING = re.compile(
    r"^(?:connection to server .* failed: )?(?P<what>"
    r"(?:invalid (?:\S+ value|integer value|port number|connection option|\"\w+\" value)"
    r"|could not parse network address|could not match \d+ "
    r"|(?:definition of )?service |syntax error in service file|Unix-domain socket path .* too long"
    r"|weak sslmode|GSSAPI encryption required|authentication method requirement"
    r"|channel binding (?:is )?required|server does not support SSL"
    r"|root certificate file|could not (?:load|read|open) .*(?:certificate|key|CRL|crl) ?file"
    r"|certificate file|private key file|missing \"=\"|unterminated quoted string"
    r"|invalid (?:URI|dsn|percent)|forbidden value|unexpected (?:character|spaces)).*)",
    re.MULTILINE,
)


def explain_database(error: Exception) -> tuple[int, str, str | None, tuple[str, ...]] | None:
    """Return exit code, message, hint, and details, or None if it is not a database error."""
    own = _own_error(error)
    if own is not None:
        return own
    if isinstance(error, NoResultFound):
        return 6, "Not found", None, ()
    if not isinstance(error, DBAPIError):
        return None
    state = getattr(error.orig, "pgcode", None)
    text = str(error.orig).strip()
    rule = _by_state(state) if state else _of_connection(error, text)
    if rule is None:
        return None
    if state == _UNTRANSLATABLE:
        rule = rule._replace(message=rule.message.format(_character(text)))
    return rule.code, rule.message, rule.hint, tuple(line.strip() for line in text.splitlines()[:6])


def _own_error(error: Exception) -> tuple[int, str, str | None, tuple[str, ...]] | None:
    """Explain an error that the database layer itself raises, in the same form."""
    if isinstance(error, InvalidDatabaseUrlError):
        hint = "Fix database_url in the config file, or the variable that sets it."
        return 2, str(error), hint, ()
    if isinstance(error, StandbyError | NotAllowedError):
        return 3, str(error), getattr(error, "hint", PRIMARY_NEEDED), ()
    if isinstance(error, TemporaryTablesDeniedError):
        return 4, str(error), f"Ask the database's owner to run: {error.grant}", ()
    return None


def _character(text: str) -> str:
    """Return the character whose bytes appear in a message."""
    found = re.search(r"0x[0-9a-f]{2}(?: 0x[0-9a-f]{2})*", text)
    character = bytes.fromhex(found[0].replace("0x", "")).decode(errors="replace") if found else ""
    return f"{character} (U+{ord(character):04X})" if len(character) == 1 else "a character"


def _by_state(state: str) -> _Rule | None:
    for length in (5, 3, 2):
        if state[:length] in _STATES:
            return _STATES[state[:length]]
    return None


def _of_connection(error: DBAPIError, text: str) -> _Rule | None:
    """Return the rule for a connection that failed to open or was lost."""
    if setting := _SETTING.search(text):
        return _Rule(2, f"Invalid database connection setting: {setting['what']}", _where_set())
    state = refusal_state(error.orig)
    for pattern, meaning in _OPENING:
        # The English text is a fallback for the SQLSTATE, and says more only about encryption.
        if re.search(pattern, text) and (state is None or meaning not in _STATES_OF_SERVERS):
            return _STATES[meaning]
    if state and not state.startswith("08"):
        return _REFUSALS.get(state) or _by_state(state) or _UNANSWERED
    known = error.connection_invalidated or "connection" in text or state
    return _UNANSWERED if known or "could not translate host name" in text else None


def _where_set() -> str:
    names = settings.set_variables()
    stray = f", and these environment variables: {', '.join(names)}" if names else ""
    return f"Check the target's database address (aspencli config show){stray}."
