"""Short database commands, compared with a bare SQLAlchemy script that runs the same query."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from aspen.local.postgres.server import DATABASE
from benchmarks.speed.lab import opened
from benchmarks.speed.measuring import Comparison, compare, run

_SCRIPT = """
import sys
import sqlalchemy as sa

engine = sa.create_engine(sys.argv[1])
with engine.connect() as connection:
    for row in connection.execute(sa.text(sys.argv[2])):
        print(*row, sep="\\t")
"""
_COMMANDS = {
    "pathogens list": "SELECT id, slug, name FROM aspen.pathogens ORDER BY id",
    "users list": """
SELECT id, name, email, auth0_user_id, system_admin,
       (SELECT json_agg(json_build_array(g.id, g.name, r.name)) FROM aspen.user_roles x
          JOIN aspen.groups g ON g.id = group_id JOIN aspen.roles r ON r.id = role_id
         WHERE user_id = u.id)
  FROM aspen.users u ORDER BY id LIMIT 50
""",
    "samples list --limit 3": """
SELECT s.id, private_identifier, public_identifier, g.name, p.slug, collection_date,
       concat_ws(' / ', l.region, l.country, l.division, l.location), private, u.name,
       (SELECT count(*) FROM aspen.samples)
  FROM aspen.samples s JOIN aspen.groups g ON g.id = submitting_group_id
  JOIN aspen.pathogens p ON p.id = pathogen_id JOIN aspen.users u ON u.id = uploaded_by_id
  LEFT JOIN aspen.locations l ON l.id = location_id
 ORDER BY s.id LIMIT 4
""",
}
_GOAL, _ROUNDS = 1.25, 21


def measure() -> Iterator[Comparison]:
    """Measure each command from its start to its end."""
    with opened(1_000) as lab:
        environment = lab.environment(DATABASE)
        address = lab.cluster.url(DATABASE)
        for command, query in _COMMANDS.items():
            ours = [lab.aspencli, *command.split()]
            script = [sys.executable, "-c", _SCRIPT, address, query]
            run(ours, environment)  # this creates the bytecode
            yield compare(
                f"aspencli {command}",
                lambda ours=ours: run(ours, environment),  # type: ignore[misc] # bound in the loop
                "SQLAlchemy script, same query",
                lambda script=script: run(script, environment),  # type: ignore[misc] # same
                goal=_GOAL,
                rounds=_ROUNDS,
            )
