"""Find pangolin, and write the genomes of the samples to process."""

from __future__ import annotations

import json

from aspen.workflows.jobs import SampleParameters
from aspen.workflows.lineage.pangolin import find
from aspen.workflows.steps import StepError, Workspace

NAME = "program.json"
_SC2 = "SC2"
# A lineage has the version of pangolin-data, or of the constellations that assigned it.
_STALE = r"""NOT EXISTS (SELECT FROM aspen.sample_lineages lineage
    WHERE lineage.sample_id = samples.id AND lineage.lineage_type = 'PANGOLIN'
      AND substring(lineage.lineage_software_version FROM '(\d+(\.\d+)+)$')
        = CASE WHEN starts_with(lineage.lineage_software_version, 'SCORPIO')
               THEN coalesce(:constellations, :data) ELSE :data END)"""


def run(workspace: Workspace) -> None:
    """Run the step."""
    # Checked before the database's modules are loaded, so that a missing program is known at once.
    pangolin = find()
    from aspen.workflows import genomes
    from aspen.workflows.access import opened

    parameters = workspace.parameters(SampleParameters)
    if parameters.pathogen != _SC2:
        raise StepError(
            f"pangolin knows SARS-CoV-2 only; lineages of {parameters.pathogen} come from the "
            "quality job (qc). No sample was changed."
        )
    versions = {"constellations": pangolin.constellations, "data": pangolin.data}
    with opened(workspace) as database:
        with database.reading() as session:
            ids = genomes.choose(session, parameters, genomes.Stale(_STALE, versions))
        described = {"version": pangolin.version.text, **versions}
        (workspace.out / NAME).write_text(json.dumps(described, indent=1))
        genomes.write(database, ids, workspace.out, strip=True)
