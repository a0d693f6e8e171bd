"""Addresses that a job's processes need; they read them from the environment.

The names are those that the live service gives its jobs, and those of the service's settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Surroundings:
    """The database, the bucket, and the AWS endpoint that a job uses.

    Attributes:
        database: The address of the database, for psycopg2.
        bucket: The bucket of the database's files.
        endpoint: The URL of AWS, if it is not Amazon's.
    """

    database: str
    bucket: str
    region: str = "us-west-2"
    endpoint: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return the addresses in the environment.

        Raises:
            KeyError: DB_DSN or S3_DB_BUCKET is missing.
        """
        given = os.environ if environment is None else environment
        return cls(
            database=given["DB_DSN"],
            bucket=given["S3_DB_BUCKET"],
            region=given.get("AWS_REGION", cls.region),
            endpoint=given.get("BOTO_ENDPOINT_URL") or None,
        )

    def to_environment(self) -> dict[str, str]:
        """Return the variables that `from_environment` reads; AWS finds its own credentials."""
        return {
            "DB_DSN": self.database,
            "S3_DB_BUCKET": self.bucket,
            "AWS_REGION": self.region,
            "BOTO_ENDPOINT_URL": self.endpoint or "",
        }

    def aws(self, service: str) -> Any:
        """Return a client of an AWS service; this loads boto3."""
        import boto3
        from botocore.config import Config

        config = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard"},
            # An emulator serves every bucket at one address.
            s3={"addressing_style": "path"} if self.endpoint else None,
        )
        session = boto3.session.Session(region_name=self.region)
        return session.client(service, endpoint_url=self.endpoint, config=config)
