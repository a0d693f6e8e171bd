"""The AWS emulator of the deployment on this machine, as an account."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aspencli.deployments.aws import Aws
from aspencli.errors import UnreachableError

if TYPE_CHECKING:
    from aspencli.config import Target
    from aspencli.machine import Endpoints

# Its names, as `aspen.local.aws.content` has them; a test compares them.
_NAME, _PROFILE, _REGION, _SECRET = "aws", "default", "us-west-2", "genepi-config"
_READ_S = 60.0


def emulated(target: Target, endpoints: Endpoints | None) -> Aws:
    """Return the emulator with its own access key; other configuration of AWS is not read.

    Args:
        target: The target `local`.
        endpoints: The addresses of the deployment, or None if it never started.

    Raises:
        UnreachableError: It is not running, or an earlier version started it.
    """
    if endpoints is None or not endpoints.runs(_NAME):
        raise UnreachableError(
            "The AWS emulator of the local deployment is not running.",
            hint="Start it: aspencli local up",
        )
    if not endpoints.aws_credentials:
        raise UnreachableError(
            "The local deployment was started by an earlier version of aspencli.",
            hint="Restart it: aspencli local down, then aspencli local up",
        )
    from botocore.session import Session

    core = Session()
    for kind in ("credentials_file", "config_file"):
        core.set_config_variable(kind, endpoints.aws_credentials)
    reached = replace(
        target,
        secret_name=_SECRET,
        aws_profile=_PROFILE,
        aws_region=_REGION,
        aws_endpoint_url=endpoints.services[_NAME],
    )
    # It has no sign-in to wait for, and is slower than Amazon's service.
    return Aws(reached, interactive=True, core=core, read_s=_READ_S)
