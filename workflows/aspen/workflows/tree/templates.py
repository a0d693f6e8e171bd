"""Templates: which samples get into a tree besides the chosen ones, from `templates.toml`."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from aspen.workflows.steps import StepError

LEVELS = ("region", "country", "division", "location")
"""The parts of a place, from largest to smallest."""
FILTER_START, FILTER_END = "filter_start_date", "filter_end_date"
FILTER_LINEAGES = "filter_pango_lineages"

_INPUTS = (
    ("root_ref", "references_metadata.tsv", "references_sequences.fasta"),
    ("genbank", "metadata_genbank.tsv", "sequences_genbank.fasta"),
    ("aspen", "metadata_aspen.tsv", "sequences_aspen.fasta"),
)
_MANY = 100
"""The number of chosen samples from which a targeted tree grows with them."""
_NOT_IN_LINEAGE = re.compile(r"[^0-9A-Za-z.]")
# A name as it is written into a query of builds.yaml.
_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", '"': '\\"'})


@dataclass(frozen=True)
class Place:
    """A place by its names; empty where it is less specific."""

    region: str = ""
    country: str = ""
    division: str = ""
    location: str = ""

    @property
    def level(self) -> str:
        """Return the level of templates: country, division, or location."""
        if not self.division:
            return "country"
        return "location" if self.location else "division"

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.country, self.division, self.location)))


@dataclass(frozen=True)
class Filters:
    """The restrictions of a run.

    Attributes:
        start: The first collection date.
        end: The last collection date.
        lineages: The lineages, without wildcards; empty for all.
    """

    start: date | None = None
    end: date | None = None
    lineages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subsample:
    """One part of a tree's samples; see `templates.toml`.

    Attributes:
        source: Where the samples were collected (``from``).
        laboratory: A laboratory whose samples belong to it wherever they were collected.
        filters: The filters that apply to it.
    """

    name: str
    source: str
    group_by: tuple[str, ...] = ()
    max: int | None = None
    each: int | None = None
    near: str = ""
    laboratory: str = ""
    filters: Filters = field(default_factory=Filters)


@dataclass(frozen=True)
class Template:
    """The subsamples of one tree, and the place as seen from which they are taken."""

    pathogen: str
    tree_type: str
    place: Place
    subsamples: tuple[Subsample, ...]
    crowding: float


@cache
def _document() -> dict[str, Any]:
    text = (files("aspen.workflows.tree") / "templates.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def root_place(pathogen: str) -> Mapping[str, str]:
    """Return the place of the genome at the root, by level; empty if the tree has none."""
    found: Mapping[str, str] = _document().get(pathogen, {}).get("root", {})
    return found


def template(
    pathogen: str,
    tree_type: str,
    place: Place,
    *,
    chosen: int = 0,
    filters: Filters | None = None,
    group: str = "",
) -> Template:
    """Return the subsamples of a tree.

    Args:
        pathogen: The slug.
        tree_type: The type of the tree.
        place: The place that the tree is about.
        chosen: The number of chosen samples, public ones included.
        filters: The restrictions of the run.
        group: The name of the group that the tree is for.

    Raises:
        StepError: There is no such template, or it needs what is missing.
    """
    document = _document().get(pathogen, {}).get(tree_type)
    if document is None:
        raise StepError(f"There is no template for {tree_type} trees of {pathogen}.")
    if not place.country:
        raise StepError(
            "The location of the tree has no country. Choose a country, a division, or a location."
        )
    laboratory = next(
        (lab["submitting_lab"] for lab in _document()["laboratories"] if lab["group"] == group), ""
    )
    given = [
        _subsample(row, chosen, filters or Filters(), laboratory) for row in document["subsamples"]
    ]
    if not chosen and any(one.near == "focal" for one in given):
        raise StepError(
            f"No samples were chosen. A {tree_type} tree shows what is related to the chosen"
            " samples. Choose at least one, or another type of tree."
        )
    adjusted = _at_level(given, document.get("levels", {}).get(place.level, {}))
    crowding = float(_document()[pathogen]["crowding"][tree_type])
    return Template(pathogen, tree_type, place, tuple(adjusted), crowding)


def _subsample(row: Mapping[str, Any], chosen: int, filters: Filters, laboratory: str) -> Subsample:
    largest, dates, local = row.get("max"), row.get("dates", ()), row["from"] == "place"
    if chosen >= _MANY and (many := row.get("many")):
        largest = many["times"] * math.ceil(chosen / many["share"])
    return Subsample(
        name=row["name"],
        source=row["from"],
        group_by=tuple(row.get("group_by", ())),
        max=largest,
        each=row.get("each"),
        near=row.get("near", ""),
        laboratory=laboratory if local else "",
        filters=Filters(
            start=filters.start if "start" in dates else None,
            end=filters.end if "end" in dates else None,
            lineages=filters.lineages if local else (),
        ),
    )


def _at_level(given: Iterable[Subsample], change: Mapping[str, Any]) -> Iterator[Subsample]:
    exact, least = change.get("max", {}), change.get("at_least", {})
    for one in given:
        if one.name in change.get("without", ()):
            continue
        largest = exact.get(one.name, one.max)
        if one.name in least:
            largest = max(least[one.name], largest or 0)
        yield replace(one, max=largest)


# Filters of a run


def read_filters(arguments: Mapping[str, Any], known: Iterable[str], today: datetime) -> Filters:
    """Return the filters in a run's arguments.

    Args:
        arguments: The arguments, with dates such as ``2023-01-15`` or ``12 weeks ago``.
        known: The lineages of the pathogen, for wildcards.
        today: The time that such words refer to.

    Raises:
        StepError: A date cannot be understood, or the first is after the last.
    """
    start = _read_date(arguments, FILTER_START, today)
    end = _read_date(arguments, FILTER_END, today)
    if start and end and start > end:
        raise StepError(
            f"No sample can match: {FILTER_START} ({start}) is after {FILTER_END} ({end})."
        )
    return Filters(start, end, expand_lineages(arguments.get(FILTER_LINEAGES) or (), known))


def _read_date(arguments: Mapping[str, Any], name: str, today: datetime) -> date | None:
    value = arguments.get(name)
    if not value:
        return None
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        pass
    import dateparser

    found = dateparser.parse(
        str(value), languages=["en"], settings={"RELATIVE_BASE": today, "TIMEZONE": "UTC"}
    )
    if found is None:
        raise StepError(
            f"Invalid {name}: {value!r}. Use a date such as 2023-01-15, or words such as"
            " 12 weeks ago."
        )
    return date(found.year, found.month, found.day)


def expand_lineages(wanted: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """Return lineages without wildcards, sorted.

    ``BA.1*`` stands for BA.1 and all of its known descendants, and the name of a variant, such as
    Delta, for its lineages. What follows a space is a remark.
    """
    aliases = {name.lower(): found for name, found in _document()["lineages"].items()}
    everything, found = list(known), set[str]()
    for text in wanted:
        word = (str(text).split() or [""])[0]
        for name in aliases.get(word.lower(), [word]):
            stem = _NOT_IN_LINEAGE.sub("", name)
            if not stem:
                continue
            found.add(stem)
            if name.endswith("*"):
                found.update(one for one in everything if one.startswith(f"{stem}."))
    return tuple(sorted(found))


def title(tree_type: str, place: Place, filters: Filters, started: datetime | None) -> str:
    """Return the title of a tree."""
    last = filters.end or (started.date() if started else None)
    end = last.isoformat() if last else "--"
    period = f"between {filters.start} and {end}" if filters.start else f"up until {end}"
    kind = tree_type.replace("_", "-").title()
    return f"{kind} tree for samples collected in {place} {period}"


# The build's configuration, in the form of the live service's


def build_configuration(made: Template, title: str, *, include: bool) -> dict[str, Any]:
    """Return the content of builds.yaml.

    Args:
        made: The template.
        title: The title of the tree.
        include: True if samples were chosen.
    """
    if made.pathogen == "MPX":
        return _mpox_configuration(made)
    return {
        "inputs": [
            {"name": name, "metadata": f"data/{table}", "sequences": f"data/{fasta}"}
            for name, table, fasta in _INPUTS
        ],
        "builds": {"aspen": _build(made, title)},
        "files": _files(made, include=include),
        "filter": {"root_ref": {"skip_diagnostics": True}},
        "refine": {"keep_polytomies": True, "clock_filter_iqd": 3},
        "priorities": {"crowding_penalty": made.crowding},
        "subsampling": {made.tree_type: _scheme(made)},
    }


def _build(made: Template, title: str) -> dict[str, Any]:
    build = {
        "region": "global",
        **{name: value for name in LEVELS[1:] if (value := getattr(made.place, name))},
        "subsampling_scheme": made.tree_type,
        "title": title,
    }
    if lineages := next(
        (one.filters.lineages for one in made.subsamples if one.source == "place"), ()
    ):
        build["pango_lineage"] = list(lineages)
    return build


def _files(made: Template, *, include: bool) -> dict[str, str]:
    folder = "my_profiles/aspen"
    auxiliary = {
        "description": f"{folder}/description_{made.tree_type.lower()}.md",
        "auspice_config": f"{folder}/aspen_auspice_config_v2.json",
    }
    return {"include": "data/include.txt", **auxiliary} if include else auxiliary


def _scheme(made: Template) -> dict[str, Any]:
    scheme: dict[str, Any] = {"root": {"exclude": "--exclude-where 'root_ref!=yes'"}}
    if made.tree_type == "TARGETED":
        scheme["focal"] = {"exclude": "--exclude-all"}
    for one in made.subsamples:
        scheme[one.name] = _snakemake(one, made.place)
    return scheme


def _snakemake(one: Subsample, place: Place) -> dict[str, Any]:
    """Return a subsample in the words of Nextstrain's workflow for SARS-CoV-2."""
    found: dict[str, Any] = {}
    if one.group_by:
        found["group_by"] = " ".join(one.group_by)
    if one.max is not None:
        found["max_sequences"] = one.max
    if one.each is not None:
        found["seq_per_group"] = one.each
    if query := _query(one, place):
        found["query"] = f'--query "{query}"'
    if one.filters.start:
        found["min_date"] = f"--min-date {one.filters.start}"
    if one.filters.end:
        found["max_date"] = f"--max-date {one.filters.end}"
    return found | _priorities(one)


