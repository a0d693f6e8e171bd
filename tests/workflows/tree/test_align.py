"""Alignment to the reference."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("edlib", reason="the extra 'workflows' is not installed")

from aspen.workflows.data import GENOMES, Genome
from aspen.workflows.steps import StepError
from aspen.workflows.tree import align, programs
from tests.workflows.tree.samples import (
    REFERENCE,
    SC2,
    SEQUENCE,
    Job,
    Sample,
    mutated,
    needs_real_genomes,
    outbreak,
    real_samples,
    write_fasta,
)

Align = Callable[..., align.Result]
COMPLEMENT = str.maketrans("ACGT", "TGCA")


@pytest.fixture(params=["edlib", "minimap2"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose a program; one that is not installed skips the test."""
    name: str = request.param
    if name == "minimap2" and not shutil.which(name):
        pytest.skip("minimap2 is not installed")
    monkeypatch.setattr(programs, "installed", lambda each: each == name)
    return name


@pytest.fixture
def aligned(program: str, tmp_path: Path) -> Align:
    """Return a function that aligns samples."""

    def run(*samples: Sample, genome: Genome = SC2) -> align.Result:
        write_fasta(tmp_path / "sequences.fasta", samples)
        return align.align(tmp_path / "sequences.fasta", genome, tmp_path)

    return run


def _one(result: align.Result) -> str:
    (text,) = result.aligned.values()
    return text


def test_reference_is_whole() -> None:
    assert len(SEQUENCE) == 29_903
    assert set(SEQUENCE) == set("ACGT")


def test_genome_with_substitutions_is_unchanged(aligned: Align) -> None:
    genome = mutated(SEQUENCE, [500, 501, 3_000, 23_403])
    assert _one(aligned(Sample("a", genome))) == genome


def test_insertion_is_dropped(aligned: Align) -> None:
    genome = SEQUENCE[:10_000] + "GAGCCAGAA" + SEQUENCE[10_000:]
    assert _one(aligned(Sample("a", genome))) == SEQUENCE


def test_deletion_becomes_gaps(aligned: Align) -> None:
    genome = SEQUENCE[:21_764] + SEQUENCE[21_770:]
    text = _one(aligned(Sample("a", genome)))
    assert len(text) == len(SEQUENCE)
    assert text.count("-") == 6
    assert text.replace("-", "") == genome


def test_missing_ends_become_gaps(aligned: Align) -> None:
    text = _one(aligned(Sample("a", SEQUENCE[54:29_836])))
    assert text == "-" * 54 + SEQUENCE[54:29_836] + "-" * 67


def test_unknown_ends_become_gaps_and_stretches_within_stay(aligned: Align) -> None:
    genome = "N" * 54 + SEQUENCE[54:8_000] + "N" * 300 + SEQUENCE[8_300:29_836] + "n" * 67
    expected = "-" * 54 + SEQUENCE[54:8_000] + "N" * 300 + SEQUENCE[8_300:29_836] + "-" * 67
    assert _one(aligned(Sample("a", genome))) == expected


def test_overhanging_ends_are_dropped(aligned: Align) -> None:
    genome = "ACGTTGCAAC" + SEQUENCE + "GGATCCATGC"
    text = _one(aligned(Sample("a", genome)))
    assert text[:29_860] == SEQUENCE[:29_860]
    assert len(text) == 29_903


def test_substitution_near_end_is_kept(aligned: Align) -> None:
    genome = mutated(SEQUENCE, [12, 29_800])
    text = _one(aligned(Sample("a", genome)))
    assert text[:29_850] == genome[:29_850]


def test_ambiguous_bases_count_as_equal(aligned: Align) -> None:
    assert SEQUENCE[999] == "T"
    genome = SEQUENCE[:999] + "Y" + SEQUENCE[1_000:]
    assert _one(aligned(Sample("a", genome))) == genome


def test_case_gaps_and_rna_are_normalized(aligned: Align) -> None:
    genome = SEQUENCE.lower().replace("t", "u")
    assert _one(aligned(Sample("a", genome[:70] + "--" + genome[70:]))) == SEQUENCE


