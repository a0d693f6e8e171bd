"""``python -m aspen.local.launch PART --home D``: run a service for the supervisor.

The service reads the addresses of the other parts from the deployment's files. It exits when the
supervisor does: its standard input is a pipe from the supervisor, which then closes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aspen.local.aws.content import (
    DB_BUCKET,
    REGION,
    STAGE,
    Surroundings,
    made_values,
    read_credentials,
    standard_content,
)
from aspen.local.postgres.paths import WRITER, Places
from aspen.local.processes import HOST, wait_until
from aspen.local.services import (
    CLIENT_ID,
    MANAGEMENT_CLIENT_ID,
    POSTGRES,
    SERVICES,
    WORKER,
    service,
)
from aspen.local.state import DeploymentFiles, jobs_folder, read_record
from aspencli.machine import read_postmaster

if TYPE_CHECKING:
    from aspen.local.auth0.store import Client, Seed

_GRACE_S = 6.0
_PATIENCE_S = 140.0  # PostgreSQL may take long to repair its data after a crash
_FAILED = 1


def main() -> int:
    """Serve until SIGTERM, or until the supervisor is gone."""
    parser = argparse.ArgumentParser(prog="python -m aspen.local.launch", description=__doc__)
    parser.add_argument("part", choices=[one.name for one in SERVICES])
    parser.add_argument("--home", type=Path, required=True, help="folder of the deployment")
    chosen = parser.parse_args()
    os.umask(0o077)
    threading.Thread(target=_end_with_the_supervisor, daemon=True).start()
    return _PARTS[chosen.part](DeploymentFiles(chosen.home))


def _end_with_the_supervisor() -> None:
    os.read(sys.__stdin__.fileno() if sys.__stdin__ else 0, 1)  # returns when the pipe is closed
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(_FAILED)  # SIGTERM did not end it


def _aws(state: DeploymentFiles) -> int:
    from aspen.local.aws import server
    from aspen.local.aws.server import serve

    server.load()
    _wait(state, "aws")
    folder = state.part("aws")
    places = Places(state.home)
    around = Surroundings(
        database=f"{HOST}:{places.remembered().port}",
        username=WRITER,
        password=places.passwords()[WRITER],
        issuer=f"http://{HOST}:{state.ports()['identity']}",
    )
    standard_content(folder, around).write(folder)
    return serve(state.ports()["aws"], folder)


def _identity(state: DeploymentFiles) -> int:
    from aspen.local.auth0.app import main as serve

    _introduce(state)
    folder = state.part("identity")
    return serve(["--port", str(state.ports()["identity"]), "--folder", str(folder)])


def _api(state: DeploymentFiles) -> int:
    from aspen.api.__main__ import main as serve
    from aspen.local.postgres.server import Cluster

    _wait(state, "api")
    _introduce(state)  # its port may have changed since the provider started
    port, address = str(state.ports()["api"]), _api_address(state)
    os.environ |= {
        **_keys(state),
        "AWS_REGION": REGION,
        "BOTO_ENDPOINT_URL": _aws_address(state),
        # Without a worker, jobs are only recorded by the emulator.
        "JOBS_ENGINE": "local" if WORKER in read_record(state.record) else "",
        "DEPLOYMENT_STAGE": STAGE,
        "API_URL": address,
        "FRONTEND_URL": address,
        "DB_DSN": Cluster(state.home).url(),
    }
    sys.argv = ["api", "--port", port]
    return serve()


def _worker(state: DeploymentFiles) -> int:
    from aspen.local.postgres.server import Cluster
    from aspen.workflows.engine.worker import Setting
    from aspen.workflows.engine.worker import main as serve
    from aspen.workflows.surroundings import Surroundings as JobSurroundings

    _wait(state, WORKER)
    around = JobSurroundings(
        database=Cluster(state.home).url(),
        bucket=DB_BUCKET,
        region=REGION,
        endpoint=_aws_address(state),
    )
    return serve(Setting(around, jobs_folder(state), state.ports()[WORKER], _keys(state)))


def _keys(state: DeploymentFiles) -> dict[str, str]:
    keys = read_credentials(state.part("aws"))
    return {"AWS_ACCESS_KEY_ID": keys.key, "AWS_SECRET_ACCESS_KEY": keys.secret}


def _aws_address(state: DeploymentFiles) -> str:
    return f"http://{HOST}:{state.ports()['aws']}"


_PARTS: dict[str, Callable[[DeploymentFiles], int]] = {
    "aws": _aws,
    "identity": _identity,
    "api": _api,
    WORKER: _worker,
}


def _introduce(state: DeploymentFiles) -> None:
    """Register the users and the client programs with the identity provider."""
    from aspen.local.auth0.store import seed

    seed(state.part("identity"), _principals(state))


def _principals(state: DeploymentFiles) -> Seed:
    """Return the users, groups, and roles of the test data, and the clients that request tokens."""
    from aspen.local.auth0.store import Member, Organization, Role, Seed, User
    from aspen.local.seed.base import auth0_user_id, base_document, email

    document = base_document()
    users, groups = document["users"], document["groups"]
    organizations = {row["id"]: row["auth0_org_id"] for row in groups}
    return Seed(
        clients=_clients(state),
        users=[
            User(auth0_user_id(row["login"]), email(row["login"]), row["name"]) for row in users
        ],
        organizations=[
            # The service's own format for the names of new groups.
            Organization(row["auth0_org_id"], f"group-{row['prefix'].lower()}", row["name"])
            for row in groups
        ],
        roles=[Role(name) for name in ("admin", "member", "viewer")],
        members=[
            Member(organizations[held["group"]], auth0_user_id(row["login"]), [held["role"]])
            for row in users
            for held in row.get("roles", [])
        ],
    )


def _clients(state: DeploymentFiles) -> list[Client]:
    from aspen.local.auth0.store import ALL_MANAGEMENT_SCOPES, Client, Grant

    made = made_values(state.part("aws"))
    return [
        Client(
            CLIENT_ID,
            "aspencli",
            (Grant.DEVICE_CODE, Grant.AUTHORIZATION_CODE, Grant.REFRESH_TOKEN),
            public=True,
            secret=made["AUTH0_CLIENT_SECRET"],
            callbacks=(f"http://{HOST}/v2/auth/callback",),  # no port, so any port is allowed
            logout_urls=(f"http://{HOST}/",),
            login_uri=f"{_api_address(state)}/v2/auth/login",  # invitation links lead there
        ),
        Client(
            MANAGEMENT_CLIENT_ID,
            "The service",
            (Grant.CLIENT_CREDENTIALS,),
            secret=made["AUTH0_MANAGEMENT_CLIENT_SECRET"],
            management_scopes=ALL_MANAGEMENT_SCOPES,
        ),
    ]


def _api_address(state: DeploymentFiles) -> str:
    """Return the URL of the service, or the one that it will have once it is started."""
    return f"http://{HOST}:{state.ports().get('api', service('api').port)}"


def _wait(state: DeploymentFiles, name: str) -> None:
    """Wait until the parts that a service needs are running."""

    def missing() -> list[str]:
        return [one for one in service(name).needs if not _runs(state, one)]

    if not wait_until(lambda: not missing(), _PATIENCE_S):
        sys.exit(f"Timed out after {_PATIENCE_S:.0f} s waiting for {' and '.join(missing())}")


def _runs(state: DeploymentFiles, name: str) -> bool:
    if name == POSTGRES:  # its port is known by then
        return read_postmaster(Places(state.home).data) is not None
    kept = read_record(state.record).get(name)
    return kept is not None and kept.runs


if __name__ == "__main__":
    sys.exit(main())
