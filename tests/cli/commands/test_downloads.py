"""Files that the service creates: sequences, forms, mutations, trees, and links to them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from aspen.api.trees import nodes
from aspencli.phylo.document import conform
from tests.cli.commands.api_lab import ApiLab

FIRST = ("RCPHL-0000001", "RCPHL-0000002")


@pytest.fixture
def lab(shared_lab: ApiLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ApiLab:
    monkeypatch.chdir(tmp_path)
    return shared_lab


def tree_of(lab: ApiLab, group: int = 1) -> str:
    rows = lab("phylo-runs", "list", "--group", str(group), "-o", "json", "--via", "db").json
    return str(next(row["phylo_tree"] for row in rows if row["phylo_tree"]))


# Sequences


def test_piped_sequences_are_written_to_stdout(lab: ApiLab) -> None:
    ended = lab.run("samples", "download", *FIRST)
    assert (ended.code, ended.err) == (0, "")
    assert re.findall("^>(.*)$", ended.out, re.MULTILINE) == list(FIRST)


def test_sequence_file_is_not_replaced_without_force(lab: ApiLab, tmp_path: Path) -> None:
    path = tmp_path / "two.fasta"
    command = ("samples", "download", *FIRST, "--out", str(path))
    ended = lab(*command)
    assert (ended.code, ended.out) == (0, "")
    assert f"Saved {path} (2 sequences)." in ended.err
    written = path.read_bytes()
    assert written.startswith(b">RCPHL-0000001\n")
    again = lab(*command)
    assert (again.code, again.out) == (7, "")
    assert "--force" in again.err
    assert lab(*command, "--force").code == 0
    assert path.read_bytes() == written
    assert [each.name for each in tmp_path.glob("*.fasta*")] == ["two.fasta"]


def test_download_reads_identifiers_from_piped_sample_list(lab: ApiLab) -> None:
    listed = lab("samples", "list", "--group", "1", "--limit", "3")
    ended = lab("samples", "download", "-", stdin=listed.out)
    assert ended.code == 0, ended.err
    assert ended.out.count(">") == 3


def test_large_download_is_split_into_chunks(
    lab: ApiLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aspencli.cli.downloads.CHUNK", 4)
    monkeypatch.setattr("aspencli.samples.remote.CHUNK", 4)
    names = [f"RCPHL-{number:07}" for number in range(1, 11)]
    ended = lab("samples", "download", *names, "-O", "ten.fasta")
    assert ended.code == 0, ended.err
    assert (tmp_path / "ten.fasta").read_text().count(">") == 10
    assert lab("samples", "download", *names).out == (tmp_path / "ten.fasta").read_text()


def test_download_with_unknown_identifier_writes_nothing(lab: ApiLab, tmp_path: Path) -> None:
    command = ("samples", "download", *FIRST, "nope", "-O", "x.fasta")
    ended = lab(*command)
    assert (ended.code, ended.out) == (6, "")
    assert "1 of 3 identifiers match no sample" in ended.err
    assert "nope" in ended.err
    assert not (tmp_path / "x.fasta").exists()
    assert lab(*command, "--skip-missing").code == 0
    assert (tmp_path / "x.fasta").read_text().count(">") == 2
    assert lab("samples", "download", "nope", "neither", "--skip-missing").code == 6


def test_viewer_cannot_download_sequences_of_visible_samples(lab: ApiLab, tmp_path: Path) -> None:
    public = lab("samples", "list", "--group", "1", "--public", "--limit", "2", "-o", "json").json
    names = [row["public_identifier"] for row in public]
    ended = lab("samples", "download", *names, "-O", "x.fasta", who="viewer")
    assert (ended.code, ended.out) == (6, "")
    assert "Received 0 sequences for 2 samples" in ended.err
    assert list(tmp_path.glob("*fasta*")) == []


@pytest.mark.parametrize("command", ["samples", "qc-mutations"])
@pytest.mark.parametrize(
    ("who", "group", "words"),
    [
        ("sysadmin", "1", "system administrators do not have access to every group's data"),
        ("g2member", "1", "You need a role in group 1"),
        ("nogroup", None, "you have no role in any"),
    ],
)
def test_download_without_role_in_group_is_refused(
    lab: ApiLab, command: str, who: str, group: str | None, words: str
) -> None:
    of = ("--group", group) if group else ()
    ended = lab(command, "download", "RCPHL-0000001", *of, who=who)
    assert (ended.code, ended.out) == (4, "")
    assert words in ended.err


def test_missing_output_folder_is_reported_before_download(lab: ApiLab) -> None:
    ended = lab("phylo-trees", "download", "1", "--out", "no/such/tree.json")
    assert (ended.code, ended.out) == (2, "")
    assert "Directory not found: no/such" in ended.err


# Validation of names


def test_validate_ids_reports_each_identifier(lab: ApiLab) -> None:
    ended = lab("samples", "validate-ids", *FIRST, "nope", "-o", "json")
    assert ended.code == 6
    assert json.loads(ended.out) == [
        {"identifier": "RCPHL-0000001", "found": True},
        {"identifier": "RCPHL-0000002", "found": True},
        {"identifier": "nope", "found": False},
    ]
    assert "1 of 3 identifiers match no sample that you can see" in ended.err
    fine = lab("samples", "validate_ids", "-", stdin="\n".join(FIRST))
    assert (fine.code, fine.err) == (0, "")


def test_validate_ids_without_identifiers_is_refused(lab: ApiLab) -> None:
    ended = lab("samples", "validate-ids")
    assert (ended.code, ended.out) == (2, "")
    assert "No identifiers given" in ended.err


# Forms and mutations


@pytest.mark.parametrize(("repository", "separator"), [("gisaid", ","), ("GenBank", "\t")])
def test_submission_template_has_format_of_repository(
    lab: ApiLab, repository: str, separator: str
) -> None:
    ended = lab("samples", "submission-template", *FIRST, "--repository", repository)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert separator in lines[0]
    assert len(lines) >= 3


@pytest.mark.parametrize(("repository", "headers"), [("gisaid", 2), ("genbank", 1)])
def test_chunked_submission_template_has_headers_once(
    lab: ApiLab, monkeypatch: pytest.MonkeyPatch, repository: str, headers: int
) -> None:
    whole = lab("samples", "submission-template", *FIRST, "--repository", repository).out
    monkeypatch.setattr("aspencli.cli.downloads.CHUNK", 1)
    ended = lab("samples", "submission-template", *FIRST, "--repository", repository)
    assert ended.out == whole
    assert len(whole.splitlines()) == headers + len(FIRST)


def test_submission_template_of_unknown_repository_is_refused(lab: ApiLab) -> None:
    ended = lab("samples", "submission-template", *FIRST, "--repository", "ENA")
    assert (ended.code, ended.out) == (2, "")
    assert "'gisaid', 'genbank'" in ended.err


def test_mutations_are_downloaded_as_tsv(lab: ApiLab) -> None:
    ended = lab.run("qc_mutations", "download", *FIRST)
    assert (ended.code, ended.err) == (0, "")
    header, *rows = ended.out.splitlines()
    assert "\t" in header
    assert len(rows) == 2


# Trees


@pytest.mark.parametrize(
    ("style", "name"), [("private", "RCPHL-0000001"), ("public", "USA/CA-RCPHL-1/2020")]
)
def test_tree_and_selected_samples_use_requested_id_style(
    lab: ApiLab, tmp_path: Path, style: str, name: str
) -> None:
    tree = tree_of(lab)
    ended = lab("phylo-trees", "download", tree, "--id-style", style, "-O", ".", "--force")
    assert (ended.code, ended.out) == (0, "")
    text = (tmp_path / f"tree_{tree}.json").read_text()
    assert "tree" in json.loads(text)
    assert name in text
    selected = lab("phylo_trees", "selected-samples", tree, "--id-style", style)
    assert (selected.code, selected.err) == (0, "")
    assert selected.out.startswith("Sample Identifier\tSelected\r\n")
    assert name in selected.out


@pytest.mark.parametrize("where", ["file", "stream"])
def test_downloaded_tree_is_in_the_format_of_auspice(
    lab: ApiLab, tmp_path: Path, where: str
) -> None:
    out = ("-O", "valid.json", "--force") if where == "file" else ()
    ended = lab("phylo-trees", "download", tree_of(lab), *out)
    assert ended.code == 0, ended.err
    text = (tmp_path / "valid.json").read_text() if where == "file" else ended.out
    document = json.loads(text)
    shown = {node["name"]: node for node in nodes(document)}
    sample = shown["RCPHL-0000001"]
    assert sample["node_attrs"]["GISAID_ID"] == {"value": "USA/CA-RCPHL-1/2020"}
    known = {"name", "node_attrs", "branch_attrs", "children"}
    assert all(set(node) <= known for node in shown.values())
    scales = [each["scale"] for each in document["meta"]["colorings"] if "scale" in each]
    assert ["Mexico", "#B2D3FD"] in scales[0]
    assert all(isinstance(place, str) for scale in scales for place, _ in scale)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"version": "v2",  "meta": {}, "tree": {"name": "A"}}', b"[" * 100_000],
)
def test_document_that_is_no_tree_or_needs_no_change_stays_as_it_is(content: bytes) -> None:
    assert conform(content) == content


@pytest.mark.parametrize("command", ["download", "selected-samples"])
def test_tree_of_other_group_is_not_found(lab: ApiLab, tmp_path: Path, command: str) -> None:
    for tree in ("999999", tree_of(lab, 2)):
        ended = lab("phylo-trees", command, tree, "-O", "x")
        assert (ended.code, ended.out) == (6, "")
        assert list(tmp_path.glob("*x*")) == []


# Links


def test_auspice_link_opens_tree_without_sign_in(lab: ApiLab) -> None:
    ended = lab("auspice", "link", tree_of(lab), "-o", "json")
    assert ended.code == 0, ended.err
    assert "do everything there that you can" in ended.err
    (row,) = ended.json
    assert list(row) == ["url"]
    answer = httpx.get(row["url"], trust_env=False)
    assert answer.status_code == 200
    assert "tree" in answer.json()


def test_auspice_link_to_tree_of_other_group_is_not_found(lab: ApiLab) -> None:
    ended = lab("auspice", "link", tree_of(lab, 2))
    assert (ended.code, ended.out) == (6, "")


def test_usher_link_serves_sequences(lab: ApiLab) -> None:
    ended = lab("usher", "get-link", *FIRST, "-o", "json")
    assert ended.code == 0, ended.err
    (row,) = ended.json
    assert list(row) == ["url"]
    fasta = httpx.get(row["url"], trust_env=False).text
    assert fasta.count(">") == 2
