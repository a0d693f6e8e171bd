"""Build a tree from aligned sequences, with IQ-TREE.

IQ-TREE is the program ``iqtree2`` if it is installed, else the library piqtree. Its version for
Python 3.11 takes no options of a search, which is slow without them: there, neighbor joining on
Jukes-Cantor distances, which the same library computes, has to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from aspen.workflows.data import Genome
from aspen.workflows.steps import StepError
from aspen.workflows.tree import fasta, newick, programs
from aspen.workflows.tree.names import labels
from aspen.workflows.tree.newick import Node

SEED = 1
SEARCH = "-ninit 2 -n 2 -me 0.05"
"""The options that augur gives IQ-TREE: a short search, which is enough for similar genomes."""
MODEL = "GTR"
MEMORY = "1000M"
"""The memory for likelihoods, half of the step's limit. With more, as for 2,000 very different
genomes, IQ-TREE computes some of them again; the tree is the same."""


@dataclass(frozen=True)
class Tree:
    """A tree whose tips have labels, and the versions of the programs that built it."""

    root: Node
    versions: Mapping[str, str]


class _Built(NamedTuple):
    """A program's tree; branch lengths that are not those of a model are replaced."""

    newick: str
    versions: dict[str, str]
    modelled: bool = True


def read_alignment(path: Path) -> dict[str, str]:
    """Return the aligned sequences of a file, by name.

    Raises:
        StepError: There are none, two have one name, or their lengths differ.
    """
    sequences: dict[str, str] = {}
    for name, sequence in fasta.read(path):
        if name in sequences:
            raise StepError(f"Two sequences of the tree are named {name}.")
        sequences[name] = sequence.upper()
        first = next(iter(sequences))
        if len(sequence) != len(sequences[first]):
            raise StepError(
                f"The aligned genome of {name} has {len(sequence):,} sites, and that of {first} has"
                f" {len(sequences[first]):,}."
            )
    if not sequences:
        raise StepError("No sequences are left to build a tree of.")
    return sequences


def build(sequences: Mapping[str, str], genome: Genome, folder: Path) -> Tree:
    """Return the tree of aligned sequences, rooted at the reference or at its midpoint.

    Args:
        sequences: The sequences by name.
        genome: The pathogen's.
        folder: A folder for temporary files.
    """
    from aspen.workflows.tree import parsimony

    label = labels(sequences)
    masked = {label[name]: genome.mask(text) for name, text in sequences.items()}
    root_name = label.get(genome.reference.strain) if genome.reference else None
    copies = _copies(masked, root_name)
    distinct = {names[0]: text for text, names in copies.items()}
    built = _topology(distinct, folder)
    root = _rooted(_parsed(built.newick, list(distinct)), root_name)
    left = parsimony.collapse(root, parsimony.informative(distinct))
    if not built.modelled:
        sites = len(next(iter(masked.values())))
        for node, number in left.items():
            node.length = number / sites
    _add_copies(root, {names[0]: names[1:] for names in copies.values()}, left)
    return Tree(root, built.versions)


def _copies(sequences: Mapping[str, str], root_name: str | None) -> dict[str, list[str]]:
    """Return the names of each sequence, of which the first one stands for the others."""
    copies: dict[str, list[str]] = {}
    for name, text in sequences.items():
        copies.setdefault(text, []).append(name)
    for names in copies.values():
        if root_name in names:  # the root stands for its copies
            names.remove(root_name)
            names.insert(0, root_name)
    return copies


def _add_copies(root: Node, copies: Mapping[str, Sequence[str]], left: Mapping[Node, int]) -> None:
    """Add the copies of tips, by their names; ``left`` has the substitutions above each node."""
    parents = {child: node for node in newick.preorder(root) for child in node.children}
    for tip in newick.tips(root):
        others = [Node(name) for name in copies[tip.name]]
        if others and not left.get(tip):
            parents[tip].children.extend(others)
        elif others:
            tip.children = [Node(tip.name), *others]
            tip.name = ""


def _topology(distinct: Mapping[str, str], folder: Path) -> _Built:
    """Return the tree of sequences, whose tips are called by their numbers."""
    texts = {f"t{number}": text for number, text in enumerate(distinct.values())}
    if len(texts) <= 2:  # noqa: PLR2004 - there is only one tree of two
        return _Built(f"({','.join(texts)});", {}, modelled=False)
    return _program()(texts, folder)


def _parsed(text: str, names: Sequence[str]) -> Node:
    root = newick.parse(text)
    for node in newick.preorder(root):
        node.length = max(node.length, 0.0)  # neighbor joining may find less than nothing
        node.name = "" if node.children else names[int(node.name[1:])]
    return root


Work = Callable[[Mapping[str, str], Path], _Built]


def _program() -> Work:
    if programs.installed("iqtree2"):
        return _with_iqtree
    major, minor = version("piqtree").split(".")[:2]
    return _with_distances if (int(major), int(minor)) < (0, 8) else _with_search


def _with_iqtree(texts: Mapping[str, str], folder: Path) -> _Built:
    source = folder / "iqtree.fasta"
    fasta.write(source, texts.items())
    options = ("-s", str(source), "-m", MODEL, "-nt", "1", "-seed", str(SEED), "-redo")
    programs.run("iqtree2", *options, *SEARCH.split(), "-mem", MEMORY)
    tree = Path(f"{source}.treefile").read_text()
    return _Built(tree, {"iqtree2": programs.version_of("iqtree2")})


def _with_search(texts: Mapping[str, str], _folder: Path) -> _Built:
    import piqtree
    from cogent3 import make_aligned_seqs

    aligned = make_aligned_seqs(dict(texts), moltype="dna")
    tree: Any = piqtree.build_tree(
        aligned, MODEL, rand_seed=SEED, num_threads=1, other_options=SEARCH
    )
    return _Built(tree.get_newick(with_distances=True), _piqtree_versions())


def _with_distances(texts: Mapping[str, str], folder: Path) -> _Built:
    # Its compiled part, whose version is pinned: the Python part loads cogent3, which takes longer
    # than all the rest, and keeps distances in a dictionary, 0.5 GB for 3,000 sequences.
    import _piqtree

    names = list(texts)
    with chdir(folder):  # it writes files
        distances = _piqtree.iq_jc_distances(names, list(texts.values()), 1)
        tree: str = _piqtree.iq_nj_tree(names, distances)
    return _Built(tree, _piqtree_versions(), modelled=False)


def _piqtree_versions() -> dict[str, str]:
    import _piqtree

    return {"piqtree": version("piqtree"), "IQ-TREE": _piqtree.__iqtree_version__}


def _rooted(root: Node, root_name: str | None) -> Node:
    leaves = newick.tips(root)
    if len(leaves) < 2 or not root.children:  # noqa: PLR2004 - one tip has nowhere else to be
        return root
    outgroup = next((tip for tip in leaves if tip.name == root_name), None)
    if outgroup is None:
        return newick.at_midpoint(root)
    return newick.rooted(root, outgroup)
