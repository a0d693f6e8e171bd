"""Whole trees: the four steps, and the Auspice JSON that they make."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("augur", reason="the extra 'workflows' is not installed")
pytest.importorskip("piqtree", reason="the extra 'workflows' is not installed")

from aspen.api.trees import Labels
from aspen.api.trees import tips as shown_tips
from aspen.workflows.tree.refine import usable_date
from tests.workflows.tree.samples import (
    REAL,
    SEQUENCE,
    WUHAN,
    Job,
    Sample,
    mutated,
    needs_real_genomes,
    nodes,
    outbreak,
    real_samples,
    tips,
)

pytestmark = pytest.mark.timeout(900)  # some trees take a minute of CPU time


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Run all steps for a generated outbreak."""
    job = Job(tmp_path_factory.mktemp("job"))
    samples = outbreak(40)
    for number, sample in enumerate(samples):
        sample.more = {
            "pango_lineage": f"B.{number % 3}",
            "authors": "Doe et al",
            "gisaid_epi_isl": f"EPI_ISL_{number}",
            "genbank_accession": f"MT{number:06}" if number % 2 else "",
            "secret": "private",
        }
    samples.append(Sample("Made/empty/2020", "N" * 29_903))
    job.run(samples)
    return job


@pytest.fixture
def document(job: Job) -> dict[str, Any]:
    return job.tree()


