"""``make tree-quality``: compare the tree of 418 real genomes with that of IQ-TREE 2.0.7.

The reference is the program (``apt-get install iqtree``) with 1,000 replicates of the SH-like
approximate likelihood ratio test; a split is supported from 80 % on, as the test's authors advise.
Goals: the tree that this program builds has 85 % of these splits on Python 3.11, and 95 % on later
versions. ``--reference FILE`` keeps the tree of the reference, and uses it the next time.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aspen.workflows.data import GENOMES
from aspen.workflows.tree import align, build, fasta, newick, programs
from tests.workflows.tree.samples import REAL, real_samples, write_fasta

_SUPPORT = 80
_GOALS = {True: 0.95, False: 0.85}
_SC2 = GENOMES["SC2"]

Splits = dict[frozenset[str], float]


def main() -> int:
    """Print the shares; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--reference", type=Path, help="tree of the reference search; made if absent"
    )
    given = parser.parse_args()
    if REAL is None:
        print("The real genomes are not here.", file=sys.stderr)  # noqa: T201
        return 2
    # The programs under test are the libraries, also where others are installed.
    programs.installed = lambda name: False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_fasta(folder / "sequences.fasta", real_samples())
        sequences = align.align(folder / "sequences.fasta", _SC2, folder).aligned
        reference = given.reference or folder / "reference.nwk"
        if not reference.exists():
            _search(sequences, folder, reference)
        return _compare(sequences, reference, folder)


def _search(sequences: Mapping[str, str], folder: Path, reference: Path) -> None:
    program = shutil.which("iqtree2") or shutil.which("iqtree")
    if program is None:
        sys.exit("IQ-TREE is not installed: apt-get install iqtree")
    source = folder / "reference.fasta"
    fasta.write(source, ((name, _SC2.mask(text)) for name, text in sequences.items()))
    began = time.monotonic()
    options = ("-m", build.MODEL, *build.SEARCH.split(), "-alrt", "1000", "-nt", "1", "-seed", "1")
    subprocess.run([program, "-s", source, *options], check=True, stdout=subprocess.DEVNULL)
    shutil.copy(f"{source}.treefile", reference)
    Console(stderr=True).print(f"Reference search: {time.monotonic() - began:,.0f} s")


def _compare(sequences: Mapping[str, str], reference: Path, folder: Path) -> int:
    began = time.monotonic()
    tree = build.build(sequences, _SC2, folder)
    seconds = time.monotonic() - began
    supported = {
        split
        for split, support in _splits(newick.parse(reference.read_text())).items()
        if support >= _SUPPORT
    }
    own = set(_splits(tree.root))
    found = supported & own
    share = len(found) / len(supported)
    goal = _GOALS[sys.version_info >= (3, 12)]
    table = Table("Python", "Program", "Seconds", "Supported splits", "Found", "Share", "Goal")
    table.add_row(
        sys.version.split()[0],
        ", ".join(f"{key} {value}" for key, value in tree.versions.items()),
        f"{seconds:.1f}",
        str(len(supported)),
        str(len(found)),
        f"{share:.1%}",
        f"{goal:.0%}",
    )
    Console().print(table)
    return int(share < goal)


def _splits(root: newick.Node) -> Splits:
    """Return the splits of a tree, each as the side without the reference, with their support."""
    everything = frozenset(tip.name for tip in newick.tips(root))
    outgroup = _SC2.reference.strain if _SC2.reference else ""
    below: dict[newick.Node, frozenset[str]] = {}
    found: Splits = {}
    for node in newick.postorder(root):
        if not node.children:
            below[node] = frozenset({node.name})
            continue
        below[node] = frozenset().union(*(below.pop(child) for child in node.children))
        side = everything - below[node] if outgroup in below[node] else below[node]
        if node is not root and 1 < len(side) < len(everything) - 1:
            support = float(node.name) if node.name else 0.0
            found[side] = max(support, found.get(side, 0.0))
    return found


if __name__ == "__main__":
    sys.exit(main())
