"""SQLAlchemy models of every table in the ``aspen`` schema."""

from __future__ import annotations

from db.models.accounts import Group, GroupRole, Role, User, UserRole, random_identifier
from db.models.base import SCHEMA, Base
from db.models.entities import Entity, WorkflowInput
from db.models.enums import (
    AccessionType,
    EntityType,
    LineageType,
    LookupValue,
    MutationsCaller,
    QCMetricCaller,
    TreeType,
    WorkflowStatus,
    WorkflowType,
)
from db.models.genomes import (
    AlignedPathogenGenome,
    AlignedPeptides,
    PathogenGenome,
    UploadedPathogenGenome,
)
from db.models.gisaid import (
    AlignedGisaidDump,
    GisaidAlignmentWorkflow,
    GisaidMetadata,
    GisaidWorkflow,
    ProcessedGisaidDump,
    RawGisaidDump,
)
from db.models.lineages import PangoLineage, PathogenLineage, SampleLineage
from db.models.locations import Location
from db.models.lookups import (
    AccessionTypeLookup,
    EntityTypeLookup,
    LineageTypeLookup,
    MutationsCallerLookup,
    QCMetricCallerLookup,
    TreeTypeLookup,
    WorkflowStatusLookup,
    WorkflowTypeLookup,
)
from db.models.pathogens import Pathogen, PathogenRepoConfig, PublicRepository, UsherOption
from db.models.phylo import PhyloRun, PhyloTree, PhyloTreeSample
from db.models.quality import SampleMutation, SampleQCMetric
from db.models.repository_data import (
    AlignedRepositoryData,
    ProcessedRepositoryData,
    PublicRepositoryMetadata,
    RawRepositoryData,
    RepositoryAlignmentWorkflow,
    RepositoryDownloadWorkflow,
)
from db.models.samples import Accession, Sample
from db.models.workflows import Workflow

__all__ = [
    "SCHEMA",
    "Accession",
    "AccessionType",
    "AccessionTypeLookup",
    "AlignedGisaidDump",
    "AlignedPathogenGenome",
    "AlignedPeptides",
    "AlignedRepositoryData",
    "Base",
    "Entity",
    "EntityType",
    "EntityTypeLookup",
    "GisaidAlignmentWorkflow",
    "GisaidMetadata",
    "GisaidWorkflow",
    "Group",
    "GroupRole",
    "LineageType",
    "LineageTypeLookup",
    "Location",
    "LookupValue",
    "MutationsCaller",
    "MutationsCallerLookup",
    "PangoLineage",
    "Pathogen",
    "PathogenGenome",
    "PathogenLineage",
    "PathogenRepoConfig",
    "PhyloRun",
    "PhyloTree",
    "PhyloTreeSample",
    "ProcessedGisaidDump",
    "ProcessedRepositoryData",
    "PublicRepository",
    "PublicRepositoryMetadata",
    "QCMetricCaller",
    "QCMetricCallerLookup",
    "RawGisaidDump",
    "RawRepositoryData",
    "RepositoryAlignmentWorkflow",
    "RepositoryDownloadWorkflow",
    "Role",
    "Sample",
    "SampleLineage",
    "SampleMutation",
    "SampleQCMetric",
    "TreeType",
    "TreeTypeLookup",
    "UploadedPathogenGenome",
    "User",
    "UserRole",
    "UsherOption",
    "Workflow",
    "WorkflowInput",
    "WorkflowStatus",
    "WorkflowStatusLookup",
    "WorkflowType",
    "WorkflowTypeLookup",
    "random_identifier",
]
