"""Make the Auspice JSON of a tree, with augur."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from aspen.workflows.data import CONFIGURATION, Genome
from aspen.workflows.steps import StepError
from aspen.workflows.tree import augur, newick
from aspen.workflows.tree.augur import AugurFailedError
from aspen.workflows.tree.refine import NAMES, NOTES, Notes, read_metadata, write_metadata

NODE_DATA = ("branch_lengths", "nt_muts", "aa_muts", "traits")
COLORINGS = ("emerging_lineage", "pango_lineage", "lineage", "location", "division", "country")
"""The coloring shown first: the first of these for which there are data."""
RESOLUTIONS = ("location", "division", "country", "region")
"""The places shown on the map first, likewise."""
S1 = range(14, 686)
"""The codons of S that form its first subunit."""

_GENBANK = "https://www.ncbi.nlm.nih.gov/nuccore/"
_CODON = re.compile(r"\D+(\d+)\D")


@dataclass(frozen=True)
class Refined:
    """The results of the steps before.

    Attributes:
        folder: The refined tree and the data of its nodes.
        metadata: A row for each tip.
        excluded: The reasons why own samples are not in the tree, by name.
        places: A file with coordinates of places, if there is one.
    """

    folder: Path
    metadata: Path
    excluded: Mapping[str, str]
    places: Path | None = None


def assemble(refined: Refined, title: str, genome: Genome, out: Path) -> None:
    """Write ``tree.json`` to a folder.

    Raises:
        StepError: The result would not be valid.
    """
    names: dict[str, str] = json.loads((refined.folder / NAMES).read_text())
    files = _write_inputs(refined, names, out)
    draft = out / "draft.json"
    try:
        _export(refined, title, files, draft)
        document = json.loads(draft.read_text())
        _finish(document, names, genome)
        tree = out / "tree.json"
        tree.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
        augur.run("validate", "export-v2", tree)
    except AugurFailedError as error:
        raise StepError(f"{error}; see the log.") from error
    draft.unlink()


class _Inputs(NamedTuple):
    """The files that augur reads besides those of the steps before."""

    table: Path
    places: Path
    about: Path
    counts: Path


def _write_inputs(refined: Refined, names: Mapping[str, str], out: Path) -> _Inputs:
    rows = read_metadata(refined.metadata)
    columns = list(dict.fromkeys(column for row in rows for column in row if column != "strain"))
    if "genbank_accession" in columns:
        columns.append("genbank_accession__url")
    table = out / "metadata.tsv"
    write_metadata(table, list(_prepared(rows, names)), ["strain", *columns])
    places = out / "lat_longs.tsv"
    lines = list(_places(rows))
    if refined.places and refined.places.exists():
        lines = [*refined.places.read_text().splitlines(), *lines]
    places.write_text("".join(f"{line}\n" for line in lines))
    about = out / "description.md"
    about.write_text(_description(refined))
    counts = out / "s1_mutations.json"
    counts.write_text(json.dumps(_s1_mutations(refined.folder)))
    return _Inputs(table, places, about, counts)


def _export(refined: Refined, title: str, files: _Inputs, draft: Path) -> None:
    data = [refined.folder / f"{name}.json" for name in NODE_DATA]
    augur.run(
        "v2",
        *("--tree", refined.folder / "tree.nwk", "--metadata", files.table),
        *("--node-data", *data, files.counts),
        *("--auspice-config", CONFIGURATION, "--lat-longs", files.places),
        *("--description", files.about),
        *("--title", title, "--minify-json", "--skip-validation", "--output", draft),
        module="export_v2",
    )


def _prepared(
    rows: Iterable[Mapping[str, str]], names: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """Yield the row of each tip, under its label, with links to GenBank."""
    label = {name: mark for mark, name in names.items()}
    for row in rows:
        mark = label.get(row.get("strain", ""))
        if mark is None:
            continue
        accession = row.get("genbank_accession", "")
        link = f"{_GENBANK}{accession}" if accession.strip("?") else ""
        yield {**row, "strain": mark, "genbank_accession__url": link}


def _places(rows: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Yield the lines of a table of coordinates; those of a row are for its most precise place."""
    for row in rows:
        latitude, longitude = row.get("latitude", ""), row.get("longitude", "")
        level = next((level for level in RESOLUTIONS if row.get(level, "").strip("?")), None)
        if level is None:
            continue
        try:
            yield f"{level}\t{row[level]}\t{float(latitude)}\t{float(longitude)}"
        except ValueError:
            continue


def _description(refined: Refined) -> str:
    notes = Notes(**json.loads((refined.folder / NOTES).read_text()))
    text = []
    if notes.rate is None:
        text.append(f"The nodes of this tree have no dates: {notes.why}.")
    else:
        source = "estimated from the collection dates"
        if not notes.estimated:
            source = f"a fixed rate, because {notes.why}"
        text.append(f"Clock rate: {notes.rate:.2e} substitutions per site and year, {source}.")
    if notes.outliers:
        text.append(
            "Left out, because collection date and mutations contradict each other:"
            f" {', '.join(notes.outliers)}."
        )
    if refined.excluded:
        reasons = "; ".join(f"{name} {reason}" for name, reason in refined.excluded.items())
        text.append(f"Left out: {reasons}.")
    return "\n\n".join(text) + "\n"


def _s1_mutations(folder: Path) -> dict[str, Any]:
    """Return the number of amino acid changes in S1 from the reference to each node."""
    changes = json.loads((folder / "aa_muts.json").read_text())["nodes"]
    root = newick.parse((folder / "tree.nwk").read_text())
    if not any("S" in node.get("aa_muts", {}) for node in changes.values()):
        return {"nodes": {}}
    counts: dict[str, int] = {}
    above = {root.name: 0}
    for node in newick.preorder(root):
        mutations = changes.get(node.name, {}).get("aa_muts", {}).get("S", ())
        own = sum(_in_s1(mutation) for mutation in mutations)
        counts[node.name] = above[node.name] + own
        above |= {child.name: counts[node.name] for child in node.children}
    return {"nodes": {name: {"S1_mutations": count} for name, count in counts.items()}}


def _in_s1(mutation: str) -> bool:
    """Return True if a change such as N501Y is in S1, and not just a gap or an unknown residue."""
    found = _CODON.fullmatch(mutation)
    if found is None or {mutation[0], mutation[-1]} & set("X-"):
        return False
    return int(found[1]) in S1


def _finish(document: dict[str, Any], names: Mapping[str, str], genome: Genome) -> None:
    """Restore the names of samples, and choose the defaults for which there are data."""
    waiting = [document["tree"]]
    while waiting:
        node = waiting.pop()
        node["name"] = names.get(node["name"], node["name"])
        waiting.extend(node.get("children", ()))
    meta = document["meta"]
    for annotation in meta.get("genome_annotations", {}).values():
        annotation.pop("seqid", None)  # the path of a file on this machine
        if genome.reference:
            annotation["seqid"] = genome.reference.accession
    colorings = {coloring["key"] for coloring in meta["colorings"]}
    defaults = meta["display_defaults"]
    for key, choices, available in (
        ("color_by", COLORINGS, colorings),
        ("geo_resolution", RESOLUTIONS, {each["key"] for each in meta.get("geo_resolutions", ())}),
    ):
        if chosen := next((choice for choice in choices if choice in available), None):
            defaults[key] = chosen
    meta["filters"] = [key for key in meta["filters"] if key in colorings]
