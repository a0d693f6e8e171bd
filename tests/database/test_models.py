from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session, configure_mappers

from aspen.database import models
from aspen.database.engine import Database
from aspen.database.models import (
    Accession,
    AccessionType,
    AlignedPeptides,
    Base,
    Entity,
    EntityType,
    Group,
    GroupRole,
    LineageType,
    Location,
    MutationsCaller,
    Pathogen,
    PathogenGenome,
    PathogenRepoConfig,
    PhyloRun,
    PhyloTree,
    PublicRepository,
    QCMetricCaller,
    RepositoryDownloadWorkflow,
    Role,
    Sample,
    SampleLineage,
    SampleMutation,
    SampleQCMetric,
    TreeType,
    UploadedPathogenGenome,
    User,
    UserRole,
    Workflow,
    WorkflowStatus,
    WorkflowType,
)


def make_user(name: str) -> User:
    return User(name=name, email=f"{name}@lab.example", auth0_user_id=f"auth0|{name}")


def make_group(name: str, place: Location) -> Group:
    return Group(name=name, prefix=name, auth0_org_id=f"org_{name}", default_tree_location=place)


def make_genome(sample: Sample) -> UploadedPathogenGenome:
    return UploadedPathogenGenome(
        sample=sample,
        sequence="ACGT",
        num_unambiguous_sites=4,
        num_missing_alleles=0,
        num_mixed=0,
    )


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """Yield a writable session that is rolled back at the end."""
    with Session(database.writing().engine) as session:
        yield session
        session.rollback()
        engine = session.get_bind()
    assert isinstance(engine, sa.Engine)
    engine.dispose()


@pytest.fixture
def world(session: Session) -> SimpleNamespace:
    """Return a user with a role in a group, a sample of theirs, and related objects."""
    admin = session.scalars(sa.select(Role).filter_by(name="admin")).one()
    pathogen = session.scalars(sa.select(Pathogen).filter_by(slug="SC2")).one()
    place = Location(region="North America", country="USA", division="California")
    group, user = make_group("CZB", place), make_user("ada")
    role = UserRole(user=user, group=group, role=admin)
    sample = Sample(
        submitting_group=group,
        uploaded_by=user,
        collection_location=place,
        pathogen=pathogen,
        private_identifier="lab-1",
        public_identifier="hCoV-19/USA/CZB-1/2021",
        sample_collected_by="CZB",
        collection_date=date(2021, 5, 4),
        organism="Severe acute respiratory syndrome coronavirus 2",
    )
    session.add_all([place, group, user, role, sample])
    session.flush()
    return SimpleNamespace(
        place=place, group=group, user=user, role=role, pathogen=pathogen, sample=sample
    )


def make_run(world: SimpleNamespace, session: Session, **values: object) -> PhyloRun:
    repository = session.scalars(sa.select(PublicRepository).filter_by(name="GISAID")).one()
    run = PhyloRun(
        group=world.group,
        user=world.user,
        pathogen=world.pathogen,
        contextual_repository=repository,
        workflow_status=WorkflowStatus.STARTED,
        **values,
    )
    session.add(run)
    session.flush()
    return run


def make_tree(world: SimpleNamespace, run: PhyloRun) -> PhyloTree:
    return PhyloTree(
        producing_workflow=run,
        group=world.group,
        pathogen=world.pathogen,
        contextual_repository=run.contextual_repository,
        s3_bucket="trees",
        s3_key=f"{run.id}.json",
        samples=[world.sample],
    )


def test_group_and_user_relationships_are_bidirectional(
    session: Session, world: SimpleNamespace
) -> None:
    session.expire_all()

    assert world.user.groups == [world.group]
    assert world.group.members == [world.user]
    assert [role.role.name for role in world.user.roles] == ["admin"]
    assert world.group.user_roles == world.user.roles == [world.role]
    assert world.role.role.user_roles == [world.role]


