"""The masking rules: one for every column, and nothing else."""

from __future__ import annotations

import pytest

from aspen.database.models import Base
from aspencli.copies.rules import load_rules, read_rules
from aspencli.errors import RefusedError

COLUMNS = [
    (table.name, column.name) for table in Base.metadata.tables.values() for column in table.columns
]
# From the list of personal data in the schema, with the rule that must never be "keep".
PERSONAL = {
    "users": "name email auth0_user_id gisaid_submitter_id split_id analytics_id",
    "groups": "name address prefix submitting_lab auth0_org_id location division",
    "samples": "private_identifier public_identifier original_submission sample_collected_by "
    "sample_collector_contact_email sample_collector_contact_address authors collection_date",
    "phylo_runs": "name template_args gisaid_ids",
    "phylo_trees": "name s3_key resolved_template_args",
    "accessions": "accession",
    "sample_lineages": "raw_lineage_output",
    "sample_qc_metrics": "raw_qc_output",
    "pathogen_genomes": "sequence",
}


def test_every_column_of_the_models_has_a_rule() -> None:
    assert load_rules().missing(COLUMNS) == []


def test_every_rule_belongs_to_a_column_of_the_models() -> None:
    ruled = {
        (name, column) for name, table in load_rules().tables.items() for column in table.columns
    }
    assert ruled == set(COLUMNS)


@pytest.mark.parametrize("table", PERSONAL)
def test_personal_columns_are_never_kept(table: str) -> None:
    rules = load_rules().tables[table].columns
    for column in PERSONAL[table].split():
        assert rules[column] != "keep", column


def test_column_without_rule_is_refused_by_name() -> None:
    with pytest.raises(RefusedError) as caught:
        load_rules().require([*COLUMNS, ("samples", "patient_name")])
    assert caught.value.details == ("samples.patient_name",)


def test_unknown_rule_is_refused_when_rules_are_read() -> None:
    text = b'prefixes = []\n[fakes]\n[sets]\n[tables.users.columns]\nname = "mask"\n'
    with pytest.raises(ValueError, match=r"users\.name: 'mask'"):
        read_rules(text)