def _mpox_configuration(made: Template) -> dict[str, Any]:
    scheme: dict[str, Any] = {}
    if made.tree_type == "TARGETED":
        scheme["focal"] = {"exclude-all": True, "include": "config/include.txt"}
    for one in made.subsamples:
        scheme[one.name] = _mpox(one, made.place)
    return {
        "subsampling_scheme": made.tree_type,
        **{name: f"config/{file}" for name, file in _MPOX_FILES.items()},
        "strain_id_field": "accession",
        "display_strain_field": "strain_original",
        "build_name": "mpxv",
        "auspice_name": "monkeypox_mpxv",
        "max_indel": 10000,
        "seed_spacing": 1000,
        "fix_tree": True,
        "timetree": False,
        "root": "min_dev",
        "clock_rate": 3e-6,
        "clock_std_dev": 6e-6,
        "recency": True,
        "mask": {"from_beginning": 1350, "from_end": 6422, "maskfile": "config/mask_overview.bed"},
        "subsampling": scheme,
    }


_MPOX_FILES = {
    "exclude": "exclude_accessions_mpxv.txt",
    "reference": "reference.fasta",
    "genemap": "genemap.gff",
    "genbank_reference": "reference.gb",
    "colors": "colors_mpxv.tsv",
    "lat_longs": "lat_longs.tsv",
    "auspice_config": "auspice_config_mpxv.json",
    "description": "description.md",
    "clades": "clades.tsv",
    "tree_mask": "tree_mask.tsv",
}


