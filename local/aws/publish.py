"""Uploads of files to the running S3 stand-in."""

from __future__ import annotations

from collections.abc import Iterable

from api.aws import AccessKey, make_client
from local.aws.content import REGION, Credentials
from local.aws.objects import Stored


def publish(address: str, credentials: Credentials, objects: Iterable[Stored]) -> None:
    """Upload the objects that a running stand-in does not have yet.

    Args:
        address: The stand-in's URL.
        credentials: Its access key.
        objects: The objects to upload.
    """
    key = AccessKey(credentials.access_key, credentials.secret_key)
    s3 = make_client("s3", REGION, address, key)
    there = dict[str, set[str]]()
    for one in objects:
        if one.bucket not in there:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=one.bucket)
            there[one.bucket] = {row["Key"] for page in pages for row in page.get("Contents", ())}
        if one.key not in there[one.bucket]:
            s3.put_object(Bucket=one.bucket, Key=one.key, Body=one.body)
