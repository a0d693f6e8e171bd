"""Whether a starting server takes connections yet."""

from __future__ import annotations

import psycopg2

from aspencli.errors import ConflictError
from local.places import Places
from local.ports import HOST


def answers(port: int, user: str, places: Places) -> bool:
    """Whether a server takes a user's connections.

    Raises:
        ConflictError: It answers, and refuses the password that is kept.
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
