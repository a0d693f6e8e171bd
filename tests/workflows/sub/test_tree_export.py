"""Export of samples and configuration, and refusal of runs that cannot succeed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from aspen.workflows.steps import REASON_NAME, REFUSED, StepError
from tests.workflows.sub.lab import (
    GROUP,
    HOME,
    Lab,
    context_row,
    mutated,
    read_fasta,
    read_table,
    table,
)


def build(lab: Lab, key: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(lab.read_object(key))
    return found


@pytest.fixture
def dump(lab: Lab) -> int:
    return lab.context([context_row(1, HOME, date(2022, 5, 1))])


def test_all_samples_of_group_are_exported_and_chosen_ones_listed(lab: Lab, dump: int) -> None:
    names = [f"hCoV-19/USA/CA-{n}/2023" for n in range(3)]
    chosen = lab.add_samples(names)[1:]
    lab.add_samples(["USA/CA-9/2023"], place=None, day=date(2022, 12, 31))
    run = lab.start("TARGETED", chosen, dump=dump, public=["hcov-19/USA/CTX-1/2022"])
    found = lab.export()
    folder = lab.folder / "tree-export"
    strains = ["USA/CA-0/2023", "USA/CA-1/2023", "USA/CA-2/2023", "USA/CA-9/2023"]
    assert list(read_fasta(folder / "sequences.fasta")) == strains
    assert read_fasta(folder / "sequences.fasta")[strains[0]] == mutated(names[0])
    rows = read_table(folder / "metadata.tsv")
    assert [row["strain"] for row in rows] == strains
    assert rows[0]["division"] == rows[0]["division_exposure"] == "California"
    assert rows[0]["authors"] == "Abe, A., Birch, B."
    assert rows[0]["submitting_lab"] == "Bayside Department of Public Health"
    assert (rows[3]["date"], rows[3]["country"], rows[3]["host"]) == ("2022-12-31", "", "Human")
    assert len(rows[0]) == 26
    include = "USA/CA-1/2023\nUSA/CA-2/2023\nUSA/CTX-1/2022\n"
    prefix = f"phylo_run/Alameda County/TARGETED/{run}/"
    assert (folder / "include.txt").read_text() == include
    assert lab.read_object(f"{prefix}include.txt").decode() == include
    assert [one["id"] for one in found["samples"]] == chosen
    assert found["filestem"] == "Alameda County/TARGETED"
    assert found["title"] == (
        "Targeted tree for samples collected in USA, California, Alameda County up until 2023-01-20"
    )
    assert found["resolved_template_args"]["location"]["location"] == "Alameda County"
    assert build(lab, f"{prefix}builds.yaml")["files"]["include"] == "data/include.txt"


def test_configuration_is_in_form_of_live_service(lab: Lab, dump: int) -> None:
    arguments = {
        "filter_start_date": "2022-10-14",
        "filter_end_date": "now",
        "filter_pango_lineages": ["Delta", "B-A.5"],
        "location_id": lab.location("North America", "Mexico", "Michoacan"),
    }
    run = lab.start("OVERVIEW", dump=dump, arguments=arguments)
    lab.export()
    made = build(lab, f"phylo_run/Alameda County/OVERVIEW/{run}/builds.yaml")
    assert made["builds"]["aspen"] == {
        "region": "global",
        "country": "Mexico",
        "division": "Michoacan",
        "subsampling_scheme": "OVERVIEW",
        "title": "Overview tree for samples collected in Mexico, Michoacan between 2022-10-14 and"
        " 2023-01-20",
        "pango_lineage": ["AY", "AY.103", "AY.25.1", "AY.44", "B.1.617.2", "BA.5"],
    }
    assert [one["name"] for one in made["inputs"]] == ["root_ref", "genbank", "aspen"]
    assert "include" not in made["files"]
    assert made["priorities"] == {"crowding_penalty": 0.1}
    assert made["refine"] == {"keep_polytomies": True, "clock_filter_iqd": 3}
    scheme = made["subsampling"]["OVERVIEW"]
    assert list(made["subsampling"]) == ["OVERVIEW"]
    assert set(scheme) == {
        *("root", "group", "country", "international", "international_serial_sampling"),
    }
    assert scheme["group"] == {
        "group_by": "year month",
        "max_sequences": 2000,
        "min_date": "--min-date 2022-10-14",
        "max_date": "--max-date 2023-01-20",
        "query": "--query \"(division == 'Michoacan') & (country == 'Mexico')"
        ' & (pango_lineage in {pango_lineage})"',
    }
    assert scheme["country"]["max_sequences"] == 800
    assert scheme["country"]["priorities"] == {"type": "proximity", "focus": "group"}
    assert scheme["international_serial_sampling"]["seq_per_group"] == 2


def test_targeted_configuration_keeps_focal_samples(lab: Lab, dump: int) -> None:
    run = lab.start("TARGETED", lab.add_samples(["USA/CA-1/2023"]), dump=dump)
    lab.export()
    made = build(lab, f"phylo_run/Alameda County/TARGETED/{run}/builds.yaml")
    scheme = made["subsampling"]["TARGETED"]
    assert scheme["focal"] == {"exclude": "--exclude-all"}
    assert scheme["closest"]["max_sequences"] == 100
    assert "query" not in scheme["closest"]
    assert made["priorities"] == {"crowding_penalty": 0.0}


def test_place_name_with_quote_stays_one_name(lab: Lab, dump: int) -> None:
    arguments = {"location_id": lab.location("Africa", "Cote d'Ivoire")}
    run = lab.start("OVERVIEW", dump=dump, arguments=arguments)
    lab.export()
    made = build(lab, f"phylo_run/Alameda County/OVERVIEW/{run}/builds.yaml")
    query = made["subsampling"]["OVERVIEW"]["international"]["query"]
    assert query == "--query \"(country != 'Cote d\\'Ivoire')\""


def test_chicago_takes_samples_of_its_laboratory_elsewhere(lab: Lab) -> None:
    lab_name = "RIPHL at Rush University Medical Center"
    rows = [
        {**context_row(n, ("Asia", "Japan"), date(2022, 5, 1)), "submitting_lab": lab_name}
        for n in range(3)
    ]
    with lab.database.begin() as session:
        session.execute(
            sa.text("UPDATE aspen.groups SET name = :name WHERE id = :group"),
            {"name": "Chicago Department of Public Health", "group": GROUP},
        )
    run = lab.start("OVERVIEW", dump=lab.context(rows))
    columns = ("strain", "date", "region", "country", "submitting_lab")
    exported = lab.export()
    lab.replace(exported["dump"]["metadata"], table(rows, columns))
    assert lab.align().subsample()["subsamples"]["group"] == 3
    made = build(lab, f"phylo_run/Alameda County/OVERVIEW/{run}/builds.yaml")
    assert f"(submitting_lab == '{lab_name}')" in made["subsampling"]["OVERVIEW"]["group"]["query"]


def test_uploaded_sequence_is_cleaned(lab: Lab, dump: int) -> None:
    letters = mutated("a")
    text = f">header\nNNNn{letters[:500].lower()}\r\n;comment\n{letters[500:]} nnN\n"
    lab.add_samples(["USA/CA-1/2023"], sequences={"USA/CA-1/2023": text})
    lab.start("OVERVIEW", dump=dump)
    lab.export()
    exported = read_fasta(lab.folder / "tree-export" / "sequences.fasta")
    assert exported == {"USA/CA-1/2023": letters}
    assert read_table(lab.folder / "tree-export" / "metadata.tsv")[0]["length"] == "1200"


def test_sample_of_another_group_can_be_chosen(lab: Lab, dump: int) -> None:
    chosen = lab.add_samples(["USA/CA-7/2023"], group=3)
    lab.add_samples(["USA/CA-8/2023"], group=3)
    lab.start("TARGETED", chosen, dump=dump)
    lab.export()
    exported = read_fasta(lab.folder / "tree-export" / "sequences.fasta")
    assert list(exported) == ["USA/CA-7/2023"]


@pytest.mark.parametrize(
    ("sequence", "reason"),
    [("N" * 900, "has no known bases"), ("", "is empty"), (">x\nNNN\n", "has no known bases")],
)
def test_chosen_sample_without_bases_is_named(
    lab: Lab, dump: int, sequence: str, reason: str
) -> None:
    names = ["USA/CA-1/2023", "hCoV-19/USA/CA-2/2023"]
    chosen = lab.add_samples(names, sequences={names[0]: mutated("a"), names[1]: sequence})
    lab.start("TARGETED", chosen, dump=dump)
    with pytest.raises(StepError, match=rf"genome of USA/CA-2/2023 \(sample ID \d+\) {reason}"):
        lab.export()


def test_other_samples_without_bases_are_left_out(
    lab: Lab, dump: int, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["USA/CA-1/2023", "USA/CA-2/2023", "USA/CA-3/2023"]
    sequences = {names[0]: mutated("a"), names[1]: "NNN", names[2]: None}
    chosen = lab.add_samples(names, sequences=sequences)[:1]
    lab.start("TARGETED", chosen, dump=dump)
    lab.export()
    assert list(read_fasta(lab.folder / "tree-export" / "sequences.fasta")) == names[:1]
    assert "Left out a sample: the genome of USA/CA-2/2023" in capsys.readouterr().err


def test_two_chosen_samples_with_one_name_are_both_named(lab: Lab, dump: int) -> None:
    one = lab.add_samples(["hCoV-19/USA/CA-1/2023"])
    other = lab.add_samples(["hCoV-19/USA/CA-1/2023"], group=3)
    lab.start("TARGETED", one + other, dump=dump)
    with pytest.raises(StepError) as caught:
        lab.export()
    text = str(caught.value)
    assert text.startswith("Two of the chosen samples have the public identifier USA/CA-1/2023")
    assert f"(ID {one[0]}, Bayside Department of Public Health)" in text
    assert f"(ID {other[0]}, Valley State University Virology)" in text


def test_chosen_sample_replaces_another_with_its_name(lab: Lab, dump: int) -> None:
    lab.add_samples(["USA/CA-1/2023"], sequences={"USA/CA-1/2023": mutated("first")})
    second = "hCoV-19/USA/CA-1/2023"
    chosen = lab.add_samples([second], sequences={second: mutated("second")})
    lab.start("TARGETED", chosen, dump=dump)
    lab.export()
    exported = read_fasta(lab.folder / "tree-export" / "sequences.fasta")
    assert exported == {"USA/CA-1/2023": mutated("second")}


def test_targeted_run_needs_a_chosen_sample(lab: Lab, dump: int) -> None:
    lab.add_samples(["USA/CA-1/2023"])
    lab.start("TARGETED", dump=dump)
    with pytest.raises(StepError, match=r"^No samples were chosen\. A TARGETED tree"):
        lab.export()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"filter_start_date": "someday"}, "Invalid filter_start_date: 'someday'"),
        (
            {"filter_start_date": "2023-01-02", "filter_end_date": "2023-01-01"},
            "filter_start_date .2023-01-02. is after filter_end_date",
        ),
        ({"location_id": 999_999}, "location of the tree, 999999, does not exist"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    lab: Lab, dump: int, arguments: dict[str, Any], reason: str
) -> None:
    lab.start("OVERVIEW", dump=dump, arguments=arguments)
    with pytest.raises(StepError, match=reason):
        lab.export()


def test_region_is_too_large_for_a_tree(lab: Lab, dump: int) -> None:
    lab.start("OVERVIEW", dump=dump, arguments={"location_id": lab.location("Europe")})
    with pytest.raises(StepError, match="has no country"):
        lab.export()


def test_run_without_dump_is_refused(lab: Lab) -> None:
    lab.start("OVERVIEW", lab.add_samples(["USA/CA-1/2023"]))
    with pytest.raises(StepError, match="no public data to compare"):
        lab.export()


def test_failed_run_is_started_again_and_completed_one_is_not(lab: Lab, dump: int) -> None:
    run = lab.start("OVERVIEW", dump=dump)
    status = "SELECT workflow_status, end_datetime FROM aspen.workflows WHERE id = :run"

    def set_to(value: str) -> None:
        with lab.database.begin() as session:
            session.execute(
                sa.text(
                    "UPDATE aspen.workflows SET workflow_status = :value, end_datetime = now()"
                    " WHERE id = :run"
                ),
                {"value": value, "run": run},
            )

    set_to("FAILED")
    lab.export()
    assert lab.rows(status, run=run) == [("STARTED", None)]
    set_to("COMPLETED")
    with pytest.raises(StepError, match=f"^Run {run} is completed"):
        lab.export()
    assert lab.rows(status, run=run)[0][0] == "COMPLETED"


def test_mpox_uses_aligned_genomes(lab: Lab) -> None:
    lab.pathogen = "MPX"
    chosen = lab.add_samples(["MPXV/USA/CA-1/2023"])
    lab.start("NON_CONTEXTUALIZED", chosen, dump=lab.context([]))
    with pytest.raises(StepError, match=r"^Sample MPXV/USA/CA-1/2023 .*: no aligned genome"):
        lab.export()


# The peak of a process of its own; the one that the system reports for children includes what the
# parent had before.
_PEAK = "VmHWM:"
_MEASURED = f"""
import runpy, sys
sys.argv[1:] = ["tree-export", sys.argv[1]]
try:
    runpy.run_module("aspen.workflows.steps", run_name="__main__", alter_sys=True)
