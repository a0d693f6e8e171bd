"""A check that a starting server accepts connections."""

from __future__ import annotations

import psycopg2

from aspencli.errors import ConflictError
from local.places import Places
from local.ports import HOST


def answers(port: int, user: str, places: Places) -> bool:
    """Return True if a server accepts a user's connections.

    Raises:
        ConflictError: The server rejects the stored password.
    """
    try:
        connection = psycopg2.connect(
            host=HOST,
            port=port,
            user=user,
            password=places.passwords()[user],
            dbname="postgres",
            connect_timeout=10,
        )
    except psycopg2.OperationalError as error:
        if "password authentication failed" in str(error):
            raise ConflictError(
                f"the local database does not know the password in {places.passwords_file}",
                hint="Put the right file back, or give the data up with 'aspencli local reset'.",
            ) from error
        return False
    connection.close()
    return True
