"""Samples from a metadata file in Nextstrain's format."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.local.seed import RejectedRow, seed_metadata
from aspencli.errors import BadInputError

_HEADER = (
    "strain genbank_accession gisaid_epi_isl date region country division location host authors"
)
_COLUMNS = _HEADER.split()
_GOOD = {
    "strain": "USA/CA-1/2020",
    "genbank_accession": "MT000001",
    "date": "2020-03-05",
    "region": "North America",
    "country": "USA",
}


def _shared_data() -> Path:
    """Return the folder of real records: ASPEN_SHARED_DATA, or next to the checkout."""
    default = Path(__file__).parents[2].parent / "shared" / "data"
    return Path(os.environ.get("ASPEN_SHARED_DATA") or default)


def write(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "metadata.tsv"
    lines = ["\t".join(_COLUMNS)]
    lines += ["\t".join(row.get(column, "?") for column in _COLUMNS) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def good(number: int, **changes: str) -> dict[str, str]:
    own = {"strain": f"USA/CA-{number}/2020", "genbank_accession": f"MT{number:06d}"}
    return {**_GOOD, **own, **changes}


@pytest.mark.skipif(not _shared_data().is_dir(), reason="the folder of real records is missing")
def test_real_metadata_is_imported_completely_and_once(seeded: Database) -> None:
    folder = _shared_data()
    metadata = folder / "ncov_genbank_metadata.tsv"
    sequences = folder / "ncov_genbank_sequences.fasta.gz"
    lat_longs = folder / "ncov_lat_longs.tsv"
    told: list[int] = []
    first = seed_metadata(
        seeded, metadata, sequences=sequences, lat_longs=lat_longs, progress=told.append
    )
    assert (first.added, first.genomes_added, first.already) == (418, 418, 0)
    assert first.rejected == ()
    assert sum(told) == 418
    [row] = _rows(
        seeded,
        "SELECT public_identifier, collection_date::text, country, division, latitude IS NOT NULL,"
        " length(sequence), num_unambiguous_sites + num_missing_alleles + num_mixed, accession"
        " FROM aspen.samples JOIN aspen.locations ON locations.id = location_id"
        " JOIN aspen.uploaded_pathogen_genomes AS u ON u.sample_id = samples.id"
        " JOIN aspen.pathogen_genomes ON entity_id = pathogen_genome_id"
        " JOIN aspen.accessions AS a ON a.sample_id = samples.id"
        " WHERE private_identifier = 'MT450922'",
    )
    assert row == (
        "hCoV-19/Australia/VIC05/2020",
        "2020-03-05",
        "Australia",
        "Victoria",
        True,
        29812,
        29812,
        "MT450922",
    )
    again = seed_metadata(seeded, metadata, sequences=sequences)
    assert (again.added, again.already, again.locations_added) == (0, 418, 0)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("date", "2020-03", "incomplete date: '2020-03' (expected YYYY-MM-DD)"),
        ("date", "2020-03-XX", "incomplete date: '2020-03-XX' (expected YYYY-MM-DD)"),
        ("date", "2020-XX-XX", "incomplete date: '2020-XX-XX' (expected YYYY-MM-DD)"),
        ("date", "2020", "incomplete date: '2020' (expected YYYY-MM-DD)"),
        ("date", "2020-02-30", "invalid date: '2020-02-30' (expected YYYY-MM-DD)"),
        ("date", "20200305", "invalid date: '20200305' (expected YYYY-MM-DD)"),
        ("date", "?", "missing"),
        ("strain", "", "missing"),
        ("genbank_accession", "?", "missing"),
        ("country", "", "missing"),
        ("strain", "x" * 200, "longer than 120 characters"),
        ("host", "a\0b", "contains a NUL character"),
    ],
)
def test_invalid_metadata_value_is_reported_with_line(
    seeded: Database, tmp_path: Path, column: str, value: str, reason: str
) -> None:
    path = write(tmp_path, good(1), good(2, **{column: value}), good(3))
    result = seed_metadata(seeded, path)
    assert result.added == 2
    assert result.rejected == (RejectedRow(3, column, reason),)


def test_metadata_line_with_too_few_columns_is_reported(seeded: Database, tmp_path: Path) -> None:
    path = write(tmp_path, good(1))
    path.write_text(path.read_text() + "USA/CA-2/2020\tMT000002\n")
    result = seed_metadata(seeded, path)
    assert result.rejected == (RejectedRow(3, "", "2 columns instead of 10"),)


def test_duplicate_metadata_identifiers_are_rejected(seeded: Database, tmp_path: Path) -> None:
    path = write(tmp_path, good(1), good(1), good(3, strain="USA/CA-1/2020"))
    result = seed_metadata(seeded, path)
    assert result.added == 1
    assert [(row.line, row.column) for row in result.rejected] == [
        (3, "genbank_accession"),
        (4, "strain"),
    ]


def test_missing_metadata_values_are_stored_as_null(seeded: Database, tmp_path: Path) -> None:
    seed_metadata(seeded, write(tmp_path, good(1, division="USA")))
    [row] = _rows(
        seeded,
        "SELECT host, authors, division, location, private FROM aspen.samples"
        " JOIN aspen.locations ON locations.id = location_id"
        " WHERE private_identifier = 'MT000001'",
    )
    assert row == (None, [], None, None, False)


def test_new_locations_get_coordinates_and_parent_locations(
    seeded: Database, tmp_path: Path
) -> None:
    lat_longs = tmp_path / "lat_longs.tsv"
    lat_longs.write_text("# comment\n\ncountry\tUSA\t1\t2\ndivision\tVictoria\t-36.5\t145.5\n")
    place = {"region": "Oceania", "country": "Australia", "division": "Victoria"}
    path = write(tmp_path, good(1, **place), good(2, **place))
    assert seed_metadata(seeded, path, lat_longs=lat_longs).locations_added == 3
    rows = _rows(
        seeded,
        "SELECT country, division, latitude, longitude FROM aspen.locations"
        " WHERE region = 'Oceania' ORDER BY country NULLS FIRST, division NULLS FIRST",
    )
    assert rows == [
        (None, None, None, None),
        ("Australia", None, None, None),
        ("Australia", "Victoria", -36.5, 145.5),
    ]


def test_sequences_are_matched_to_samples_by_name(seeded: Database, tmp_path: Path) -> None:
    fasta = tmp_path / "sequences.fasta.gz"
    text = ">hCoV-19/USA/CA-2/2020 of somebody\nacgtN\nNR-\n>USA/unknown\nACGT\n"
    fasta.write_bytes(gzip.compress(text.encode()))
    path = write(tmp_path, good(1), good(2))
    assert seed_metadata(seeded, path, sequences=fasta).genomes_added == 1
    rows = _rows(
        seeded,
        "SELECT private_identifier, sequence, num_unambiguous_sites, num_missing_alleles, num_mixed"
        " FROM aspen.samples JOIN aspen.uploaded_pathogen_genomes AS u ON u.sample_id = samples.id"
        " JOIN aspen.pathogen_genomes ON entity_id = pathogen_genome_id"
        " WHERE private_identifier LIKE 'MT%' ORDER BY 1",
    )
    assert rows == [("MT000001", "", 0, 0, 0), ("MT000002", "ACGTNNR-", 4, 2, 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ACGT\n", "before the first header on line 1"),
        (b">one\nAC GT 12\n", "invalid characters on line 2"),
        (b">\nACGT\n", "a header without a name on line 1"),
        (b">one\n\xff\xfe\n", "is not UTF-8"),
        (gzip.compress(b">one\n" + b"ACGT" * 99)[:-9], "is truncated"),
    ],
    ids=["no header", "no letters", "no name", "no text", "cut short"],
)
def test_damaged_sequence_file_changes_nothing(
    seeded: Database, tmp_path: Path, content: bytes, message: str
) -> None:
    fasta = tmp_path / "sequences.fasta"
    fasta.write_bytes(content)
    with pytest.raises(BadInputError, match=message):
        seed_metadata(seeded, write(tmp_path, good(1)), sequences=fasta)
    assert _rows(seeded, "SELECT count(*) FROM aspen.samples") == [(60,)]


def test_file_without_metadata_columns_is_refused(seeded: Database, tmp_path: Path) -> None:
    path = tmp_path / "other.tsv"
    path.write_text("strain\tdate\nx\t2020-01-01\n")
    with pytest.raises(
        BadInputError, match=r"Missing columns in .*: genbank_accession, region, country"
    ):
        seed_metadata(seeded, path)
    with pytest.raises(BadInputError, match="No such file"):
        seed_metadata(seeded, tmp_path / "none.tsv")


def _rows(database: Database, statement: str) -> list[tuple[object, ...]]:
    with database.reading() as session:
        return [tuple(row) for row in session.execute(sa.text(statement))]
