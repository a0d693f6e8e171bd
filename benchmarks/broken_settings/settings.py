"""Settings broken by accident: stray variables, typos, and damaged files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SECRET = "s3cr3t-horse"
"""The password in every broken address; it must never be shown."""

_CONFIGS = {
    "not TOML": "defaults = [",
    "an unknown section": '[dafaults]\noutput = "json"\n',
    "an unknown key": '[defaults]\noutptu = "json"\n',
    "a list for a value": '[defaults]\noutput = ["json"]\n',
    "a table for a value": "[defaults.output]\nkind = 1\n",
    "a table in a target": f'[targets.mine.api_url]\nx = "{SECRET}"\n',
    "a list of targets": "[[targets]]\nname = 'x'\n",
    "a target as text": 'targets = "prod"\n',
    "a wrong safety": '[targets.mine]\nsafety = "low"\n',
    "prod as default": '[defaults]\nenv = "prod"\n',
    "a date for a value": "[defaults]\nenv = 2024-01-01\n",
    "a number for a value": "[defaults]\norg = 1.5\n",
    "a NUL in a value": '[defaults]\nenv = "lo\\u0000cal"\n',
    "an address with a bare @": (
        f'[targets.local]\ndatabase_url = "postgresql://user:{SECRET}@{SECRET}@localhost/aspen_db"\n'
    ),
    "Latin-1 bytes": "[defaults]\nenv = 'caf\udce9'\n",
}
_DATABASE_URLS = {
    "port 99999": f"postgresql://user:{SECRET}@127.0.0.1:99999/aspen_db",
    "port abc": f"postgresql://user:{SECRET}@127.0.0.1:abc/aspen_db",
    "port 0": f"postgresql://user:{SECRET}@127.0.0.1:0/aspen_db",
    "a negative port": f"postgresql://user:{SECRET}@127.0.0.1:-1/aspen_db",
    "a bare @ in the password": f"postgresql://user:pa@{SECRET}@127.0.0.1:1/aspen_db",
    "a bare / in the password": f"postgresql://user:pa/{SECRET}@127.0.0.1:1/aspen_db",
    "a bare # in the password": f"postgresql://user:pa#{SECRET}@127.0.0.1:1/aspen_db",
    "a bare ? in the password": f"postgresql://user:pa?{SECRET}@127.0.0.1:1/aspen_db",
    "a bare % in the password": f"postgresql://user:%zz{SECRET}@127.0.0.1:1/aspen_db",
    "a bare [ in the password": f"postgresql://user:pa[{SECRET}@127.0.0.1:1/aspen_db",
    "another database's scheme": f"mysql://user:{SECRET}@127.0.0.1/aspen_db",
    "no scheme": f"user:{SECRET}@127.0.0.1/aspen_db",
    "a driver that is not installed": f"postgresql+pg8000://user:{SECRET}@127.0.0.1:1/aspen_db",
    "psql's own words": f"host=127.0.0.1 password={SECRET} port=1",
    "a wrong sslmode": f"postgresql://user:{SECRET}@127.0.0.1:1/aspen_db?sslmode=verify",
    "an unknown parameter": f"postgresql://user:{SECRET}@127.0.0.1:1/aspen_db?nonsense=1",
    "a parameter twice": f"postgresql://u:{SECRET}@127.0.0.1:1/d?sslmode=a&sslmode=b",
    "a wrong target_session_attrs": (
        f"postgresql://user:{SECRET}@127.0.0.1:1/aspen_db?target_session_attrs=writer"
    ),
    "a wrong connect_timeout": f"postgresql://u:{SECRET}@127.0.0.1:1/d?connect_timeout=soon",
    "a wrong hostaddr": f"postgresql://u:{SECRET}@h/d?hostaddr=localhost",
    "a missing certificate": (
        f"postgresql://u:{SECRET}@127.0.0.1:1/d?sslmode=verify-full&sslrootcert=/nonexistent/ca"
    ),
    "a missing socket": f"postgresql://user:{SECRET}@/aspen_db?host=/nonexistent",
    "a long socket path": f"postgresql://user:{SECRET}@/aspen_db?host=/{'x' * 200}",
    "an unknown host": f"postgresql://user:{SECRET}@no-such-host.invalid/aspen_db",
    "a NUL": f"postgresql://user:{SECRET}%00@127.0.0.1:1/aspen_db",
    "no database": f"postgresql://user:{SECRET}@127.0.0.1:1",
    "two hosts, one port": f"postgresql://user:{SECRET}@127.0.0.1:1,127.0.0.2/aspen_db",
    "a service": "postgresql://?service=nosuch",
    "nothing": " ",
}
_PROVIDERS = {
    "no address": ("nonsense", "id", SECRET),
    "an unknown host": ("no-such-host.invalid", "id", SECRET),
    "a port that refuses": ("http://127.0.0.1:1", "id", SECRET),
    "port 99999": ("http://127.0.0.1:99999", "id", SECRET),
    "a broken IPv6 address": ("http://[::1", "id", SECRET),
    "another scheme": ("ftp://127.0.0.1", "id", SECRET),
    "a control character": ("http://127.0.0.1:1/\x01", "id", SECRET),
    "a password in the address": (f"http://user:{SECRET}@127.0.0.1:1", "id", SECRET),
    "no secret": ("http://127.0.0.1:1", "id", ""),
    "blanks": (" ", " ", SECRET),
    "line breaks": ("127.0.0.1:1\n", "id\n", f"{SECRET}\n"),
}
_VARIABLES = (
    ("NO_PROXY", "[::1]"),
    ("NO_PROXY", "fe80::/10"),
    ("NO_PROXY", "::1/128,10.0.0.0/8,[fe80::1%eth0]"),
    ("NO_PROXY", "http://[::1]:80,*.example.org,,"),
    ("ALL_PROXY", "socks5://127.0.0.1:1"),
    ("ALL_PROXY", f"socks5h://user:{SECRET}@127.0.0.1:1"),
    ("HTTP_PROXY", "ftp://127.0.0.1:1"),
    ("HTTP_PROXY", f"http://user:{SECRET}@127.0.0.1:99999"),
    ("HTTPS_PROXY", "not a proxy"),
    ("http_proxy", "http://[::1"),
    ("SSL_CERT_FILE", "/nonexistent/ca.pem"),
    ("SSL_CERT_FILE", "/"),
    ("SSL_CERT_DIR", "/nonexistent"),
    ("SSLKEYLOGFILE", "/nonexistent/keys"),
    ("PGSERVICE", "nosuch"),
    ("PGSERVICEFILE", "/nonexistent/pg_service.conf"),
    ("PGSYSCONFDIR", "/nonexistent"),
    ("PGSSLMODE", "verify"),
    ("PGSSLMODE", "require"),
    ("PGSSLMODE", "verify-full"),
    ("PGREQUIRESSL", "1"),
    ("PGSSLNEGOTIATION", "direct"),
    ("PGSSLNEGOTIATION", "nonsense"),
    ("PGSSLROOTCERT", "/nonexistent/ca"),
    ("PGSSLCERT", "/"),
    ("PGSSLKEY", "/nonexistent/key"),
    ("PGSSLCRL", "/nonexistent/crl"),
    ("PGSSLSNI", "maybe"),
    ("PGSSLMINPROTOCOLVERSION", "TLSv9"),
    ("PGMINPROTOCOLVERSION", "9"),
    ("PGMAXPROTOCOLVERSION", "1"),
    ("PGGSSENCMODE", "nonsense"),
    ("PGGSSENCMODE", "require"),
    ("PGGSSDELEGATION", "nonsense"),
    ("PGCHANNELBINDING", "require"),
    ("PGCHANNELBINDING", "nonsense"),
    ("PGREQUIREAUTH", "none"),
    ("PGREQUIREAUTH", "nonsense"),
    ("PGREQUIREPEER", "somebody"),
    ("PGKRBSRVNAME", "nonsense"),
    ("PGLOADBALANCEHOSTS", "nonsense"),
    ("PGTARGETSESSIONATTRS", "nonsense"),
    ("PGTARGETSESSIONATTRS", "standby"),
    ("PGPORT", "abc"),
    ("PGPORT", "99999"),
    ("PGHOST", "no-such-host.invalid"),
    ("PGHOSTADDR", "10.255.255.1"),
    ("PGUSER", "somebody"),
    ("PGDATABASE", "nonsense"),
    ("PGPASSWORD", SECRET),
    ("PGPASSFILE", "/"),
    ("PGCONNECT_TIMEOUT", "soon"),
    ("PGOPTIONS", "-c nonsense=1"),
    ("PGCLIENTENCODING", "nonsense"),
    ("PGDATESTYLE", "nonsense"),
    ("PGTZ", "Nonsense/Nowhere"),
    ("PGGEQO", "nonsense"),
    ("PGAPPNAME", "x" * 200),
    ("PGLOCALEDIR", "/nonexistent"),
    ("ASPEN_ENV", "nosuch"),
    ("ASPEN_ENV", "rdev"),
    ("ASPEN_ENV", "PROD"),
    ("ASPEN_STACK", "../../x y"),
    ("ASPEN_OUTPUT", "xml"),
    ("ASPEN_VIA", "pigeon"),
    ("ASPEN_API", "ftp://127.0.0.1"),
    ("ASPEN_API", "http://[::1"),
    ("ASPEN_API", "http://127.0.0.1:99999"),
    ("ASPEN_API", f"http://user:{SECRET}@127.0.0.1:1"),
    ("ASPEN_API", "nonsense"),
    ("ASPEN_API", "http://127.0.0.1:3000/\x01"),
    ("ASPEN_API", "http://münchen.invalid./x?y#z"),
    ("ASPEN_AUTH_URL_LOCAL", "nonsense"),
    ("ASPEN_AUTH_URL_LOCAL", f"http://user:{SECRET}@127.0.0.1:1"),
    ("ASPEN_TOKEN", SECRET),
    ("ASPEN_TOKEN", f"{SECRET}.{SECRET}.{SECRET}"),
    ("ASPEN_TOKEN", "eyJhbGciOiJub25lIn0.e30."),
    ("ASPEN_TOKEN", "eyJhbGciOiJub25lIn0.eyJpc3MiOjEsImF1ZCI6Mn0."),
    ("OAUTH2_PROXY_COOKIE", f"{SECRET}\nx"),
    ("ASPEN_CONFIG", "/"),
    ("ASPEN_CONFIG", "/nonexistent/config.toml"),
    ("ASPEN_CONFIG", "/dev/full"),
    ("ASPEN_CONFIG", "~nosuchuser/config.toml"),
    ("ASPEN_HOME", "/dev/null"),
    ("ASPEN_HOME", "/dev/null/x"),
    ("ASPEN_HOME", "relative"),
    ("ASPEN_HOME", "~nosuchuser/x"),
    ("ASPEN_PG_BINDIR", "/nonexistent"),
    ("ASPEN_SHARED_DATA", "/nonexistent"),
    ("CZGE_ORG", "abc"),
    ("CZGE_ORG", "99999999999999999999"),
    ("CZGE_ORG", "-1"),
    ("CZGE_PATHOGEN", "nosuch"),
    ("CZGE_PATHOGEN", "../x"),
    ("HOME", "/nonexistent"),
    ("HOME", ""),
    ("XDG_CONFIG_HOME", "relative"),
    ("TMPDIR", "/nonexistent"),
    ("TERM", "dumb"),
    ("TERM", "nonsense"),
    ("COLUMNS", "0"),
    ("COLUMNS", "-5"),
    ("COLUMNS", "abc"),
    ("COLUMNS", "1"),
    ("LINES", "0"),
    ("TZ", "Nonsense/Nowhere"),
    ("LC_ALL", "xx_XX.UTF-8"),
    ("LC_ALL", "C"),
    ("PAGER", "/nonexistent"),
    ("BROWSER", "/nonexistent"),
    ("PYTHON_KEYRING_BACKEND", "nonsense"),
    ("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring"),
    ("KEYRING_PROPERTY_X", "y"),
    ("DBUS_SESSION_BUS_ADDRESS", "nonsense"),
    ("IPYTHONDIR", "/dev/null"),
    ("PSQLRC", "/nonexistent"),
    ("PATH", "/nonexistent"),
    ("AWS_PROFILE", "nosuch"),
    ("AWS_DEFAULT_PROFILE", "nosuch"),
    ("AWS_CONFIG_FILE", "/"),
    ("AWS_CONFIG_FILE", "/etc/passwd"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/etc/passwd"),
    ("AWS_MAX_ATTEMPTS", "many"),
    ("AWS_DEFAULTS_MODE", "nonsense"),
    ("AWS_REQUEST_CHECKSUM_CALCULATION", "nonsense"),
    ("AWS_ENDPOINT_URL", "nonsense"),
    ("AWS_CA_BUNDLE", "/nonexistent"),
    ("FORCE_COLOR", "1"),
    ("NO_COLOR", "1"),
    ("USER", ""),
    ("LOGNAME", "na\x1bme"),
)


@dataclass(frozen=True)
class Broken:
    """One broken setting.

    Attributes:
        name: The setting as shown in the table.
        variables: The environment variables that set it.
    """

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)


def all_settings(folder: Path) -> list[Broken]:
    """Return every broken setting.

    Args:
        folder: The folder for the damaged config files.
    """
    found = [Broken(f"{name}={_short(value)}", {name: value}) for name, value in _VARIABLES]
    for number, (name, text) in enumerate(_CONFIGS.items()):
        path = folder / f"config-{number}.toml"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        found.append(Broken(f"config file: {name}", {"ASPEN_CONFIG": str(path)}))
    for name, url in _DATABASE_URLS.items():
        found.append(Broken(f"database address: {name}", {"ASPEN_DATABASE_URL_LOCAL": url}))
    for name, values in _PROVIDERS.items():
        names = (f"AUTH0_MANAGEMENT_{part}" for part in ("DOMAIN", "CLIENT_ID", "CLIENT_SECRET"))
        variables = dict(zip(names, values, strict=True))
        found.append(Broken(f"identity provider: {name}", variables))
    return found


def _short(value: str) -> str:
    shown = value.encode("unicode_escape").decode()
    return shown if len(shown) < 40 else shown[:37] + "..."
