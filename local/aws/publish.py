"""Files put into the S3 that runs."""

from __future__ import annotations

from collections.abc import Iterable

import boto3

from local.aws.content import REGION, STAGE


def publish(address: str, objects: Iterable[tuple[str, str, bytes]]) -> None:
    """Put files into a running stand-in.

    Args:
        address: Where it answers.
        objects: Bucket, key and content of each file.
    """
    s3 = boto3.client(
        "s3",
        endpoint_url=address,
        region_name=REGION,
        aws_access_key_id=STAGE,
        aws_secret_access_key=STAGE,
    )
    for bucket, key, body in objects:
        s3.put_object(Bucket=bucket, Key=key, Body=body)
