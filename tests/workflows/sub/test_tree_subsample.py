"""Samples of a tree: numbers, filters, likeness, and data that cannot be used."""

from __future__ import annotations

import gzip
import lzma
import random
from collections import Counter
from collections.abc import Callable
from datetime import date

import pytest
import sqlalchemy as sa

from aspen.database.models import AlignedPathogenGenome
from aspen.workflows.data import GENOMES, Genome
from aspen.workflows.steps import StepError
from tests.workflows.sub.lab import (
    HOME,
    Lab,
    Row,
    context_row,
    days,
    fasta,
    genomes,
    mutated,
    reference,
    table,
)

ROWS = 10_000
COUNTIES = [("North America", "USA", "California", f"County {n}") for n in range(12)]
STATES = [("North America", "USA", f"State {n}", "") for n in range(20)]
ABROAD = [
    (region, f"{region} {n}", "", "")
    for region in ("Africa", "Asia", "Europe", "North America", "Oceania", "South America")
    for n in range(5)
]
_SPREAD = ((2_600, [HOME]), (1_500, COUNTIES), (1_500, STATES), (4_400, ABROAD))


def spread_rows() -> list[Row]:
    """Return 10,000 rows: of the place, its division, its country, and other countries."""
    chance, rows = random.Random("rows"), list[Row]()
    period = days(date(2020, 2, 1), 1_060)
    for count, places in _SPREAD:
        for _ in range(count):
            rows.append(context_row(len(rows), chance.choice(places), chance.choice(period)))
    assert len(rows) == ROWS
    return rows


def serial(rows: list[Row], per_group: int = 2) -> int:
    sizes = Counter((row["region"], row["date"][:7]) for row in rows if row["country"] != "USA")
    return sum(min(per_group, size) for size in sizes.values())


OVERVIEW = {
    "location": {"group": 2000, "state": 500, "country": 400, "international": 100},
    "division": {"group": 2000, "country": 800, "international": 200},
    "country": {"group": 2000, "international": 1000},
}
TARGETED = {
    "location": {"closest": 100, "group": 50, "state": 50, "country": 25, "international": 25},
    "division": {"closest": 100, "group": 50, "country": 25, "international": 100},
    "country": {"closest": 100, "group": 50, "international": 100},
}
MANY = {"closest": 110, "group": 56, "state": 56, "country": 28, "international": 28}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return spread_rows()


def place_of(lab: Lab, level: str) -> int:
    depth = ("country", "division", "location").index(level) + 2
    return lab.location(*HOME[:depth])


@pytest.mark.parametrize("level", ["location", "division", "country"])
def test_counts_are_those_of_templates(lab: Lab, rows: list[Row], level: str) -> None:
    chosen = lab.add_samples([f"hCoV-19/USA/CA-{n}/2023" for n in range(10)])
    dump = lab.context(rows)
    arguments = {"location_id": place_of(lab, level)}
    for kind, table_ in (("OVERVIEW", OVERVIEW), ("TARGETED", TARGETED)):
        lab.start(kind, chosen, dump=dump, arguments=arguments)
        lab.export()
        counts = lab.align().subsample()
        wanted = {**table_[level], "international_serial_sampling": serial(rows)}
        assert counts["subsamples"] == wanted
        assert (counts["include"], counts["level"], counts["root"]) == (10, level, 1)
        tips = lab.tips()
        assert len(tips) == counts["tips"]
        assert tips[0]["strain"] == "Wuhan/Hu-1/2019"
        assert {f"USA/CA-{n}/2023" for n in range(10)} < {tip["strain"] for tip in tips}


def test_targeted_tree_of_many_samples_grows_with_them(lab: Lab, rows: list[Row]) -> None:
    chosen = lab.add_samples([f"USA/CA-{n}/2023" for n in range(110)])
    lab.start("TARGETED", chosen, dump=lab.context(rows))
    lab.export()
    counts = lab.align().subsample()
    assert counts["subsamples"] == {**MANY, "international_serial_sampling": serial(rows)}


