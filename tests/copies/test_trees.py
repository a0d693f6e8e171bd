"""The files of trees in dumps and copies: masked, verified, and kept apart from other objects."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from aspencli.copies import manifest
from aspencli.copies.choices import Choice
from aspencli.copies.hashing import Hashes
from aspencli.copies.masking import TableColumn, select
from aspencli.copies.rules import load_rules
from tests.api.conftest import ApiFactory, make_api, provider
from tests.conftest import Server
from tests.copies.lab import CONFIRMED, MARK, Lab, ask, built, connected, content, opened, unpacked
from tests.copies.trees import nodes

__all__ = ["make_api", "provider"]

pytestmark = pytest.mark.unpooled("restores need a direct connection")
COPY = ("db", "copy", "--from", "source", "--to", "staging", *CONFIRMED)
NO_KEYS: dict[str, str | None] = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}


def trees_of(lab: Lab) -> dict[int, tuple[str, str]]:
    """Return the bucket and key of each tree of the destination."""
    with connected(lab.target) as cursor:
        cursor.execute("SELECT entity_id, s3_bucket, s3_key FROM aspen.phylo_trees ORDER BY 1")
        return {tree: (bucket, key) for tree, bucket, key in cursor.fetchall()}


def documents(lab: Lab) -> dict[int, dict[str, Any]]:
    """Return the trees of the destination, as its rows refer to them."""
    found = {}
    for tree, (bucket, key) in trees_of(lab).items():
        assert bucket == lab.storage.target
        found[tree] = json.loads(lab.storage.read(key))
    return found


def column(lab: Lab, query: str) -> set[Any]:
    with connected(lab.target) as cursor:
        cursor.execute(query)
        return {value for (value,) in cursor.fetchall()}


# Masking


def test_copy_has_no_canary_in_any_object_or_key(lab: Lab) -> None:
    planted = [lab.storage.read(key, lab.storage.source) for key in source_keys(lab)]
    assert sum(body.count(MARK.encode()) for body in planted) > 900
    (row,) = json.loads(lab.ok(*COPY).out)
    assert (row["trees"], row["tree_files"]) == ("keep", len(planted))
    objects = lab.storage.content()
    assert len(objects) == len(planted) > 1
    assert all(MARK.encode() not in body for body in objects.values())
    assert not [key for key in objects if MARK in key]
    assert objects.keys() == {key for _, key in trees_of(lab).values()}


def source_keys(lab: Lab) -> list[str]:
    return lab.storage.objects(lab.storage.source)


def test_names_in_trees_equal_identifiers_of_samples(lab: Lab) -> None:
    lab.ok(*COPY)
    public = column(lab, "SELECT public_identifier FROM aspen.samples")
    public |= {name.removeprefix("hCoV-19/") for name in public}
    private = column(lab, "SELECT private_identifier FROM aspen.samples")
    strains = column(lab, "SELECT strain FROM aspen.public_repository_metadata")
    for document in documents(lab).values():
        tips = [node for node in nodes(document) if not node.get("children")]
        names = [tip["name"] for tip in tips]
        kept = {name.removeprefix("hCoV-19/") for name in names} & strains
        assert len(kept) == 4
        assert len(set(names) & private) == 1
        assert len(set(names) & public) == len(names) - len(kept) - 2  # a private, an unknown one
        assert all(tip["GISAID_ID"] in public for tip in tips if "GISAID_ID" in tip)


def test_other_values_in_trees_equal_those_in_columns(lab: Lab) -> None:
    lab.ok(*COPY)
    labs = column(lab, "SELECT name FROM aspen.groups")
    titles = column(lab, "SELECT name FROM aspen.phylo_trees")
    accessions = column(lab, "SELECT accession FROM aspen.accessions")
    days = column(lab, "SELECT collection_date FROM aspen.samples")
    years = {day.year + (day.timetuple().tm_yday - 1) / (366 - bool(day.year % 4)) for day in days}
    isls = column(lab, "SELECT isl FROM aspen.public_repository_metadata")
    for document in documents(lab).values():
        meta = document["meta"]
        assert meta["title"] in titles
        assert [one["key"] for one in meta["colorings"]] == ["num_date", "submitting_lab"]
        assert meta["colorings"][1]["scale"][0][0] in labs
        assert meta["display_defaults"] == {"distance_measure": "div"}
        assert list(meta["geo_resolutions"][0]["demes"]) == ["California"]
        assert meta["filters"] == ["submitting_lab"]
        own = [node for node in nodes(document) if "GISAID_ID" in node]
        for node in own:
            attributes = node["node_attrs"]
            assert attributes["submitting_lab"]["value"] in labs
            assert min(abs(attributes["num_date"]["value"] - year) for year in years) < 0.0001
            assert attributes["pango_lineage"] == {"value": "BA.2"}
            assert node["branch_attrs"]["mutations"] == {"nuc": ["A1C"]}
        found = {node["node_attrs"]["gisaid_epi_isl"]["value"] for node in own}
        assert len(found & accessions) > 1
        others = [node.get("node_attrs", {}) for node in nodes(document) if node not in own]
        assert not [each for each in others if "num_date" in each]
        assert {each["gisaid_epi_isl"]["value"] for each in others if "gisaid_epi_isl" in each} <= (
            isls
        )


def test_requested_public_strains_keep_the_name_that_they_have_in_trees(lab: Lab) -> None:
    strain = ask(lab.source, "SELECT min(strain) FROM aspen.public_repository_metadata")
    own = ask(lab.source, "SELECT min(public_identifier) FROM aspen.samples")
    with connected(lab.source) as cursor:
        listed = json.dumps([strain, f"hCoV-19/{strain}", own])
        cursor.execute("UPDATE aspen.phylo_runs SET gisaid_ids = %s", (listed,))
    lab.ok(*COPY)
    found = ask(lab.target, "SELECT gisaid_ids FROM aspen.phylo_runs LIMIT 1")
    assert found[:2] == [strain, f"hCoV-19/{strain}"]
    assert found[2] in column(lab, "SELECT public_identifier FROM aspen.samples")


def test_public_strain_that_is_a_sample_is_masked_in_trees_and_columns(lab: Lab) -> None:
    strain = ask(lab.source, "SELECT min(strain) FROM aspen.public_repository_metadata")
    with connected(lab.source) as cursor:
        cursor.execute(
            "UPDATE aspen.samples SET public_identifier = 'hCoV-19/' || %s WHERE id ="
            " (SELECT max(id) FROM aspen.samples WHERE submitting_group_id = 1) RETURNING id",
            (strain,),
        )
        (sample,) = cursor.fetchone()
        cursor.execute(
            "UPDATE aspen.phylo_runs SET gisaid_ids = jsonb_build_array(%s) WHERE group_id = 1",
            (strain,),
        )
        cursor.execute(
            "SELECT t.entity_id FROM aspen.phylo_trees t JOIN aspen.entities e ON e.id = entity_id"
            " WHERE e.group_id = 1"
        )
        trees = [tree for (tree,) in cursor.fetchall()]
    lab.ok(*COPY)
    masked = ask(lab.target, f"SELECT public_identifier FROM aspen.samples WHERE id = {sample}")
    bare = masked.removeprefix("hCoV-19/")
    for tree in trees:
        names = {node.get("name", "") for node in nodes(documents(lab)[tree])}
        assert strain not in {name.removeprefix("hCoV-19/") for name in names}
        assert bare in {name.removeprefix("hCoV-19/") for name in names}
    assert ask(lab.target, "SELECT gisaid_ids FROM aspen.phylo_runs WHERE group_id = 1") == [bare]


def test_api_serves_the_copied_tree_with_the_names_of_its_samples(
    lab: Lab, aws: str, make_api: ApiFactory
) -> None:
    with connected(lab.source) as cursor:
        cursor.execute(
            "UPDATE aspen.users SET email = 'me@example.org', auth0_user_id = 'auth0|me' WHERE id ="
            " (SELECT min(user_id) FROM aspen.user_roles u JOIN aspen.roles r ON r.id = u.role_id"
            " WHERE u.group_id = 1 AND r.name <> 'viewer')"
        )
    lab.ok(*COPY, "--as", "me@example.org")
    tree = min(trees_of(lab))
    database = opened(lab.target)
    try:
        api = make_api(
            database,
            BOTO_ENDPOINT_URL=aws,
            AWS_REGION="us-west-2",
            AWS_ACCESS_KEY_ID="key",
            AWS_SECRET_ACCESS_KEY="secret",
        )
        path = f"/v2/orgs/1/pathogens/SC2/phylo_trees/{tree}"
        answer = api("GET", f"{path}/download", "me")
        assert answer.status_code == 200, answer.text
        assert MARK not in answer.text
        shown = {node.get("name") for node in nodes(answer.json())}
        private = column(
            lab,
            "SELECT private_identifier FROM aspen.samples s JOIN aspen.phylo_tree_samples l"
            f" ON l.sample_id = s.id WHERE l.phylo_tree_id = {tree}",
        )
        assert private <= shown
        listed = api("GET", f"{path}/sample_ids", "me")
        assert private <= {line.split("\t")[0] for line in listed.text.splitlines()}
    finally:
        database.dispose()


@pytest.mark.parametrize("genomes", ["blank", "drop"])
@pytest.mark.parametrize("scrub", ["--scrub", "--no-scrub"])
def test_mutations_leave_trees_with_the_genomes(lab: Lab, genomes: str, scrub: str) -> None:
    lab.ok(*COPY, scrub, "--genomes", genomes)
    for document in documents(lab).values():
        assert "root_sequence" not in document
        branches = [node["branch_attrs"] for node in nodes(document) if "branch_attrs" in node]
        assert not [each for each in branches if "mutations" in each]
        assert {"clade": "22B"} in [
            {k: v for k, v in each.get("labels", {}).items() if k != "note"} for each in branches
        ]


def test_trees_that_are_not_masked_are_copied_as_they_are(lab: Lab) -> None:
    originals = sorted(lab.storage.read(key, lab.storage.source) for key in source_keys(lab))
    lab.ok(*COPY, "--no-scrub")
    assert sorted(lab.storage.content().values()) == originals


def test_chosen_groups_come_with_their_trees_only(lab: Lab) -> None:
    prefix = ask(lab.source, "SELECT prefix FROM aspen.groups WHERE id = 2")
    own = ask(
        lab.source,
        "SELECT count(*) FROM aspen.phylo_trees t JOIN aspen.entities e ON e.id = t.entity_id"
        " WHERE e.group_id = 2",
    )
    folder = lab.dump("dump", "--groups", prefix)
    found = json.loads((folder / "manifest.json").read_text())
    assert 0 < len(found["tree_files"]) == own < len(source_keys(lab))
    assert lab.restore(folder).code == 0
    assert len(documents(lab)) == own


def test_hashes_here_equal_those_of_the_server(lab: Lab) -> None:
    key, days = "ab" * 32, -45
    texts = ["", "x", "hCoV-19/USA/CA-1/2021", "HCOV-19/x", "hMPXV/", "EPI_ISL_1", "Zoë 'quoted'"]
    hashes = Hashes(load_rules(), key, days)
    columns = [TableColumn("private_identifier", "varchar", nullable=False)]
    hashed = select(load_rules(), "samples", columns, Choice())
    fake = select(
        load_rules(), "groups", [TableColumn("name", "varchar", nullable=False)], Choice()
    )
    with connected(lab.source) as cursor:
        cursor.execute(f"SET aspencli.copy_key = '{key}'")
        for text in texts:
            for query, name, rule in (
                (hashed, "private_identifier", "hash"),
                (fake, "name", "fake lab"),
            ):
                table = query[query.index("FROM aspen") :].split(" t ")[0]
                row = query.replace(table, f"FROM (SELECT %s::varchar AS {name})")
                cursor.execute(row, (text,))
                assert cursor.fetchone()[0] == hashes.masked(text, rule)
    assert hashes.moved("2021-03-01T00:00") == "2021-01-15"
    assert hashes.moved("2021-02-31") == "2021-01-17"  # as the server counts
    assert hashes.moved("soon") is None


# Files that cannot be copied


@pytest.mark.parametrize("kind", ["dump", "copy"])
def test_unusable_files_are_named_and_their_rows_stay(lab: Lab, kind: str) -> None:
    with connected(lab.source) as cursor:
        cursor.execute("SELECT entity_id, s3_key FROM aspen.phylo_trees ORDER BY 1")
        (one, missing), (two, broken), *_ = cursor.fetchall()
    lab.storage.client.delete_object(Bucket=lab.storage.source, Key=missing)
    lab.storage.put(broken, b'{"meta": {}, "tree": {"name": "x"', lab.storage.source)
    before = ask(lab.source, "SELECT count(*) FROM aspen.phylo_trees")
    if kind == "copy":
        said = lab.ok(*COPY).err
    else:
        said = lab.ok("--env", "source", "db", "dump", str(lab.folder / "dump")).err
        found = json.loads((lab.folder / "dump" / "manifest.json").read_text())
        assert found["trees_left_out"] == [
            {"tree": one, "reason": "missing in S3"},
            {"tree": two, "reason": "not JSON"},
        ]
        assert len(found["tree_files"]) == before - 2
        restored = lab.restore(lab.folder / "dump")
        assert restored.code == 0
        assert f"tree {one}: missing in S3" in restored.err
    assert "2 trees cannot be opened" in said
    assert f"tree {one}: missing in S3" in said
    assert f"tree {two}: not JSON" in said
    places = trees_of(lab)
    assert len(places) == before
    assert len(set(places.values()) - {places[one], places[two]}) == len(lab.storage.objects())
    assert places[one][0] == lab.storage.target


# Dropped trees, and no access


@pytest.mark.parametrize("kind", ["dump", "copy", "restore"])
def test_dropped_trees_leave_no_rows_and_need_no_aws(lab: Lab, kind: str) -> None:
    drop, place = ("--trees", "drop"), str(lab.folder / "dump")
    restore = ("--env", "staging", "db", "restore", place, *CONFIRMED)
    if kind == "copy":
        lab.ok(*COPY, *drop, env=NO_KEYS)
    elif kind == "dump":
        lab.ok("--env", "source", "db", "dump", place, *drop, env=NO_KEYS)
        lab.ok(*restore, env=NO_KEYS)
    else:
        lab.dump()
        lab.ok(*restore, *drop, env=NO_KEYS)
    assert trees_of(lab) == {}
    assert ask(lab.target, "SELECT count(*) FROM aspen.phylo_tree_samples") == 0
    assert (
        ask(lab.target, "SELECT count(*) FROM aspen.entities WHERE entity_type = 'PHYLO_TREE'") == 0
    )
    assert ask(lab.target, "SELECT count(*) FROM aspen.phylo_runs") > 0
    assert "match" in lab.ok("--env", "staging", "db", "check").err
    assert lab.storage.objects() == []


@pytest.mark.parametrize("kind", ["dump", "copy", "restore"])
def test_missing_credentials_are_named_with_the_way_on(lab: Lab, kind: str) -> None:
    folder = lab.dump()
    before = content(lab.target)
    words = {
        "dump": ("--env", "source", "db", "dump", str(lab.folder / "other")),
        "copy": COPY,
        "restore": ("--env", "staging", "db", "restore", str(folder), *CONFIRMED),
    }[kind]
    refused = lab(*words, env=NO_KEYS)
    assert refused.code == 4
    assert "AWS" in refused.err
    assert "--trees drop" in refused.err
    assert not (lab.folder / "other").exists()
    assert (content(lab.target), built(lab.target)) == (before, [])


def test_trees_option_of_setup_needs_data(lab: Lab) -> None:
    refused = lab("--env", "staging", "db", "setup", "--trees", "drop")
    assert (refused.code, "--trees needs --load-data" in refused.err) == (2, True)


# Dumps


def test_dump_with_trees_is_verified_and_restored_encrypted_or_not(lab: Lab) -> None:
    folder = lab.dump()
    assert MARK.encode() not in unpacked(folder)
    shown = json.loads(lab.ok("db", "dumps", "verify", str(folder), "-o", "json").out)
    files = [row["file"] for row in shown if row["table"] == "phylo_trees"]
    assert sum(name.startswith("tree.") for name in files) == len(source_keys(lab))
    secret: dict[str, str | None] = {"ASPEN_DUMP_PASSPHRASE": "correct horse battery"}
    sealed = lab.folder / "sealed"
    lab.ok("--env", "source", "db", "dump", str(sealed), "--encrypt", "--no-scrub", env=secret)
    assert MARK.encode() not in unpacked(sealed)
    lab.ok("--env", "staging", "db", "restore", str(sealed), *CONFIRMED, env=secret)
    originals = sorted(lab.storage.read(key, lab.storage.source) for key in source_keys(lab))
    assert sorted(lab.storage.content().values()) == originals


def test_one_flipped_byte_of_a_tree_is_found_before_anything_is_written(lab: Lab) -> None:
    folder = lab.dump()
    file = min(folder.glob("tree.*.part"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    before = content(lab.target)
    refused = lab.restore(folder)
    assert refused.code == 2
    assert f"{file.name}: changed since it was written" in refused.err
    assert (content(lab.target), built(lab.target)) == (before, [])
    assert lab.storage.objects() == []
    assert lab("db", "dumps", "verify", str(folder)).code == 1


def test_dump_of_the_first_version_is_still_restored(lab: Lab) -> None:
    folder = lab.dump("dump", "--trees", "drop")
    document = json.loads((folder / "manifest.json").read_text())
    for key in ("trees", "tree_files", "trees_left_out", "sha256"):
        del document[key]
    document["version"] = 1
    document["sha256"] = manifest._digest(document)
    (folder / "manifest.json").write_text(json.dumps(document))
    assert lab.restore(folder).code == 0


def test_setup_with_data_brings_the_trees(lab: Lab, postgres: Server) -> None:
    folder = lab.dump()
    name = f"{make_url(lab.target).database}_new"
    lab.target = make_url(lab.target).set(database=name).render_as_string(False)
    words = ("--env", "staging", "db", "setup", "--load-data", str(folder), "--confirm", "staging")
    try:
        lab.ok(*words)
        assert len(documents(lab)) == len(source_keys(lab))
    finally:
        postgres.drop(name)


# The destination's bucket


def test_objects_of_the_destination_stay_and_those_of_an_earlier_copy_go(lab: Lab) -> None:
    lab.storage.put("phylo_run/Alameda County/OVERVIEW/9/ncov_aspen.json", b"mine")
    lab.storage.put("copies/notes.txt", b"mine, too")
    others = lab.storage.content()
    lab.ok(*COPY)
    first = {key for _, key in trees_of(lab).values()}
    lab.ok(*COPY)
    second = {key for _, key in trees_of(lab).values()}
    assert not first & second
    assert lab.storage.objects() == sorted({*others, *second})
    assert others.items() <= lab.storage.content().items()


@pytest.mark.parametrize("kind", ["copy", "restore"])
def test_failed_run_removes_the_files_that_it_wrote(lab: Lab, kind: str) -> None:
    lab.storage.put("other.json", b"mine")
    folder = lab.dump()
    before = content(lab.target)
    words = COPY if kind == "copy" else ("--env", "staging", "db", "restore", str(folder))
    with connected(lab.target) as cursor:  # another session, found when it is too late
        cursor.execute("SELECT 1")
        refused = lab(*words, *CONFIRMED)
        assert refused.code == 7
        assert lab.storage.objects() == ["other.json"]
    assert (content(lab.target), built(lab.target)) == (before, [])


def test_files_of_a_run_that_failed_late_are_removed(
    lab: Lab,
) -> None:
    lab.storage.put("other.json", b"mine")
    with connected(lab.source) as cursor:  # the rows break a key, which is created last
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE aspen.samples SET uploaded_by_id = -1 WHERE id % 7 = 0")
    before = content(lab.target)
    refused = lab(*COPY)
    assert refused.code == 2
    assert "break a rule of the schema" in refused.err
    assert lab.storage.objects() == ["other.json"]
    assert (content(lab.target), built(lab.target)) == (before, [])
