"""The production databases seen from this machine, recorded by identity rather than by address.

A tunnel gives a database another address, so an unknown address may still lead to production.
The identity (`aspen.database.engine.DatabaseIdentity`) is the same through every tunnel,
proxy, and pooler.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aspencli.errors import AspenError
from aspencli.files import make_folder, state_dir, write_whole

if TYPE_CHECKING:  # SQLAlchemy, which a console loads only after its first prompt
    from aspen.database.engine import DatabaseIdentity


class ProductionDatabases:
    """The record of known production databases, in the state folder."""

    def __init__(self) -> None:
        self.path = state_dir() / "production-databases.json"

    def all(self) -> dict[str, dict[str, Any]]:
        """Return the recorded entries by identity.

        Raises:
            AspenError: The record cannot be read, so production could not be recognized.
        """
        try:
            found = json.loads(self.path.read_text())
            return {str(key): dict(entry) for key, entry in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise AspenError(
                f"Could not read the list of production databases: {self.path}",
                hint="Restore its permissions, or delete it and connect to each production target "
                "once: aspencli --env prod db status",
            ) from error

    def label_of(self, identity: DatabaseIdentity) -> str | None:
        """Return the label of the production target with this database, or None if unknown."""
        entry = self.all().get(_key(identity)) if identity.system else None
        return None if entry is None else str(entry["target"])

    def record(self, label: str, address: str, identity: DatabaseIdentity) -> None:
        """Record that a target's database, at an address without a password, is production."""
        if not identity.system:
            return  # Database OIDs alone are the same on many servers.
        entry = {"target": label, "address": address}
        entries = self.all()
        before: Mapping[str, Any] = entries.get(_key(identity), {})
        if entry.items() <= before.items():
            return
        entries[_key(identity)] = {**entry, "seen_at": dt.datetime.now(dt.UTC).isoformat()}
        make_folder(self.path.parent)
        write_whole(self.path, json.dumps(entries, indent=1))


def _key(identity: DatabaseIdentity) -> str:
    return f"{identity.system}/{identity.oid}"