def test_non_contextualized_tree_has_its_place_only(lab: Lab, rows: list[Row]) -> None:
    lab.add_samples([f"USA/CA-{n}/2023" for n in range(10)])
    lab.start("NON_CONTEXTUALIZED", dump=lab.context(rows))
    lab.export()
    counts = lab.align().subsample()
    assert counts["subsamples"] == {"group": 2000}
    assert {tip["location"] for tip in lab.tips()[1:]} == {"Alameda County"}
    # As evenly as the months allow: those with enough samples differ by one at most.
    months = Counter(tip["date"][:7] for tip in lab.tips()[1:])
    available = Counter(row["date"][:7] for row in rows if row["location"] == HOME[-1])
    full = [count for month, count in months.items() if count < available[month]]
    assert max(full) - min(full) <= 1


def test_own_samples_need_not_be_chosen(lab: Lab) -> None:
    lab.add_samples(["hCoV-19/USA/CA-1/2023", "hCoV-19/USA/CA-2/2023"])
    lab.add_samples(["hCoV-19/USA/NV-3/2023"], place=("North America", "USA", "Nevada"))
    lab.start("NON_CONTEXTUALIZED", dump=lab.context([]))
    lab.export()
    counts = lab.align().subsample()
    assert (counts["include"], counts["subsamples"]) == (0, {"group": 2})
    assert [tip["strain"] for tip in lab.tips()[1:]] == ["USA/CA-1/2023", "USA/CA-2/2023"]


def test_same_run_has_same_samples_in_any_order_of_dump(lab: Lab, rows: list[Row]) -> None:
    chosen = lab.add_samples(["USA/CA-1/2023"])
    some = rows[:400] + rows[-1_000:]
    run = lab.start("OVERVIEW", chosen, dump=lab.context(some))
    exported = lab.export()
    assert lab.align().subsample()["seed"] == exported["seed"] == run
    first = {tip["strain"] for tip in lab.tips()}
    mixed = random.Random(1).sample(some, len(some))
    lab.replace(exported["dump"]["metadata"], table(mixed))
    lab.replace(exported["dump"]["sequences"], genomes(reversed(some)))
    assert lab.subsample()["tips"] == len(first)
    assert {tip["strain"] for tip in lab.tips()} == first
    path = lab.folder / "tree-export" / "run.json"
    path.write_text(path.read_text().replace(f'"seed": {run}', '"seed": 12345'))
    lab.subsample()
    other = {tip["strain"] for tip in lab.tips()}
    assert len(other) > 100
    assert other != first


def test_place_must_match_by_country_too(lab: Lab) -> None:
    same_names = [
        context_row(1, ("Asia", "India", "Punjab", "Lahore"), date(2022, 1, 1)),
        context_row(2, ("Asia", "Pakistan", "Punjab", "Lahore"), date(2022, 1, 2)),
        context_row(3, ("Asia", "Pakistan", "Punjab", "Lahore"), date(2022, 1, 3)),
    ]
    arguments = {"location_id": lab.location("Asia", "Pakistan", "Punjab", "Lahore")}
    lab.start("OVERVIEW", dump=lab.context(same_names), arguments=arguments)
    lab.export()
    counts = lab.align().subsample()["subsamples"]
    assert (counts["group"], counts["state"], counts["international"]) == (2, 0, 1)


