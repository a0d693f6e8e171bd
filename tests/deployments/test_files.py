"""``files`` on a remote deployment: through its secret, its bucket, and its database."""

from __future__ import annotations

import json
from pathlib import Path

from tests.deployments.rig import BUCKET, Deployment

TREE = "phylo_run/Alameda County/OVERVIEW/999999/ncov_aspen.json"


def test_files_of_production_are_read_without_consent(
    deployment: Deployment, tmp_path: Path
) -> None:
    deployment.client("s3").put_object(Bucket=BUCKET, Key=TREE, Body=b'{"version": "v2"}')
    done = deployment.run("--env", "prod", "files", "list", "-o", "json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert (row["key"], row["kind"], row["size"], row["row"]) == (TREE, "tree", 17, None)
    shown = deployment.run("--env", "prod", "files", "show", TREE, "-o", "json")
    assert json.loads(shown.out)[0]["bucket"] == BUCKET
    saved = tmp_path / "tree.json"
    got = deployment.run("--env", "prod", "files", "download", TREE, "-O", str(saved))
    assert got.code == 0, got.err
    assert saved.read_bytes() == b'{"version": "v2"}'
    check = deployment.run("--env", "prod", "files", "check", "--min-age", "0s", "-o", "json")
    assert check.code == 7, check.err
    assert [(row["problem"], row["key"]) for row in json.loads(check.out)] == [("no-row", TREE)]
    assert deployment.objects() == [TREE]  # nothing was written, not even to the audit trail
