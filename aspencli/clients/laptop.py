"""The deployment on this machine, as the command line reaches it."""

from __future__ import annotations


def database_url() -> str:
    """The address of the local database.

    Raises:
        UnreachableError: It is not running.
    """
    from local.postgres import Cluster

    from aspencli.errors import UnreachableError

    cluster = Cluster.default()
    status = cluster.status()
    if status.state != "running":
        raise UnreachableError(
            f"the local database is {status.state}", hint="Start it: aspencli local up"
        )
    return cluster.url()
