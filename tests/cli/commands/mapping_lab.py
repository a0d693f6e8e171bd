"""Groups of samples to test mappings on, and the results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests import zygote
from tests.conftest import only_target, use_target

# Private identifiers, and the original public identifiers.
SAMPLES = {
    "L-1": "P-1",
    "L-2": "P-2",
    "L-3": "P-3",
    "L-4": "P-4",
    "L-5": "P-5",
    "L-6": "P-6",
    "comma, lab": "P-comma",
    'quote " lab': "P-quote",
    "é-lab": "P-accent",
    "case": "C-low",
    "CASE": "C-up",
    "=1+1": "P-formula",
    "\\N": "P-null",
    "NULL": "P-word",
    "back\\slash\\t": "P-back",
    "'); DROP TABLE aspen.samples; --": "P-sql",
}
_PEOPLE = """
INSERT INTO aspen.locations (id, region) VALUES (900, 'Nowhere') ON CONFLICT DO NOTHING;
INSERT INTO aspen.users (id, name, email, auth0_user_id, system_admin, agreed_to_tos, analytics_id)
VALUES (900, 'Tester', 'tester@example.org', 'auth0|900', false, true, 'a900')
ON CONFLICT DO NOTHING
"""
_GROUP = """
INSERT INTO aspen.groups (name, prefix, default_tree_location_id, auth0_org_id)
VALUES ('Laboratory ' || :token, :token, 900, 'org_' || :token) RETURNING id
"""
_SAMPLES = """
INSERT INTO aspen.samples (submitting_group_id, private_identifier, public_identifier,
    original_submission, sample_collected_by, collection_date, organism, private,
    uploaded_by_id, pathogen_id)
SELECT :group, lab, public, '{"as": "sent"}', 'a laboratory', '2023-05-17', 'SARS-CoV-2', true,
       900, (SELECT min(id) FROM aspen.pathogens)
  FROM unnest(CAST(:labs AS varchar[]), CAST(:publics AS varchar[])) AS named (lab, public)
"""
# No rename may change this: other groups' samples, and all other columns. A write to another
# group's sample creates a new row version; comparing versions is 30 times as fast.
_REST = """
SELECT md5(string_agg(CASE WHEN s.submitting_group_id = :group
           THEN (to_jsonb(s) - 'original_submission' - 'public_identifier')::text
           ELSE s.ctid::text || s.xmin END, ' ' ORDER BY s.id))
       || count(*) || min(s.original_submission::text) FROM aspen.samples s
"""


@dataclass(frozen=True)
class Ended:
    """The result of a command, with the samples that it renamed."""

    code: int
    out: str
    err: str
    written: dict[str, str]


class Lab:
    """A migrated database with groups for tests.

    Args:
        address: The database.
        folder: The folder for files of the program and the test.
    """

    def __init__(self, address: str, folder: Path):
        self.address = address
        self.folder = folder
        # Most tests look six times at what a command left; a new session for each takes 10 ms.
        self.engine = sa.create_engine(address, pool_pre_ping=True)
        with self.engine.begin() as connection:
            connection.execute(sa.text(_PEOPLE))

    def group(self, samples: Mapping[str, str] = SAMPLES) -> int:
        """Create a group with samples of the given names, and return its ID."""
        with self.engine.begin() as connection:
            group = connection.scalar(sa.text(_GROUP), {"token": os.urandom(6).hex()})
            values = {"group": group, "labs": list(samples), "publics": list(samples.values())}
            connection.execute(sa.text(_SAMPLES), values)
        return int(group or 0)

    def names(self, group: int) -> dict[str, str]:
        """Return the public identifier of each sample in a group."""
        query = (
            "SELECT private_identifier, public_identifier FROM aspen.samples "
            "WHERE submitting_group_id = :group"
        )
        with self.engine.connect() as connection:
            rows = connection.execute(sa.text(query), {"group": group}).all()
        return {row.private_identifier: row.public_identifier for row in rows}

    def rename(self, group: int, lab: str, public: str) -> None:
        """Rename a sample, as a concurrent user would."""
        statement = (
            "UPDATE aspen.samples SET public_identifier = :public "
            "WHERE submitting_group_id = :group AND private_identifier = :lab"
        )
        with self.engine.begin() as connection:
            values = {"group": group, "lab": lab, "public": public}
            assert connection.execute(sa.text(statement), values).rowcount == 1

    @property
    def home(self) -> Path:
        """Return the folder in which its processes keep their state."""
        return self.folder / "home"

    def environment(self, words: Iterable[str] = ()) -> dict[str, str]:
        """Return the environment of a process whose command line targets this database."""
        targets = only_target(words, self.address, self.home)
        found = {**os.environ, "ASPEN_HOME": str(self.home), "ASPEN_VIA": "db", **targets}
        return {name: value for name, value in found.items() if value is not None}

    def use(self, monkeypatch: pytest.MonkeyPatch, words: Iterable[str]) -> None:
        """Set the same variables for a command in this process."""
        use_target(monkeypatch, words, self.address, self.home)

    def run(self, *arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
        """Run a command; return its exit code, stdout, and stderr."""
        done = zygote.run(arguments, env=self.environment(arguments), stdin=stdin)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def execute(self, statement: str, **values: object) -> None:
        """Run another statement on the database."""
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def update(self, group: int, mapping: str, *options: str, stdin: bytes | None = None) -> Ended:
        """Run the bulk update on a group, and check that nothing else changed.

        Args:
            group: The group.
            mapping: The mapping's path, or ``-``.
            options: Additional options.
            stdin: The content of standard input.
        """
        words = ["samples", "update-public-ids", "--group-id", str(group)]
        return self.watch(
            group, [*words, "--private-to-public-id-mapping", mapping, *options], stdin
        )

    def watch(self, group: int, words: Sequence[str], stdin: bytes | None = None) -> Ended:
        """Run a command, and detect which samples of the group it renamed."""
        names, rest = self.names(group), self._rest(group)
        code, out, err = self.run(*words, stdin=stdin)
        now = self.names(group)
        assert self._rest(group) == rest, "more was changed than public identifiers of the group"
        written = {lab: public for lab, public in now.items() if names[lab] != public}
        return Ended(code, out, err, written)

    def _rest(self, group: int) -> str:
        with self.engine.connect() as connection:
            return str(connection.scalar(sa.text(_REST), {"group": group}))