def test_dates_and_lineages_bound_group_and_serial(lab: Lab) -> None:
    rows = [
        context_row(1, HOME, date(2022, 10, 27)),
        context_row(2, HOME, date(2022, 10, 28), "BA.2.1"),
        context_row(3, HOME, date(2023, 1, 15), "BA.5"),
        context_row(4, HOME, date(2023, 1, 16)),
        {**context_row(5, HOME, date(2022, 11, 1)), "date": "2022-11"},
        {**context_row(6, HOME, date(2022, 1, 1)), "date": "2022"},  # no month to group by
        {**context_row(7, HOME, date(2022, 11, 1)), "date": "?"},
        context_row(8, ("Europe", "France"), date(2023, 1, 16)),
        context_row(9, ("Europe", "France"), date(2020, 1, 16)),
        context_row(10, HOME, date(2022, 12, 24), "BA.21"),
    ]
    with lab.database.begin() as session:
        session.execute(
            sa.text(
                "INSERT INTO aspen.pathogen_lineages (pathogen_id, lineage) SELECT p.id, l"
                " FROM aspen.pathogens p, unnest(ARRAY['BA.2.1', 'BA.21']) l WHERE slug = 'SC2'"
                " ON CONFLICT DO NOTHING"
            )
        )
    arguments = {
        # The run started on 2023-01-20.
        "filter_start_date": "12 weeks ago",
        "filter_end_date": "2023-01-15",
        "filter_pango_lineages": ["BA.2* / 21L"],
    }
    for kind in ("OVERVIEW", "NON_CONTEXTUALIZED"):
        lab.start(kind, dump=lab.context(rows), arguments=arguments)
        exported = lab.export()
        counts = lab.align().subsample()["subsamples"]
        assert exported["filters"]["start"] == "2022-10-28"
        lineages = exported["resolved_template_args"]["filter_pango_lineages"]
        assert lineages == ["BA.2", "BA.2.1", "BA.2.12.1"]  # BA.2.12.1 is seeded
        assert counts["group"] == 2
        tips = {tip["strain"].split("/")[1] for tip in lab.tips()[1:]}
        assert {"CTX-2", "CTX-5"} <= tips
        assert not tips & {"CTX-1", "CTX-3", "CTX-4", "CTX-6", "CTX-7", "CTX-10"}
        if kind == "OVERVIEW":
            assert (counts["international"], counts["international_serial_sampling"]) == (2, 1)


def test_targeted_tree_respects_filters(lab: Lab) -> None:
    rows = [context_row(n, HOME, date(2022, n, 1)) for n in range(1, 11)]
    chosen = lab.add_samples(["USA/CA-1/2023"])
    arguments = {"filter_start_date": "2022-03-01", "filter_end_date": "2022-06-30"}
    lab.start("TARGETED", chosen, dump=lab.context(rows), arguments=arguments)
    lab.export()
    counts = lab.align().subsample()["subsamples"]
    assert (counts["group"], counts["closest"]) == (4, 10)


def test_closest_samples_are_those_with_fewest_differences(lab: Lab) -> None:
    focal = mutated("focal", 12)
    rows = [context_row(n, ("Asia", "Japan"), date(2022, 5, 1)) for n in range(300)]
    near = {row["strain"]: mutated(row["strain"], 1, focal) for row in rows[100:200]}
    chosen = lab.add_samples(["USA/CA-1/2023"], sequences={"USA/CA-1/2023": focal})
    lab.start("TARGETED", chosen, dump=lab.context(rows, near))
    lab.export()
    lab.align().subsample()
    closest = {tip["strain"] for tip in lab.tips()}
    assert set(near) < closest


def test_unknown_sites_are_no_differences(lab: Lab) -> None:
    focal = mutated("focal", 12)
    rows = [context_row(n, ("Asia", "Japan"), date(2022, 5, 1)) for n in range(200)]
    half = len(focal) // 2
    unknown = {rows[7]["strain"]: focal[:half] + "N" * 300 + "-" * (half - 300)}
    chosen = lab.add_samples(["USA/CA-1/2023"], sequences={"USA/CA-1/2023": focal})
    lab.start("TARGETED", chosen, dump=lab.context(rows, unknown))
    lab.export()
    lab.align().subsample()
    tips = {tip["strain"] for tip in lab.tips()}
    assert rows[7]["strain"] in tips


def test_crowding_spreads_relatives_over_group(lab: Lab) -> None:
    one, other = mutated("one", 12), mutated("other", 12)
    rows = [context_row(n, ("Asia", "Japan"), date(2022, 5, 1)) for n in range(220)]
    # 200 relatives of one sample of the group, and 20 of another, which are a little farther away.
    near = {row["strain"]: mutated(row["strain"], 3, one) for row in rows[:200]}
    near |= {row["strain"]: mutated(row["strain"], 5, other) for row in rows[200:]}
    lab.add_samples(
        ["USA/CA-1/2023", "USA/CA-2/2023"],
        sequences={"USA/CA-1/2023": one, "USA/CA-2/2023": other},
    )
    lab.start("OVERVIEW", dump=lab.context(rows, near))
    lab.export()
    counts = lab.align().subsample()
    assert counts["subsamples"]["international"] == 100
    tips = {tip["strain"] for tip in lab.tips()}
    assert {row["strain"] for row in rows[200:]} <= tips


