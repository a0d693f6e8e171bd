"""The meaning of keys in the bucket."""

from __future__ import annotations

import pytest

from aspen.workflows.store import FileKey, FileKind, TreeKeys, parse_key


@pytest.mark.parametrize("place", ["Alameda County", "None", "São Paulo/7", "A/TARGETED/1/B"])
@pytest.mark.parametrize(("pathogen", "number"), [("SC2", 9), ("MPX", 123456)])
def test_keys_of_tree_runs_are_parsed(place: str, pathogen: str, number: int) -> None:
    keys = TreeKeys(f"{place}/NON_CONTEXTUALIZED", number, pathogen)
    if place.startswith("A/"):  # a place that looks like a key itself: the first run counts
        number = 1
        assert parse_key(keys.tree).run_id == number
        return
    assert parse_key(keys.tree) == FileKey(FileKind.TREE, number)
    assert parse_key(keys.builds) == FileKey(FileKind.BUILD, number)
    assert parse_key(keys.include) == FileKey(FileKind.INCLUDE, number)
    assert parse_key(keys.log("ncov/align/12.txt")) == FileKey(FileKind.LOG, number)


@pytest.mark.parametrize(
    ("key", "kind", "run"),
    [
        ("phylo_runs/7/tree.json", FileKind.TREE, 7),
        ("phylo_run/X/OVERVIEW/9/other.txt", FileKind.OTHER, 9),
        ("phylo_run/X/OVERVIEW/9/", FileKind.OTHER, None),
        ("phylo_run/X/OVERVIEW/0/ncov_aspen.json", FileKind.OTHER, None),
        ("phylo_run/X/OVERVIEW/nine/ncov_aspen.json", FileKind.OTHER, None),
        ("phylo_run/OVERVIEW/9/ncov_aspen.json", FileKind.OTHER, None),
        ("phylo_run/X/OVERVIEW/9/a\nb", FileKind.OTHER, 9),
        ("raw_genbank_dump/20260101-0100/genbank.ndjson.zst", FileKind.RAW, None),
        ("processed_genbank_dump/20260101-0100/metadata.tsv.xz", FileKind.PROCESSED, None),
        ("aligned_genbank_dump/20260101-0100/aligned_genbank.fasta.xz", FileKind.ALIGNED, None),
        ("aligned_genbank_mpx_dump/20260101-0100/alignment.fasta.xz", FileKind.ALIGNED, None),
        ("aligned_genbank_dump/20260101-0100/logs/align.txt", FileKind.LOG, None),
        ("aligned_repository_data/SC2/gisaid/metadata.tsv", FileKind.ALIGNED, None),
        ("pangolin_lineages/2026-01-01_0100+00:00_lineage_notes.txt", FileKind.LINEAGES, None),
        ("aspencli/audit/prod/999999999998.json", FileKind.OTHER, None),
        ("phylo_run", FileKind.OTHER, None),
        ("", FileKind.OTHER, None),
    ],
)
def test_other_keys_are_parsed(key: str, kind: FileKind, run: int | None) -> None:
    assert parse_key(key) == FileKey(kind, run)