def test_augur_finds_json_valid(job: Job) -> None:
    path = job.folder / "tree-assemble" / "tree.json"
    done = subprocess.run(
        [sys.executable, "-m", "augur", "validate", "export-v2", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stderr


def test_tips_are_samples_and_reference(document: dict[str, Any]) -> None:
    assert set(tips(document)) == {WUHAN, *(sample.name for sample in outbreak(40))}


def test_root_is_reference(document: dict[str, Any]) -> None:
    root = document["tree"]
    assert tips(document)[WUHAN]["node_attrs"]["div"] == root["node_attrs"]["div"] == 0
    assert WUHAN in [child["name"] for child in root["children"]]
    assert root["branch_attrs"].get("mutations", {}) == {}


def test_display_has_title_colorings_places_and_panels(document: dict[str, Any]) -> None:
    meta = document["meta"]
    assert meta["title"] == "A generated outbreak"
    assert meta["panels"] == ["tree", "map", "entropy"]
    keys = [coloring["key"] for coloring in meta["colorings"]]
    assert {"gt", "num_date", "pango_lineage", "country", "author", "S1_mutations"} <= set(keys)
    assert "emerging_lineage" not in keys  # there are no data
    assert meta["display_defaults"]["color_by"] == "pango_lineage"
    assert meta["display_defaults"]["distance_measure"] == "div"
    assert meta["display_defaults"]["geo_resolution"] == "division"
    assert [each["key"] for each in meta["geo_resolutions"]] == ["region", "country", "division"]
    assert set(meta["filters"]) <= set(keys)
    assert set(meta["genome_annotations"]) >= {"nuc", "ORF1a", "S", "N"}
    assert meta["genome_annotations"]["S"]["seqid"] == "MN908947.3"


def test_nodes_have_accessions_and_nothing_private(job: Job, document: dict[str, Any]) -> None:
    attributes = tips(document)["Made/002/2020"]["node_attrs"]
    assert attributes["gisaid_epi_isl"]["value"] == "EPI_ISL_1"
    assert attributes["genbank_accession"] == {
        "value": "MT000001",
        "url": "https://www.ncbi.nlm.nih.gov/nuccore/MT000001",
    }
    assert attributes["author"]["value"] == "Doe et al"
    assert "private" not in job.read("tree-assemble", "tree.json")
    assert str(job.folder) not in job.read("tree-assemble", "tree.json")


def test_dates_of_samples_are_theirs(document: dict[str, Any]) -> None:
    for sample in outbreak(40):
        found = tips(document)[sample.name]["node_attrs"]["num_date"]
        year, month, day = map(int, sample.date.split("-"))
        assert found["value"] == pytest.approx(year + (month - 1) / 12 + day / 365, abs=0.01)
        assert found["inferred"] is False


def test_nodes_are_older_than_their_descendants(document: dict[str, Any]) -> None:
    for node in nodes(document):
        for child in node.get("children", ()):
            dates = [each["node_attrs"]["num_date"]["value"] for each in (node, child)]
            assert dates[0] <= dates[1] + 0.01


def test_mutations_on_path_make_the_genome(document: dict[str, Any]) -> None:
    sequences = {sample.name: sample.sequence for sample in outbreak(40)}
    above = {document["tree"]["name"]: list(SEQUENCE)}
    for node in nodes(document):
        for child in node.get("children", ()):
            genome = above[node["name"]].copy()
            for mutation in child["branch_attrs"].get("mutations", {}).get("nuc", ()):
                site = int(mutation[1:-1]) - 1
                assert genome[site] == mutation[0]
                genome[site] = mutation[-1]
            above[child["name"]] = genome
    for name, sequence in sequences.items():
        assert "".join(above[name]) == sequence


def test_estimated_clock_and_excluded_sample_are_described(document: dict[str, Any]) -> None:
    text = document["meta"]["description"]
    found = re.match(r"Clock rate: (\S+) substitutions per site and year, estimated from", text)
    assert found, text
    assert 4e-4 <= float(found[1]) <= 1.2e-3
    assert "Left out: Made/empty/2020 has no known bases (only N)." in text


def test_steps_record_true_versions(job: Job) -> None:
    found = json.loads(job.read("tree-refine", "versions.json"))
    assert found["nextstrain-augur"].startswith("34.")
    assert set(found) == {"nextstrain-augur", "phylo-treetime"}


def test_service_shows_private_names(job: Job) -> None:
    """The service renames nodes by their public names without a prefix."""
    body = job.read("tree-assemble", "tree.json").encode()
    labels = Labels({}, ["hCoV-19"], "GISAID_ID", {})
    assert ("Made/001/2020", "Made/001/2020") in list(shown_tips(body, labels))


def test_step_can_run_again(job: Job) -> None:
    before = job.read("tree-refine", "nt_muts.json")
    job.done("tree-refine")
    assert job.read("tree-refine", "nt_muts.json") == before


def test_traits_of_ancestors_are_inferred(document: dict[str, Any]) -> None:
    inner = [node for node in nodes(document) if "children" in node]
    assert all(node["node_attrs"]["country"]["value"] for node in inner)
    assert any("confidence" in node["node_attrs"]["country"] for node in inner)


@pytest.mark.parametrize("number", [1, 2])
def test_tree_of_few_samples(number: int, tmp_path: Path) -> None:
    document = Job(tmp_path).run(outbreak(number))
    assert len(tips(document)) == number + 1
    assert "a fixed rate" in (text := document["meta"]["description"]) or "no dates" in text


def test_tree_of_equal_genomes(tmp_path: Path) -> None:
    samples = [Sample(f"same/{number}", SEQUENCE, "2020-03-01") for number in range(12)]
    document = Job(tmp_path).run(samples)
    assert len(tips(document)) == 13
    assert (
        "8.00e-04 substitutions per site and year, a fixed rate" in document["meta"]["description"]
    )


def test_dates_without_signal_get_a_fixed_clock(tmp_path: Path) -> None:
    samples = outbreak(25)
    for sample, other in zip(samples, reversed(outbreak(25)), strict=True):
        sample.date = other.date
    document = Job(tmp_path).run(samples)
    assert (
        "8.00e-04 substitutions per site and year, a fixed rate" in document["meta"]["description"]
    )
    assert set(tips(document)) >= {sample.name for sample in samples}  # chosen ones all stay


def test_incomplete_and_missing_dates_are_inferred(tmp_path: Path) -> None:
    samples = outbreak(20)
    true = {sample.name: sample.date for sample in samples}
    for sample, text in zip(
        samples[10:],
        [
            "2020-03-XX",
            "2020-03",
            "2020",
            "",
            "?",
            "XXXX-XX-XX",
            "2020-13-45",
            "nonsense",
            "2020-XX-XX",
            "2020-02-30",
        ],
        strict=True,
    ):
        sample.date = text
    document = Job(tmp_path).run(samples)
    found = {name: node["node_attrs"]["num_date"] for name, node in tips(document).items()}
    assert [found[sample.name]["inferred"] for sample in samples] == [False] * 10 + [True] * 10
    assert 2020.16 < found[samples[10].name]["value"] < 2020.26
    assert true.keys() <= found.keys()


def test_no_dates_at_all_make_a_tree_without_dates(tmp_path: Path) -> None:
    samples = [Sample(sample.name, sample.sequence, "") for sample in outbreak(5)]
    document = Job(tmp_path).run(samples)
    assert all("num_date" not in node["node_attrs"] for node in nodes(document))
    assert (
        "have no dates: fewer than 3 samples have a collection date"
        in (document["meta"]["description"])
    )


def test_outlier_is_kept_if_chosen_and_removed_if_not(tmp_path: Path) -> None:
    job = Job(tmp_path)
    samples = outbreak(40)
    sequence = samples[-1].sequence  # TreeTime spares the children of the root
    odd = [
        Sample(name, mutated(sequence, range(first, first + 1_600, 40)), "2020-03-01")
        for name, first in (("odd/chosen", 5_000), ("odd/context", 15_000))
    ]
    everyone = [*samples, *odd]
    job.export(everyone, include=[each.name for each in everyone if each.name != "odd/context"])
    job.done("tree-align")
    job.subsample(everyone)
    for step in ("tree-build", "tree-refine", "tree-assemble"):
        job.done(step)
    document = job.tree()
    assert "odd/chosen" in tips(document)
    assert "odd/context" not in tips(document)
    assert "contradict each other: odd/context." in document["meta"]["description"]


def test_names_are_free_text(tmp_path: Path) -> None:
    names = ["hCoV-19/a b(c)", "d,e:f;g", "'quoted'", '"double"', "[h]", "ü", "NA", "#1"]
    samples = outbreak(20)
    for name, sample in zip(names, samples, strict=False):
        sample.name = name
    document = Job(tmp_path).run(samples)
    assert set(tips(document)) == {WUHAN, *(sample.name for sample in samples)}
    dates = {
        name: node["node_attrs"]["num_date"]["inferred"] for name, node in tips(document).items()
    }
    assert not any(dates.values())


def test_metadata_is_free_text(tmp_path: Path) -> None:
    samples = outbreak(12)
    samples[0].more = {"originating_lab": '"First" lab', "authors": "O'Neill, é"}
    samples[1].more = {"location": "12"}
    samples[2].place = ("Europe", "Nowhere land", "")
    document = Job(tmp_path).run(samples)
    found = tips(document)
    assert found[samples[0].name]["node_attrs"]["originating_lab"]["value"] == '"First" lab'
    assert found[samples[2].name]["node_attrs"]["country"]["value"] == "Nowhere land"


def test_coordinates_in_metadata_place_a_sample(tmp_path: Path) -> None:
    samples = outbreak(12)
    samples[0].place = ("Europe", "Nowhere land", "")
    samples[0].more = {"latitude": "12.5", "longitude": "-3"}
    document = Job(tmp_path).run(samples)
    (countries,) = (
        each["demes"] for each in document["meta"]["geo_resolutions"] if each["key"] == "country"
    )
    assert countries["Nowhere land"] == {"latitude": 12.5, "longitude": -3.0}


def test_deep_tree(tmp_path: Path) -> None:
    """Each sample descends from the one before: the tree is as deep as it has samples."""
    samples = []
    genome = SEQUENCE
    for number in range(400):
        genome = mutated(genome, [300 + 70 * number])
        samples.append(Sample(f"deep/{number}", genome, ""))  # dating them takes minutes
    document = Job(tmp_path).run(samples)
    depth = {document["tree"]["name"]: 0}
    for node in nodes(document):
        for child in node.get("children", ()):
            depth[child["name"]] = depth[node["name"]] + 1
    assert max(depth.values()) >= 398


def test_mpox_tree_has_no_dates(tmp_path: Path) -> None:
    base = (SEQUENCE * 6)[:170_000]
    samples = [
        Sample(f"MPX/{number}", mutated(base, range(2_000, 2_000 + 50 * number, 50)), "2022-06-01")
        for number in range(8)
    ]
    document = Job(tmp_path, pathogen="MPX").run(samples)
    assert set(tips(document)) == {sample.name for sample in samples}
    assert all("num_date" not in node["node_attrs"] for node in nodes(document))
    assert document["meta"]["panels"] == ["tree", "map", "entropy"]


def test_mpox_tree_of_one_sample(tmp_path: Path) -> None:
    document = Job(tmp_path, pathogen="MPX").run([Sample("MPX/1", (SEQUENCE * 6)[:170_000])])
    assert set(tips(document)) == {"MPX/1"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2020-03-05", "2020-03-05"),
        ("2020-3-5", "2020-03-05"),
        ("2020-03-05T12:00:00", "2020-03-05"),
        ("2020-03", "2020-03-XX"),
        ("2020-03-xx", "2020-03-XX"),
        ("2020-02-30", "2020-02-XX"),
        ("2020", "2020-XX-XX"),
        ("2020-XX-05", "2020-XX-XX"),
        ("2020-13-01", "2020-XX-XX"),
        ("XXXX-XX-XX", "XXXX-XX-XX"),
        ("", "XXXX-XX-XX"),
        ("soon", "XXXX-XX-XX"),
        ("2999-01-01", "XXXX-XX-XX"),
        ("0020-03-05", "XXXX-XX-XX"),
    ],
)
def test_usable_date(given: str, expected: str) -> None:
    assert usable_date(given) == expected


@needs_real_genomes
def test_tree_of_real_genomes(tmp_path: Path) -> None:
    samples = real_samples()
    job = Job(tmp_path)
    job.export(samples)
    assert REAL is not None
    shutil.copy(REAL / "ncov_lat_longs.tsv", tmp_path / "tree-export" / "lat_longs.tsv")
    document = job.run(samples)
    found = tips(document)
    assert set(found) == {sample.name for sample in samples}
    root = document["tree"]
    assert found[WUHAN]["node_attrs"]["div"] == root["node_attrs"]["div"] == 0
    notes = json.loads(job.read("tree-refine", "notes.json"))
    assert notes["estimated"]
    assert 4e-4 <= notes["rate"] <= 1.2e-3
    # The mutation that split the outbreak in 2020 is on one branch, with most samples below it.
    carriers = [
        node
        for node in nodes(document)
        if "S" in (changes := node["branch_attrs"].get("mutations", {})) and "D614G" in changes["S"]
    ]
    below = max(len(list(tips({"tree": node}))) for node in carriers)
    assert below > 150
    assert document["meta"]["display_defaults"]["geo_resolution"] == "location"