def _mpox(one: Subsample, place: Place) -> dict[str, Any]:
    """Return a subsample in the words of Nextstrain's workflow for mpox."""
    found: dict[str, Any] = {"min-length": 100000}
    if one.group_by:
        found["group-by"] = list(one.group_by)
    if one.max is not None:
        found["subsample-max-sequences"] = one.max
    if one.each is not None:
        found["sequences-per-group"] = one.each
    if query := _query(one, place):
        found["query"] = query
    if one.filters.start:
        found["min-date"] = one.filters.start.isoformat()
    if one.filters.end:
        found["max-date"] = one.filters.end.isoformat()
    return found | _priorities(one)


def _priorities(one: Subsample) -> dict[str, Any]:
    return {"priorities": {"type": "proximity", "focus": one.near}} if one.near else {}


def _query(one: Subsample, place: Place) -> str:
    country, division, location = (
        name.translate(_ESCAPES) for name in (place.country, place.division, place.location)
    )
    here, inside = f"(country == '{country}')", f"(division == '{division}')"
    exact = f"(location == '{location}') & {inside} & {here}"
    local = {"country": here, "division": f"{inside} & {here}", "location": exact}
    query = {
        "place": local[place.level],
        "division": f"(location != '{location}') & {inside} & {here}",
        "country": f"(division != '{division}') & {here}",
        "abroad": f"(country != '{country}')",
        "anywhere": "",
    }[one.source]
    if one.laboratory:
        query = f"(({query}) | (submitting_lab == '{one.laboratory.translate(_ESCAPES)}'))"
    if one.filters.lineages:
        query += " & (pango_lineage in {pango_lineage})"
    return query