def test_sequence_of_n_is_excluded_with_reason(aligned: Align) -> None:
    result = aligned(Sample("empty", "N" * 29_903), Sample("good", SEQUENCE))
    assert result.excluded == {"empty": "has no known bases (only N)"}
    assert list(result.aligned) == ["good"]


def test_short_sequence_is_excluded_with_reason(aligned: Align) -> None:
    result = aligned(Sample("short", SEQUENCE[1_000:2_000]), Sample("good", SEQUENCE))
    assert result.excluded == {"short": "has only 1,000 known bases; a tree needs 3,000"}


def test_foreign_sequence_is_excluded_with_reason(aligned: Align) -> None:
    chance = random.Random(5)
    result = aligned(
        Sample("foreign", "".join(chance.choices("ACGT", k=29_903))), Sample("good", SEQUENCE)
    )
    assert result.excluded == {"foreign": "does not resemble the reference genome"}


def test_reverse_complement_is_excluded_with_reason(aligned: Align) -> None:
    result = aligned(Sample("back", SEQUENCE[::-1].translate(COMPLEMENT)), Sample("good", SEQUENCE))
    assert result.excluded == {"back": "is reverse-complemented"}


def test_half_foreign_sequence_is_excluded_with_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "installed", lambda _name: False)
    chance = random.Random(5)
    foreign = "".join(chance.choices("ACGT", k=15_000))
    write_fasta(
        tmp_path / "a.fasta", [Sample("half", SEQUENCE[:10_000] + foreign + SEQUENCE[25_000:])]
    )
    reason = align.align(tmp_path / "a.fasta", SC2, tmp_path).excluded["half"]
    assert reason.startswith("does not resemble the reference genome: only ")


def test_rearranged_sequence_is_excluded_with_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "installed", lambda _name: False)
    write_fasta(tmp_path / "a.fasta", [Sample("turned", SEQUENCE[15_000:] + SEQUENCE[:15_000])])
    result = align.align(tmp_path / "a.fasta", SC2, tmp_path)
    assert result.excluded == {"turned": "has parts in another order than the reference genome"}


@pytest.mark.parametrize("names", [("x", "x"), ("hCoV-19/x", "x")])
def test_two_samples_with_one_name_are_named(tmp_path: Path, names: tuple[str, str]) -> None:
    write_fasta(tmp_path / "a.fasta", [Sample(name, SEQUENCE) for name in names])
    with pytest.raises(StepError, match="Two samples are named x"):
        align.align(tmp_path / "a.fasta", SC2, tmp_path)


def test_aligned_genomes_pass_through(tmp_path: Path) -> None:
    first = "ACGT" * 40_000
    write_fasta(tmp_path / "a.fasta", [Sample("one", first), Sample("two", first[:-4] + "ac-n")])
    result = align.align(tmp_path / "a.fasta", GENOMES["MPX"], tmp_path)
    assert result.aligned == {"one": first, "two": first[:-4] + "AC-N"}
    assert result.versions == {}


def test_aligned_genomes_of_different_lengths_are_named(tmp_path: Path) -> None:
    write_fasta(tmp_path / "a.fasta", [Sample("one", "A" * 150_000), Sample("two", "A" * 150_001)])
    with pytest.raises(
        StepError, match="genome of two has 150,001 sites, and that of one has 150,000"
    ):
        align.align(tmp_path / "a.fasta", GENOMES["MPX"], tmp_path)


def test_aligned_genome_that_is_too_short_is_excluded(tmp_path: Path) -> None:
    write_fasta(tmp_path / "a.fasta", [Sample("one", "A" * 90_000 + "-" * 100_000)])
    result = align.align(tmp_path / "a.fasta", GENOMES["MPX"], tmp_path)
    assert result.excluded == {"one": "has only 90,000 known bases; a tree needs 100,000"}


