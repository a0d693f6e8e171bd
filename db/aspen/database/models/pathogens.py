"""Pathogens, and the public repositories that their sequences are published in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aspen.database.models.base import Base

if TYPE_CHECKING:
    from aspen.database.models.lineages import PathogenLineage
    from aspen.database.models.phylo import PhyloRun, PhyloTree
    from aspen.database.models.samples import Sample


class Pathogen(Base):
    """A pathogen; the slug (``SC2``, ``MPX``, ``HCV``) is its name in URLs and options."""

    __tablename__ = "pathogens"
    repr_fields: ClassVar[Mapping[str, str]] = {"slug": "slug", "name": "name"}

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(unique=True)
    nextclade_dataset_name: Mapped[str | None]

    samples: Mapped[list[Sample]] = relationship(back_populates="pathogen", passive_deletes="all")
    lineages: Mapped[list[PathogenLineage]] = relationship(
        back_populates="pathogen", passive_deletes="all"
    )
    repo_configs: Mapped[list[PathogenRepoConfig]] = relationship(
        back_populates="pathogen", passive_deletes="all"
    )
    usher_options: Mapped[list[UsherOption]] = relationship(
        back_populates="pathogen", passive_deletes="all"
    )
    phylo_runs: Mapped[list[PhyloRun]] = relationship(
        back_populates="pathogen", passive_deletes="all"
    )
    phylo_trees: Mapped[list[PhyloTree]] = relationship(
        back_populates="pathogen", passive_deletes="all"
    )


class PublicRepository(Base):
    """A repository where sequences are published: GISAID or GenBank."""

    __tablename__ = "public_repositories"
    repr_fields: ClassVar[Mapping[str, str]] = {"name": "name"}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)

    pathogen_configs: Mapped[list[PathogenRepoConfig]] = relationship(
        back_populates="public_repository", passive_deletes="all"
    )


class PathogenRepoConfig(Base):
    """A repository's prefix for a pathogen's public identifiers, such as ``hCoV-19``."""

    __tablename__ = "pathogen_repo_configs"
    __table_args__ = (sa.UniqueConstraint("public_repository_id", "pathogen_id"),)
    repr_fields: ClassVar[Mapping[str, str]] = {
        "prefix": "prefix",
        "pathogen": "pathogen_id",
        "repository": "public_repository_id",
    }

    id: Mapped[int] = mapped_column(primary_key=True)
    prefix: Mapped[str]
    public_repository_id: Mapped[int] = mapped_column(sa.ForeignKey("public_repositories.id"))
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))

    public_repository: Mapped[PublicRepository] = relationship(back_populates="pathogen_configs")
    pathogen: Mapped[Pathogen] = relationship(back_populates="repo_configs")


class UsherOption(Base):
    """A tree that UShER can place samples in; the lowest `priority` is offered first."""

    __tablename__ = "usher_options"
    __table_args__ = (sa.UniqueConstraint("pathogen_id", "priority"),)
    repr_fields: ClassVar[Mapping[str, str]] = {"value": "value", "pathogen": "pathogen_id"}

    id: Mapped[int] = mapped_column(primary_key=True)
    description: Mapped[str] = mapped_column(unique=True)
    value: Mapped[str] = mapped_column(unique=True)
    priority: Mapped[int | None]
    pathogen_id: Mapped[int] = mapped_column(sa.ForeignKey("pathogens.id"))

    pathogen: Mapped[Pathogen] = relationship(back_populates="usher_options")
