"""AWS: clients made once a process, of Amazon or of a stand-in."""

from __future__ import annotations

from threading import Lock
from typing import Any

_CONNECT_S, _READ_S = 5, 60


def make_client(service: str, region: str, endpoint_url: str | None) -> Any:
    """A boto3 client with time limits; it blocks, so call it in a thread (`asyncio.to_thread`).

    Args:
        service: AWS's name of it, such as ``s3``.
        region: Where it runs.
        endpoint_url: Where to reach it instead of at Amazon.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard"},
        # The older way of signing links is refused by buckets of newer regions.
        signature_version="s3v4" if service == "s3" else None,
        # A stand-in answers at one address for every bucket.
        s3={"addressing_style": "path"} if endpoint_url else None,
    )
    session = boto3.session.Session(region_name=region)
    return session.client(service, endpoint_url=endpoint_url, config=config)


class Aws:
    """The clients of one process, each made when first asked for.

    Args:
        region: Where the deployment runs.
        endpoint_url: Where to reach AWS instead of at Amazon.
    """

    def __init__(self, region: str, endpoint_url: str | None):
        self._region, self._endpoint_url = region, endpoint_url
        self._clients: dict[str, Any] = {}
        self._lock = Lock()

    def client(self, service: str) -> Any:
        """The client of a service; safe to share among threads.

        Raises:
            NoCredentialsError: There are none now.
        """
        with self._lock:  # making one reads files and is not thread-safe
            if service not in self._clients:
                _check_credentials()
                self._clients[service] = make_client(service, self._region, self._endpoint_url)
            return self._clients[service]


def _check_credentials() -> None:
    """A client that is made without credentials never gets any: such a one is not to be kept."""
    from boto3.session import Session
    from botocore.exceptions import NoCredentialsError

    if Session().get_credentials() is None:
        raise NoCredentialsError