def test_group_member_with_several_roles_is_listed_once(
    session: Session, world: SimpleNamespace
) -> None:
    viewer = session.scalars(sa.select(Role).filter_by(name="viewer")).one()
    session.add(UserRole(user=world.user, group=world.group, role=viewer))
    session.flush()
    session.expire_all()

    assert world.group.members == [world.user]
    assert len(world.user.roles) == 2


def test_group_role_links_grantor_and_grantee_groups(
    session: Session, world: SimpleNamespace
) -> None:
    other = make_group("DPH", world.place)
    session.add(GroupRole(grantor_group=world.group, grantee_group=other, role=world.role.role))
    session.flush()
    session.expire_all()

    assert [granted.grantee_group for granted in world.group.granted_roles] == [other]
    assert [received.grantor_group for received in other.received_roles] == [world.group]
    assert world.group.received_roles == other.granted_roles == []


def test_sample_links_group_uploader_location_and_pathogen(
    session: Session, world: SimpleNamespace
) -> None:
    session.expire_all()
    sample = world.sample

    assert sample.submitting_group.samples == [sample]
    assert sample.uploaded_by.uploaded_samples == [sample]
    assert sample.collection_location.samples == [sample]
    assert sample.pathogen.samples == [sample]
    assert world.place.default_for_groups == [world.group]


def test_sample_links_accessions_lineages_genome_and_metrics(
    session: Session, world: SimpleNamespace
) -> None:
    sample = world.sample
    known: list[Any] = [
        Accession(sample=sample, accession_type=AccessionType.GISAID_ISL, accession="EPI_ISL_1"),
        SampleLineage(
            sample=sample,
            lineage_type=LineageType.PANGOLIN,
            lineage_software_version="4.1",
            lineage="BA.2",
        ),
        SampleQCMetric(
            sample=sample,
            qc_caller=QCMetricCaller.NEXTCLADE,
            qc_software_version="2.0",
            qc_status="good",
        ),
        SampleMutation(sample=sample, mutations_caller=MutationsCaller.NEXTCLADE),
        make_genome(sample),
        AlignedPeptides(id=1, sample=sample, s3_bucket="peptides", s3_key="1"),
    ]
    session.add_all(known)
    session.flush()
    session.expire_all()

    assert known == [
        *sample.accessions,
        *sample.lineages,
        *sample.qc_metrics,
        *sample.mutations,
        sample.uploaded_pathogen_genome,
        *sample.aligned_peptides,
    ]
    assert {each.sample for each in known} == {sample}
    assert sample.aligned_pathogen_genome is None


def test_phylo_run_links_inputs_tree_and_samples(session: Session, world: SimpleNamespace) -> None:
    run = make_run(world, session)
    genome, tree = make_genome(world.sample), make_tree(world, run)
    session.add_all([genome, tree])
    run.inputs.append(genome)
    session.flush()
    session.expire_all()

    assert run.inputs == [genome]
    assert genome.consuming_workflows == [run]
    assert run.outputs == run.phylo_trees == [tree]
    assert tree.producing_workflow is tree.phylo_run is run
    assert tree.samples == [world.sample]
    assert world.sample.phylo_trees == [tree]
    assert world.group.phylo_runs == world.user.workflows == [run]
    assert world.group.entities == world.group.phylo_trees == [tree]
    assert world.pathogen.phylo_runs == [run]
    assert world.pathogen.phylo_trees == [tree]


def test_pathogen_has_prefix_for_each_repository(session: Session) -> None:
    configs = session.scalars(
        sa.select(PathogenRepoConfig).join(Pathogen).where(Pathogen.slug == "SC2")
    ).all()

    assert {each.public_repository.name: each.prefix for each in configs} == {
        "GISAID": "hCoV-19",
        "GenBank": "SARS-CoV-2/human",
    }
    assert all(each in each.pathogen.repo_configs for each in configs)