def test_chosen_public_samples_are_always_included(lab: Lab) -> None:
    rows = [context_row(n, ("Asia", "Japan"), date(2022, 5, 1)) for n in range(5)]
    public = [rows[3]["strain"], "hCoV-19/" + rows[4]["strain"], "Japan/CTX-99/2022"]
    lab.start("NON_CONTEXTUALIZED", dump=lab.context(rows), public=public)
    lab.export()
    counts = lab.align().subsample()
    assert counts["include"] == 2
    assert counts["missing"] == ["Japan/CTX-99/2022"]
    assert [tip["strain"] for tip in lab.tips()[1:]] == [rows[3]["strain"], rows[4]["strain"]]


def test_own_sample_takes_precedence_over_its_published_copy(lab: Lab) -> None:
    name = "USA/CA-1/2023"
    chosen = lab.add_samples([f"hCoV-19/{name}", "USA/CA-2/2023"])
    rows = [{**context_row(1, HOME, date(2021, 1, 1)), "strain": f"hCoV-19/{name}"}]
    lab.start("OVERVIEW", chosen, dump=lab.context(rows))
    lab.export()
    lab.align().subsample()
    tips = {tip["strain"]: tip["date"] for tip in lab.tips()}
    assert tips[name] == "2023-01-10"
    assert len(tips) == 3


def test_reference_can_be_one_of_own_samples(lab: Lab) -> None:
    names = ["hCoV-19/Wuhan/Hu-1/2019", "USA/CA-1/2023", "USA/CA-2/2023"]
    chosen = lab.add_samples(
        names, sequences={names[0]: reference()} | {name: mutated(name) for name in names[1:]}
    )
    lab.start("TARGETED", chosen, dump=lab.context([]))
    lab.export()
    lab.align().subsample()
    tips = [tip["strain"] for tip in lab.tips()]
    assert tips == ["Wuhan/Hu-1/2019", "USA/CA-1/2023", "USA/CA-2/2023"]
    assert lab.tips()[0]["date"] == "2023-01-10"  # its own metadata


def test_mpox_tree_is_of_aligned_genomes_by_accession(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GENOMES, "MPX", Genome(minimum=100, masked=(20, 30)))
    lab.pathogen = "MPX"
    names = ["MPXV/USA/CA-1/2022", "MPXV/USA/CA-2/2022"]
    chosen = lab.add_samples(names)
    with lab.database.begin() as session:
        for name in names:
            session.add(
                AlignedPathogenGenome(
                    sample_id=lab.samples[name],
                    sequence=f"NN{mutated(name)[2:]}",
                    num_unambiguous_sites=0,
                    num_missing_alleles=0,
                    num_mixed=0,
                    reference_name="NC_063383",
                )
            )
    rows = [
        {
            **context_row(n, ("Europe", "Spain"), date(2022, 6, 1)),
            "accession": f"OP{n}",
            "lineage": "B.1",
        }
        for n in range(6)
    ]
    columns = ("accession", "strain", "date", "region", "country", "lineage")
    dump = lab.add_dump(
        lab.put("mpox.tsv", table(rows, columns)),
        lab.put("mpox.fasta", fasta((row["accession"], mutated(row["accession"])) for row in rows)),
    )
    lab.start("TARGETED", chosen, dump=dump, public=["OP3"])
    lab.export()
    counts = lab.align().subsample()
    assert (counts["include"], counts["root"]) == (3, 0)
    assert counts["subsamples"]["closest"] == 5
    tips = lab.tips()
    assert [tip["strain"] for tip in tips[:2]] == ["USA/CA-1/2022", "USA/CA-2/2022"]
    assert {tip["strain"] for tip in tips[2:]} == {f"OP{n}" for n in range(6)}
    assert tips[2]["lineage"] == "B.1"


def test_chosen_sample_that_cannot_be_aligned_fails_with_reason(lab: Lab) -> None:
    chosen = lab.add_samples(["USA/CA-1/2023", "USA/CA-2/2023"])
    lab.start("TARGETED", chosen, dump=lab.context([]))
    lab.export()
    lab.align("USA/CA-2/2023", reason="does not resemble the reference genome")
    with pytest.raises(StepError, match=r"USA/CA-2/2023 .*: its genome does not resemble"):
        lab.subsample()


