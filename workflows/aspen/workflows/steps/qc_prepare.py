"""Find Nextclade, get its dataset, and write the genomes of the samples to process."""

from __future__ import annotations

from aspen.workflows.jobs import RunType, SampleParameters
from aspen.workflows.qc.nextclade import Dataset, Prepared, adapter
from aspen.workflows.steps import StepError, Workspace

_STALE = """NOT EXISTS (SELECT FROM aspen.sample_qc_metrics metric
    WHERE metric.sample_id = samples.id AND metric.qc_caller = 'NEXTCLADE'
      AND metric.reference_dataset_name = :name
      AND metric.reference_sequence_accession = :accession
      AND metric.reference_dataset_tag = :tag)"""


def run(workspace: Workspace) -> None:
    """Run the step."""
    # Checked before the database's modules are loaded, so that a missing program is known at once.
    nextclade = adapter()
    from aspen.workflows import genomes
    from aspen.workflows.access import find_pathogen, opened

    parameters = workspace.parameters(SampleParameters)
    with opened(workspace) as database:
        with database.reading() as session:
            _, name = find_pathogen(session, parameters.pathogen)
        if name is None:
            _without_dataset(workspace, parameters)
            return
        dataset = nextclade.dataset(parameters.pathogen, name, workspace.out / "dataset")
        stale = genomes.Stale(_STALE, vars(dataset))
        with database.reading() as session:
            ids = genomes.choose(session, parameters, stale)
        Prepared(nextclade.version.text, dataset, parameters.pathogen).write(workspace.out)
        genomes.write(database, ids, workspace.out)


def _without_dataset(workspace: Workspace, parameters: SampleParameters) -> None:
    """End quietly if this is a refresh of every pathogen, as there is nothing to refresh."""
    from aspen.workflows.genomes import SAMPLES, SEQUENCES
    from aspen.workflows.programs import say

    message = f"{parameters.pathogen} has no Nextclade dataset (pathogens.nextclade_dataset_name)."
    if parameters.run_type is not RunType.STALE:
        raise StepError(f"{message} No sample was changed.")
    say(f"{message} Nothing to do.")
    Prepared("", Dataset("", "", ""), parameters.pathogen).write(workspace.out)
    (workspace.out / SEQUENCES).write_text("")
    (workspace.out / SAMPLES).write_text("{}")