def test_entities_and_workflows_load_as_their_subclasses(
    session: Session, world: SimpleNamespace
) -> None:
    run = make_run(world, session)
    download = RepositoryDownloadWorkflow(
        pathogen=world.pathogen,
        public_repository=run.contextual_repository,
        workflow_status=WorkflowStatus.COMPLETED,
    )
    session.add_all([download, make_genome(world.sample), make_tree(world, run)])
    session.flush()
    session.expunge_all()

    by_id = sa.select(Workflow).order_by(Workflow.id)
    assert [type(each) for each in session.scalars(by_id)] == [PhyloRun, RepositoryDownloadWorkflow]
    entities = session.scalars(sa.select(Entity)).all()
    assert {type(each): each.entity_type for each in entities} == {
        UploadedPathogenGenome: EntityType.UPLOADED_PATHOGEN_GENOME,
        PhyloTree: EntityType.PHYLO_TREE,
    }
    assert [type(each) for each in session.scalars(sa.select(PathogenGenome))] == [
        UploadedPathogenGenome
    ]


def test_every_entity_and_workflow_type_has_class() -> None:
    configure_mappers()

    assert set(sa.inspect(Entity).polymorphic_map) == set(EntityType)
    assert set(sa.inspect(Workflow).polymorphic_map) == set(WorkflowType)


def test_new_user_has_no_rights_and_random_identifiers(session: Session) -> None:
    users = [make_user(f"user{number}") for number in range(50)]
    session.add_all(users)
    session.flush()

    identifiers = {f"{user.split_id} {user.analytics_id}" for user in users}
    assert len(identifiers) == 50
    for each in identifiers:
        assert re.fullmatch("[a-z0-9]{20} [a-z0-9]{20}", each)
    assert {(user.system_admin, user.agreed_to_tos) for user in users} == {(False, False)}
    assert users[0].created_at is not None
    assert abs(datetime.now(UTC).replace(tzinfo=None) - users[0].created_at).days < 1


def test_new_sample_is_private_by_default(world: SimpleNamespace) -> None:
    assert world.sample.private is True
    assert world.sample.original_submission == {}
    assert world.sample.authors == []


def test_new_phylo_run_has_no_arguments_and_unknown_tree_type(
    session: Session, world: SimpleNamespace
) -> None:
    run = make_run(world, session)

    assert (run.template_args, run.gisaid_ids, run.software_versions) == ({}, [], {})
    assert run.tree_type is TreeType.UNKNOWN


def test_json_column_set_to_none_is_sql_null(session: Session, world: SimpleNamespace) -> None:
    world.group.tree_parameters = None
    session.flush()

    query = sa.text("SELECT tree_parameters IS NULL FROM aspen.groups")
    assert session.scalar(query) is True


def test_lookup_values_load_as_enum_members(session: Session, world: SimpleNamespace) -> None:
    run = make_run(world, session, tree_type=TreeType.TARGETED)
    session.expire_all()

    assert run.tree_type is TreeType.TARGETED
    assert session.scalars(sa.select(PhyloRun).where(PhyloRun.tree_type == "TARGETED")).all()


def test_lookup_values_outside_enum_are_refused(session: Session) -> None:
    with pytest.raises(StatementError, match="'TARGETTED' is not a valid TreeType"):
        session.scalars(sa.select(PhyloRun).where(PhyloRun.tree_type == "TARGETTED"))


def test_lookup_values_of_newer_service_are_read_as_text(
    session: Session, world: SimpleNamespace
) -> None:
    run = make_run(world, session)
    session.execute(sa.text("INSERT INTO aspen.tree_types VALUES ('RADIAL')"))
    session.execute(sa.text("UPDATE aspen.phylo_runs SET tree_type = 'RADIAL'"))
    session.expire_all()

    assert run.tree_type == "RADIAL"
    assert "type='RADIAL'" in repr(run)


def test_lookup_values_render_as_sql_text_literals(session: Session) -> None:
    statement = sa.select(PhyloRun.name).where(PhyloRun.tree_type == TreeType.OVERVIEW)

    text = statement.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
    assert "tree_type = 'OVERVIEW'" in str(text)


