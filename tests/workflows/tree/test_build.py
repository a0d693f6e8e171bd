"""Building trees."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

pytest.importorskip("piqtree", reason="the extra 'workflows' is not installed")

from aspen.workflows.data import GENOMES
from aspen.workflows.steps import StepError
from aspen.workflows.tree import build, newick, parsimony, programs
from aspen.workflows.tree.newick import Node
from tests.workflows.tree.samples import (
    SC2,
    SEQUENCE,
    WUHAN,
    Job,
    mutated,
    outbreak,
    reference_sample,
    write_fasta,
)

Splits = set[frozenset[str]]


@pytest.fixture(params=["piqtree", "iqtree2"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose a program; one that is not installed skips the test."""
    name: str = request.param
    if name == "iqtree2" and not shutil.which(name):
        pytest.skip("iqtree2 is not installed")
    monkeypatch.setattr(programs, "installed", lambda each: each == name)
    return name


def clades(root: Node) -> Splits:
    """Return the tips below each node with children."""
    below: dict[Node, frozenset[str]] = {}
    for node in newick.postorder(root):
        parts = [below[child] for child in node.children] or [frozenset({node.name})]
        below[node] = frozenset().union(*parts)
    return {names for node, names in below.items() if node.children}


def _family() -> dict[str, str]:
    """Return the sequences of a tree: ((a,b),(c,(d,e))) below the reference."""
    ab = mutated(SEQUENCE, [1_000, 2_000])
    cde = mutated(SEQUENCE, [3_000, 4_000])
    de = mutated(cde, [5_000])
    return {
        WUHAN: SEQUENCE,
        "a": mutated(ab, [6_000]),
        "b": ab,
        "c": mutated(cde, [7_000]),
        "d": de,
        "e": mutated(de, [8_000]),
    }


def _built(sequences: Mapping[str, str], tmp_path: Path, pathogen: str = "SC2") -> Node:
    return build.build(sequences, GENOMES[pathogen], tmp_path).root


def test_tree_has_true_clades(program: str, tmp_path: Path) -> None:
    sequences = _family()
    everything = frozenset(sequences)
    expected = {everything, frozenset("ab"), frozenset("cde"), frozenset("de")}
    assert clades(_built(sequences, tmp_path)) == expected


def test_tree_is_the_same_with_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if not shutil.which("iqtree2"):
        pytest.skip("iqtree2 is not installed")
    chance = random.Random(1)
    sequences = {WUHAN: SEQUENCE}
    for number in range(120):
        sites = chance.sample(range(200, 29_000), 40)
        sequences[f"s{number}"] = mutated(SEQUENCE, sites)
    needed, trees = [], []
    for memory in (build.MEMORY, "2M"):
        monkeypatch.setattr(build, "MEMORY", memory)
        trees.append(clades(_built(sequences, tmp_path)))
        found = re.search(r"(\d+) MB RAM", "".join(capfd.readouterr()))
        assert found
        needed.append(int(found[1]))
    assert trees[0] == trees[1]
    assert needed[1] <= 2 < needed[0]


def test_reference_is_root(program: str, tmp_path: Path) -> None:
    root = _built(_family(), tmp_path)
    (reference,) = (child for child in root.children if not child.children)
    assert (reference.name, reference.length) == (WUHAN, 0)


def test_sequences_alike_form_a_polytomy(program: str, tmp_path: Path) -> None:
    same = mutated(SEQUENCE, [1_000])
    sequences = {WUHAN: SEQUENCE, **dict.fromkeys("abc", same)}
    sequences |= {name: mutated(SEQUENCE, [2_000 + number]) for number, name in enumerate("defg")}
    root = _built(sequences, tmp_path)
    assert clades(root) == {frozenset(sequences), frozenset("abc")}


def test_copies_of_reference_are_beside_it(program: str, tmp_path: Path) -> None:
    sequences = {"copy": SEQUENCE, WUHAN: SEQUENCE, "a": mutated(SEQUENCE, [900])}
    sequences |= {"b": mutated(SEQUENCE, [1_900]), "c": mutated(SEQUENCE, [2_900])}
    root = _built(sequences, tmp_path)
    assert sorted(child.name for child in root.children) == [WUHAN, "a", "b", "c", "copy"]


def test_unknown_bases_do_not_make_clades(program: str, tmp_path: Path) -> None:
    sequences = _family()
    sequences["d"] = sequences["d"][:4_500] + "N" * 600 + sequences["d"][5_100:]
    expected = {frozenset(sequences), frozenset("ab"), frozenset("cde")}
    assert expected <= clades(_built(sequences, tmp_path))


def test_masked_sites_do_not_count(tmp_path: Path) -> None:
    sequences = {
        WUHAN: SEQUENCE,
        "a": mutated(SEQUENCE, [50, 21_987]),
        "b": mutated(SEQUENCE, [50, 29_850]),
        "c": mutated(SEQUENCE, [900]),
        "d": mutated(SEQUENCE, [1_900]),
    }
    root = _built(sequences, tmp_path)
    assert clades(root) == {frozenset(sequences)}