class TestStep:
    def test_report_has_result_of_each_sequence(self, tmp_path: Path) -> None:
        job = Job(tmp_path)
        samples = [*outbreak(2), Sample("Made/empty/2020", "N" * 29_903)]
        job.export(samples)
        done = job.step("tree-align", PATH="")
        assert done.returncode == 0, done.stderr
        assert job.read("tree-align", "report.tsv").splitlines() == [
            "strain\tresult",
            "Made/001/2020\taligned",
            "Made/002/2020\taligned",
            "Made/empty/2020\thas no known bases (only N)",
        ]
        assert "Warning: Made/empty/2020 is not in the tree: its genome has no known" in done.stdout
        assert job.read("tree-align", "versions.json").startswith('{"edlib": "1.3')

    def test_only_chosen_sample_of_n_fails_and_is_named(self, tmp_path: Path) -> None:
        job = Job(tmp_path)
        job.export([*outbreak(2), Sample("bad one", "N" * 100)], include=["bad one"])
        assert job.refused("tree-align") == "The genome of bad one has no known bases (only N)."

    def test_all_chosen_samples_unusable_fails_and_names_them(self, tmp_path: Path) -> None:
        job = Job(tmp_path)
        job.export([Sample("a", "N" * 100), Sample("b", SEQUENCE[:500]), *outbreak(1)], ["a", "b"])
        assert job.refused("tree-align") == (
            "None of the genomes of a and b can be used: that of a has no known bases (only N)."
        )

    def test_no_sequences_leave_an_empty_alignment(self, tmp_path: Path) -> None:
        job = Job(tmp_path)
        job.export([])
        job.done("tree-align")
        assert job.read("tree-align", "aligned.fasta") == ""

    def test_only_public_samples_chosen_leaves_an_empty_alignment(self, tmp_path: Path) -> None:
        job = Job(tmp_path)
        job.export([], include=["USA/CA-1/2020"])
        job.done("tree-align")
        assert job.read("tree-align", "aligned.fasta") == ""

    def test_pathogen_without_trees_is_named(self, tmp_path: Path) -> None:
        job = Job(tmp_path, pathogen="RSV")
        job.export(outbreak(1))
        assert job.refused("tree-align") == "Trees of RSV cannot be built: only SC2 and MPX."


def test_nextalign_is_used_if_installed(tmp_path: Path) -> None:
    """A program with the interface of Nextalign 2 stands in for it."""
    folder = tmp_path / "programs"
    folder.mkdir()
    program = folder / "nextalign"
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && { echo nextalign 2.14.0; exit; }\n'
        "for option; do case $option in --output-fasta=*) out=${option#*=};; esac; done\n"
        '[ "$1" = run ] && [ "$4" = --jobs=1 ] && sed s/N/-/g "$5" >"$out"\n'
    )
    program.chmod(0o755)
    job = Job(tmp_path / "job")
    job.export([Sample("one two", SEQUENCE[:100] + "NNN" + SEQUENCE[103:])])
    job.done("tree-align", PATH=f"{folder}:/usr/bin:/bin")
    assert job.read("tree-align", "aligned.fasta") == (
        f">one two\n{SEQUENCE[:100]}---{SEQUENCE[103:]}\n"
    )
    assert job.read("tree-align", "versions.json") == '{"nextalign": "2.14.0"}'


def test_program_that_fails_fails_the_step(tmp_path: Path) -> None:
    folder = tmp_path / "programs"
    folder.mkdir()
    program = folder / "minimap2"
    program.write_text('#!/bin/sh\n[ "$1" = --version ] && echo 2.24 && exit\nexit 9\n')
    program.chmod(0o755)
    job = Job(tmp_path / "job")
    job.export(outbreak(1))
    reason = job.refused("tree-align", PATH=f"{folder}:/usr/bin:/bin")
    assert reason == "minimap2 failed with exit code 9; see the log."


@needs_real_genomes
def test_real_genomes_align_as_they_are(aligned: Align) -> None:
    samples = real_samples(60)
    result = aligned(*samples)
    assert result.excluded == {}
    for sample in samples:
        text = result.aligned[sample.name]
        assert len(text) == len(SEQUENCE)
        # Nothing but gaps and dropped insertions tells them apart: these genomes have few.
        differences = sum(
            one != other and one in "ACGT" for one, other in zip(text, SEQUENCE, strict=True)
        )
        assert differences <= 40, sample.name


def test_reference_files_have_accession() -> None:
    assert REFERENCE.sequence_file.read_text().startswith(f">{REFERENCE.accession} ")
    assert f"##sequence-region {REFERENCE.accession} 1 29903" in REFERENCE.genes_file.read_text()