@pytest.mark.parametrize("victim", ["user", "place", "pathogen", "group"])
def test_deleting_referenced_row_is_refused(
    session: Session, world: SimpleNamespace, victim: str
) -> None:
    session.delete(getattr(world, victim))

    with pytest.raises(IntegrityError):
        session.flush()


def test_deleting_sample_with_lineages_is_refused(session: Session, world: SimpleNamespace) -> None:
    """The column is nullable, so an ORM could set it to NULL and leave a row about nothing."""
    session.add(
        SampleLineage(
            sample=world.sample,
            lineage_type=LineageType.PANGOLIN,
            lineage_software_version="4.1",
            lineage="BA.2",
        )
    )
    session.flush()
    session.expire_all()
    session.delete(world.sample)

    with pytest.raises(IntegrityError, match="fk_sample_lineages_sample_id_samples"):
        session.flush()


def test_relationships_neither_cascade_deletes_nor_load_eagerly() -> None:
    configure_mappers()
    for mapper in Base.registry.mappers:
        for relation in mapper.relationships:
            assert not relation.cascade.delete, relation
            assert not relation.cascade.delete_orphan, relation
            assert relation.lazy == "select", relation
            if relation.direction is sa.orm.RelationshipDirection.ONETOMANY:
                assert relation.viewonly or relation.passive_deletes == "all", relation


def test_repr_shows_identifying_fields(world: SimpleNamespace) -> None:
    sample, group, user = world.sample, world.group, world.user

    assert repr(sample) == (
        f"<Sample {sample.id} private='lab-1' public='hCoV-19/USA/CZB-1/2021' group={group.id}>"
    )
    assert repr(user) == f"<User {user.id} name='ada' email='ada@lab.example'>"
    assert repr(group) == f"<Group {group.id} name='CZB' prefix='CZB'>"
    assert repr(world.role) == f"<UserRole user={user.id} group={group.id} role=1>"
    assert repr(Sample(private_identifier="lab-2")) == "<Sample new private='lab-2'>"


def test_repr_of_phylo_run_shows_enum_values(session: Session, world: SimpleNamespace) -> None:
    run = make_run(world, session, name="week 12")

    assert repr(run) == (
        f"<PhyloRun {run.id} name='week 12' type='UNKNOWN' status='STARTED' group={world.group.id}>"
    )


def test_repr_of_expired_row_runs_no_query(session: Session, world: SimpleNamespace) -> None:
    statements: list[str] = []
    engine = session.get_bind()
    sample_id, user_id, group_id = world.sample.id, world.user.id, world.group.id
    session.expire_all()
    sa.event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))

    assert repr(world.sample) == f"<Sample {sample_id}>"
    assert repr(world.role) == f"<UserRole user={user_id} group={group_id} role=1>"
    assert statements == []


def test_repr_of_detached_expired_row_shows_id(session: Session, world: SimpleNamespace) -> None:
    sample_id = world.sample.id
    session.expire_all()
    session.expunge_all()

    assert repr(world.sample) == f"<Sample {sample_id}>"


def test_repr_escapes_terminal_control_characters() -> None:
    assert repr(Sample(private_identifier="\x1b[2Jx")) == r"<Sample new private='\x1b[2Jx'>"


def test_repr_fields_of_every_model_exist() -> None:
    for mapper in Base.registry.mappers:
        assert set(mapper.class_.repr_fields.values()) <= set(mapper.column_attrs.keys())


def test_every_model_is_exported() -> None:
    classes = {mapper.class_.__name__ for mapper in Base.registry.mappers}

    assert len(classes) == 47
    assert classes <= set(models.__all__)


def test_importing_models_loads_no_heavy_packages() -> None:
    heavy = {"alembic", "psycopg2", "typer", "rich", "httpx", "boto3", "IPython", "pydantic"}
    code = f"import sys, aspen.database.models; print(sorted({heavy} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