def matches(one: Subsample, place: Place, found: Mapping[str, Any]) -> bool:
    """Return True if a sample belongs to a subsample's candidates.

    Args:
        one: The subsample.
        place: The place of the tree.
        found: The sample's place by level, ``lab``, ``lineage``, and the first and last day on
            which it may have been collected, ``first`` and ``last`` (None if the date is unknown).
    """
    return (
        (_from(one.source, place, found) or bool(one.laboratory and found["lab"] == one.laboratory))
        and (not one.filters.lineages or found["lineage"] in one.filters.lineages)
        and _in_period(one.filters, found["first"], found["last"])
    )


def _from(source: str, place: Place, found: Mapping[str, Any]) -> bool:
    if source == "anywhere":
        return True
    if found["country"] != place.country:
        return source == "abroad"
    inside = bool(found["division"] == place.division)
    match source:
        case "place":
            exact = inside and bool(found["location"] == place.location)
            return {"country": True, "division": inside, "location": exact}[place.level]
        case "division":
            return inside and bool(found["location"] != place.location)
        case "country":
            return not inside
    return False


def _in_period(filters: Filters, first: date | None, last: date | None) -> bool:
    """Return True if a sample may have been collected in the period."""
    if not filters.start and not filters.end:
        return True
    if first is None or last is None:
        return False
    return (not filters.start or last >= filters.start) and (
        not filters.end or first <= filters.end
    )


def group_of(one: Subsample, found: Mapping[str, Any]) -> str | None:
    """Return the group that a sample belongs to, or None if its date is not precise enough."""
    parts: Sequence[str] = [str(found[name] or "") for name in one.group_by]
    if any(not part for name, part in zip(one.group_by, parts, strict=True) if name in _TIMES):
        return None
    return "\t".join(parts)


_TIMES = frozenset({"year", "month"})
