"""AWS: clients made once a process, of Amazon or of a stand-in."""

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
    """Credentials that are given, where they are not looked up as AWS's tools do.

    Attributes:
        key: The public half.
        secret: The secret half.
        token: What temporary credentials also need.
    """

    key: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def make_client(
    service: str, region: str, endpoint_url: str | None, access_key: AccessKey | None = None
) -> Any:
    """Return a boto3 client with time limits; it blocks, so call it in a thread.

    Args:
        service: AWS's name of it, such as ``s3``.
        region: Where it runs.
        endpoint_url: Where to reach it instead of at Amazon.
        access_key: The credentials; None to look them up.

    Raises:
        NoCredentialsError: There are none now.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import NoCredentialsError

    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard"},
        # The older way of signing links is refused by buckets of newer regions.
        signature_version="s3v4" if service == "s3" else None,
        # A stand-in answers at one address for every bucket.
        s3={"addressing_style": "path"} if endpoint_url else None,
        # A proxy does not lead to this machine; None would have the environment name one.
        proxies={} if endpoint_url and _is_here(endpoint_url) else None,
    )
    given = access_key or AccessKey("", "")
    session = boto3.session.Session(
        region_name=region,
        aws_access_key_id=given.key or None,
        aws_secret_access_key=given.secret or None,
        aws_session_token=given.token,
        botocore_session=_isolated_session() if access_key else None,
    )
    # A client that is made without credentials never gets any. The session looks them up once, and
    # hands its client the very ones that are checked here, whatever the environment says by then.
    if session.get_credentials() is None:
        raise NoCredentialsError
    return session.client(service, endpoint_url=endpoint_url, config=config)


def _is_here(address: str) -> bool:
    """Return True for an address of this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _isolated_session() -> Any:
    """Return a session that ignores the variables and files of the AWS tools.

    An invalid profile or file would make it fail, although its credentials are given.
    """
    import botocore.session
    from botocore import configprovider

    session = botocore.session.Session()
    chains = configprovider.ConfigChainFactory(session=session, environ={})
    variables = configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES.items()  # spelled like this
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
    """The clients of one process, each made when first asked for.

    Args:
        region: Where the deployment runs.
        endpoint_url: Where to reach AWS instead of at Amazon.
        access_key: The credentials; None to look them up.
    """

    def __init__(self, region: str, endpoint_url: str | None, access_key: AccessKey | None = None):
        self._region, self._endpoint_url = region, endpoint_url
        self._access_key = access_key
        self._clients: dict[str, Any] = {}
        self._lock = Lock()

    def client(self, service: str) -> Any:
        """Return the client of a service; it is safe to share among threads.

        Raises:
            NoCredentialsError: There are none now; the next call looks again.
        """
        with self._lock:  # making one reads files and is not thread-safe
            if service not in self._clients:
                self._clients[service] = make_client(
                    service, self._region, self._endpoint_url, self._access_key
                )
            return self._clients[service]