@pytest.mark.parametrize("number", [1, 2])
def test_fewer_than_three_sequences_make_a_tree(number: int, tmp_path: Path) -> None:
    sequences = {WUHAN: SEQUENCE}
    sequences |= {f"s{index}": mutated(SEQUENCE, [900 + index]) for index in range(number)}
    root = _built(sequences, tmp_path)
    assert {tip.name for tip in newick.tips(root)} == set(sequences)
    lengths = {tip.name: round(tip.length * 29_903) for tip in newick.tips(root)}
    assert lengths == {name: int(name != WUHAN) for name in sequences}


def test_only_the_reference_makes_a_tree(tmp_path: Path) -> None:
    root = _built({WUHAN: SEQUENCE}, tmp_path)
    assert [tip.name for tip in newick.tips(root)] == [WUHAN]


def test_equal_sequences_make_a_tree(tmp_path: Path) -> None:
    root = _built({WUHAN: SEQUENCE, "a": SEQUENCE, "b": SEQUENCE, "c": SEQUENCE}, tmp_path)
    assert sorted(tip.name for tip in newick.tips(root)) == [WUHAN, "a", "b", "c"]
    assert clades(root) == {frozenset({WUHAN, "a", "b", "c"})}


def test_pathogen_without_reference_is_rooted_at_midpoint(tmp_path: Path) -> None:
    chance = random.Random(1)
    base = "".join(chance.choices("ACGT", k=160_000))
    sites = iter(chance.sample(range(2_000, 150_000), 30))
    near = mutated(base, [next(sites) for _ in range(10)])
    far = mutated(base, [next(sites) for _ in range(10)])
    sequences = {
        "a": near,
        "b": mutated(near, [next(sites)]),
        "c": far,
        "d": mutated(far, [next(sites)]),
    }
    root = _built(sequences, tmp_path, "MPX")
    assert clades(root) == {frozenset("abcd"), frozenset("ab"), frozenset("cd")}
    assert len(root.children) == 2


def test_names_are_free_text(tmp_path: Path) -> None:
    names = ["hCoV-19/a b(c)", "d,e:f;g", "'quoted'", "[h]", "ü", "NODE_0000001"]
    sequences = {WUHAN: SEQUENCE}
    sequences |= {name: mutated(SEQUENCE, [900 + 9 * k]) for k, name in enumerate(names)}
    root = _built(sequences, tmp_path)
    again = newick.parse(newick.write(root))
    found = {tip.name for tip in newick.tips(again)}
    assert found == {WUHAN, *(f"sample_{number}" for number in range(2, 8))}


def test_collapse_keeps_branches_with_substitutions() -> None:
    root = newick.parse("(((a:1,b:1):1,c:1):1,(d:1,e:1):1);")
    letters = {"a": "AAC", "b": "AAC", "c": "AAG", "d": "CAG", "e": "CAN"}
    left = parsimony.collapse(root, parsimony.informative(letters))
    assert clades(root) == {frozenset("abcde"), frozenset("ab"), frozenset("de")} or clades(
        root
    ) == {frozenset("abcde"), frozenset("ab"), frozenset("abc")}
    assert sum(left[node] for node in newick.preorder(root) if node is not root) == 2


class TestStep:
    def test_tree_has_all_samples_and_versions(self, tmp_path: Path) -> None:
        job = Job(tmp_path)
        samples = outbreak(20)
        job.export(samples)
        job.done("tree-align")
        job.subsample(samples)
        job.done("tree-build")
        root = newick.parse(job.read("tree-build", "tree.nwk"))
        assert {tip.name for tip in newick.tips(root)} == {WUHAN, *(each.name for each in samples)}
        assert root.children[0].name == WUHAN
        assert any(
            name in job.read("tree-build", "versions.json") for name in ("piqtree", "iqtree2")
        )
        assert sorted(path.name for path in (tmp_path / "tree-build").iterdir()) == [
            "tree.nwk",
            "versions.json",
        ]

    def test_empty_alignment_fails(self, tmp_path: Path) -> None:
        job = Job(tmp_path)
        job.export(outbreak(1))
        (tmp_path / "tree-subsample").mkdir()
        (tmp_path / "tree-subsample" / "aligned.fasta").touch()
        assert job.refused("tree-build") == "No sequences are left to build a tree of."

    def test_sequence_of_another_length_is_named(self, tmp_path: Path) -> None:
        job = Job(tmp_path)
        job.export(samples := outbreak(1))
        samples[0].sequence += "A"
        write_fasta(tmp_path / "tree-subsample" / "aligned.fasta", [reference_sample(), *samples])
        assert job.refused("tree-build") == (
            f"The aligned genome of {samples[0].name} has 29,904 sites, and that of {WUHAN} has"
            " 29,903."
        )


def test_duplicate_name_is_named(tmp_path: Path) -> None:
    write_fasta(tmp_path / "a.fasta", [reference_sample(), reference_sample()])
    with pytest.raises(StepError, match=f"Two sequences of the tree are named {WUHAN}"):
        build.read_alignment(tmp_path / "a.fasta")


def test_mask_covers_ends_and_sites() -> None:
    masked = SC2.mask(SEQUENCE)
    assert len(masked) == len(SEQUENCE)
    assert [number for number, base in enumerate(masked, 1) if base == "N"] == [
        *range(1, 101),
        21_846,
        21_987,
        *range(29_704, 29_904),
    ]
