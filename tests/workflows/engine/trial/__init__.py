"""Light steps that behave well or badly on request, to test the engine with real processes.

A worker uses them if ``ASPEN_JOB_STEPS`` names this package. Tree jobs write an object and a row as
the real ones do. The file of an import-lineages job says how its second step behaves.
"""

from __future__ import annotations

from aspen.workflows.jobs import FileParameters, Kind, Plan, SampleParameters, Step, TreeParameters

SECONDS, MEGABYTES = 3, 150
_ROOMY = 400  # boto3 takes a part of that

PLANS = {
    Kind.TREE: Plan(
        TreeParameters,
        (
            Step("trial-prepare", (), ("trial-prepare/numbers.txt",), 60, MEGABYTES),
            Step("trial-work", ("trial-prepare/*",), ("trial-work/sums.txt",), 60, MEGABYTES),
            Step("trial-save", ("trial-work/*",), ("phylo_trees",), 60, _ROOMY),
        ),
    ),
    Kind.QC: Plan(
        SampleParameters, (Step("trial-first", (), ("trial-first/first.txt",), 60, MEGABYTES),)
    ),
    Kind.IMPORT_LOCATIONS: Plan(FileParameters, (Step("trial-hang", (), (), SECONDS, MEGABYTES),)),
    Kind.IMPORT_LINEAGES: Plan(
        FileParameters,
        (
            Step("trial-first", (), ("trial-first/first.txt",), 60, MEGABYTES),
            Step("trial-act", (), (), 600, MEGABYTES),
            Step("trial-last", ("trial-first/first.txt",), (), 60, MEGABYTES),
        ),
    ),
}