def test_sample_that_was_not_chosen_may_fail_to_align(lab: Lab) -> None:
    lab.add_samples([f"USA/CA-{n}/2023" for n in range(4)])
    lab.start("OVERVIEW", dump=lab.context([]))
    lab.export()
    lab.align("USA/CA-2/2023").subsample()
    assert [tip["strain"][7:8] for tip in lab.tips()[1:]] == ["0", "1", "3"]


def test_tree_of_too_few_samples_fails_with_reason(lab: Lab) -> None:
    lab.start("OVERVIEW", dump=lab.context([]))
    lab.export()
    with pytest.raises(StepError, match=r"^No samples match .*Alameda County.* needs 3"):
        lab.align().subsample()


def test_unusable_sequences_of_dump_are_counted(lab: Lab) -> None:
    rows = [context_row(n, HOME, date(2022, 5, 1)) for n in range(6)]
    bad = {rows[0]["strain"]: "ACGT", rows[1]["strain"]: "N" * len(reference())}
    lab.start("OVERVIEW", dump=lab.context(rows, bad))
    lab.export()
    counts = lab.align().subsample()
    assert counts["subsamples"]["group"] == 4
    assert counts["left_out"] == {"not as long as the reference": 1, "too few known bases": 1}


def test_dump_that_is_not_aligned_fails_with_reason(lab: Lab) -> None:
    rows = [context_row(n, HOME, date(2022, 5, 1)) for n in range(6)]
    lab.start("OVERVIEW", dump=lab.context(rows, {row["strain"]: "ACGT" for row in rows}))
    lab.export()
    with pytest.raises(
        StepError, match=r"sequences\.fasta are not aligned: none of them has 1,200"
    ):
        lab.align().subsample()


def xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=0)


def zst(data: bytes) -> bytes:
    zstd = pytest.importorskip("backports.zstd")
    packed: bytes = zstd.compress(data)
    return packed


@pytest.mark.parametrize(("pack", "end"), [(xz, "xz"), (zst, "zst"), (gzip.compress, "gz")])
def test_compressed_dump_of_whole_genomes_is_read(
    whole_lab: Lab, pack: Callable[[bytes], bytes], end: str
) -> None:
    lab = whole_lab
    rows = [context_row(n, HOME, date(2022, 5, 1)) for n in range(8)]
    letters = [(row["strain"], mutated(row["strain"], 20).lower()) for row in rows]
    dump = lab.add_dump(
        lab.put(f"metadata.tsv.{end}", pack(table(rows))),
        lab.put(f"aligned.fasta.{end}", pack(fasta(letters))),
    )
    chosen = lab.add_samples(["USA/CA-1/2023"])
    lab.start("TARGETED", chosen, dump=dump)
    lab.export()
    counts = lab.align().subsample()
    assert counts["subsamples"]["closest"] == 8
    assert len(lab.tips()) == 10
    left = {path.name for path in (lab.folder / "tree-subsample").iterdir()}
    assert left == {"aligned.fasta", "metadata.tsv", "counts.json"}


@pytest.mark.parametrize("which", ["metadata", "sequences"])
def test_damaged_dump_fails_and_names_file(lab: Lab, which: str) -> None:
    rows = [context_row(n, HOME, date(2022, 5, 1)) for n in range(50)]
    bodies = {
        "metadata": xz(table(rows)),
        "sequences": xz(genomes(rows)),
    }
    bodies[which] = bodies[which][: len(bodies[which]) // 2]
    dump = lab.add_dump(*(lab.put(f"{name}.xz", body) for name, body in bodies.items()))
    lab.start("OVERVIEW", dump=dump)
    lab.export()
    with pytest.raises(StepError, match=rf"dump-{which}\.xz is damaged or incomplete"):
        lab.align().subsample()


def test_missing_object_fails_and_names_it(lab: Lab) -> None:
    dump = lab.add_dump("dumps/missing.tsv", "dumps/missing.fasta")
    lab.start("OVERVIEW", dump=dump)
    lab.export()
    with pytest.raises(
        StepError, match=r"s3://genepi-db-data/dumps/missing\.tsv: it does not exist"
    ):
        lab.align().subsample()