finally:
    with open("/proc/self/status") as status:
        print(*[line.split()[1] for line in status if line.startswith("{_PEAK}")])
"""


def _process(lab: Lab, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _MEASURED, str(lab.folder)],
        env={**os.environ, **lab.environment()},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_genomes(lab: Lab, dump: int) -> None:
    lab.add_samples(["USA/CA-1/2023"])
    lab.start("OVERVIEW", dump=dump)
    before = _process(lab)
    assert before.returncode == 0, before.stderr
    _multiply(lab, 3_000)
    after = _process(lab)
    assert after.returncode == 0, after.stderr
    written = (lab.folder / "tree-export" / "sequences.fasta").stat().st_size
    assert written > 80_000_000
    grown = (int(after.stdout.split()[-1]) - int(before.stdout.split()[-1])) * 1024
    assert grown < 30_000_000


def _multiply(lab: Lab, number: int) -> None:
    """Add samples with whole genomes by SQL, which is faster."""
    columns = (
        "submitting_group_id, sample_collected_by, authors, collection_date, organism,"
        " uploaded_by_id, location_id, pathogen_id, private"
    )
    statements = f"""
        INSERT INTO aspen.samples (private_identifier, public_identifier, original_submission,
                                   {columns})
        SELECT 'm' || n, 'm' || n, '{{}}', {columns}
          FROM aspen.samples, generate_series(1, {number}) n
         WHERE public_identifier = 'USA/CA-1/2023';
        CREATE TEMP TABLE made AS
        SELECT id AS sample, nextval('aspen.entities_id_seq') AS entity
          FROM aspen.samples WHERE public_identifier LIKE 'm%';
        INSERT INTO aspen.entities (id, entity_type)
        SELECT entity, 'UPLOADED_PATHOGEN_GENOME' FROM made;
        INSERT INTO aspen.pathogen_genomes (entity_id, sequence, num_unambiguous_sites,
                                            num_missing_alleles, num_mixed)
        SELECT entity, repeat('ACGTTGCA', 3750), 30000, 0, 0 FROM made;
        INSERT INTO aspen.uploaded_pathogen_genomes (pathogen_genome_id, sample_id)
        SELECT entity, sample FROM made
    """
    with lab.database.begin() as session:
        for statement in statements.split(";"):
            session.execute(sa.text(statement))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_process_explains_refusal_without_traceback(lab: Lab, dump: int) -> None:
    lab.start("TARGETED", dump=dump)
    done = _process(lab)
    assert done.returncode == REFUSED
    assert "Traceback" not in done.stderr
    reason = (lab.folder / "tree-export" / REASON_NAME).read_text()
    assert reason.startswith("No samples were chosen.")
    assert json.loads((lab.folder / "job.json").read_text())["run_id"]


def test_places_have_coordinates_of_database(lab: Lab, dump: int) -> None:
    with lab.database.begin() as session:
        session.execute(sa.text("UPDATE aspen.locations SET latitude = NULL, longitude = NULL"))
    county = lab.location("North America", "USA", "California", "Alameda County")
    state = lab.location("North America", "USA", "California")
    with lab.database.begin() as session:
        for number, place in enumerate((county, state)):
            session.execute(
                sa.text(
                    "UPDATE aspen.locations SET latitude = :n, longitude = -1.5 WHERE id = :id"
                ),
                {"n": number, "id": place},
            )
    lab.start("TARGETED", lab.add_samples(["USA/CA-1/2023"]), dump=dump)
    lab.export()
    written = (lab.workspace("tree-export").out / "lat_longs.tsv").read_text().splitlines()
    assert written == ["division\tCalifornia\t1.0\t-1.5", "location\tAlameda County\t0.0\t-1.5"]
