"""AWS clients, created once per process, for Amazon or an emulator."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from ipaddress import ip_address
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

_CONNECT_S, _READ_S = 5, 60


@dataclass(frozen=True)
class AccessKey:
    """Explicit credentials, used instead of the default AWS credential chain."""

    key: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)  # that of temporary credentials


def make_client(
    service: str, region: str, endpoint_url: str | None, access_key: AccessKey | None = None
) -> Any:
    """Return a boto3 client with timeouts; this blocks, so call it in a thread.

    Without an access key, the credentials come from the default AWS credential chain.

    Raises:
        NoCredentialsError: No credentials are available right now.
    """
    from botocore.exceptions import NoCredentialsError

    config = _config(service, endpoint_url)
    session = _session(region, access_key)
    # A client created without credentials never gets any. The session looks them up once and gives
    # its client the ones checked here, even if the environment changes in the meantime.
    if session.get_credentials() is None:
        raise NoCredentialsError
    return session.client(service, endpoint_url=endpoint_url, config=config)


def _config(service: str, endpoint_url: str | None) -> Any:
    from botocore.config import Config

    return Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard"},
        # Buckets in newer regions reject links with the older signature version.
        signature_version="s3v4" if service == "s3" else None,
        # An emulator serves every bucket at one address.
        s3={"addressing_style": "path"} if endpoint_url else None,
        # A proxy cannot reach this machine; None would use the one from the environment.
        proxies={} if endpoint_url and _is_here(endpoint_url) else None,
    )


def _session(region: str, access_key: AccessKey | None) -> Any:
    import boto3

    given = access_key or AccessKey("", "")
    return boto3.session.Session(
        region_name=region,
        aws_access_key_id=given.key or None,
        aws_secret_access_key=given.secret or None,
        aws_session_token=given.token,
        botocore_session=_isolated_session() if access_key else None,
    )


def _is_here(address: str) -> bool:
    """Return True if the URL points to this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _isolated_session() -> Any:
    """Return a session that ignores the environment variables and files of the AWS tools.

    Otherwise, an invalid profile or file would break it, even with explicit credentials.
    """
    import botocore.session
    from botocore import configprovider

    session = botocore.session.Session()
    chains = configprovider.ConfigChainFactory(session=session, environ={})
    variables = configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES.items()  # the typo is botocore's
    defaults = {
        name: chains.create_config_chain(
            instance_name=name, default=default, conversion_func=convert
        )
        for name, (_property, _variable, default, convert) in variables
    }
    session.register_component("config_store", configprovider.ConfigValueStore(defaults))
    for file in ("config_file", "credentials_file"):
        session.set_config_variable(file, os.devnull)
    return session


class Aws:
    """The AWS clients of one process, each created on first use by `make_client`."""

    def __init__(self, region: str, endpoint_url: str | None, access_key: AccessKey | None = None):
        self._options = (region, endpoint_url, access_key)
        self._clients: dict[str, Any] = {}
        self._lock = Lock()

    def client(self, service: str) -> Any:
        """Return the client of a service, which is safe to share among threads.

        Raises:
            NoCredentialsError: No credentials are available right now; the next call retries.
        """
        with self._lock:  # creating a client reads files and is not thread-safe
            if service not in self._clients:
                self._clients[service] = make_client(service, *self._options)
            return self._clients[service]
