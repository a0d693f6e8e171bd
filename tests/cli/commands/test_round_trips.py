"""Round trips to the database, counted on the wire; each one costs 20 to 150 ms off the laptop."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from aspen.database.engine import Database
    from tests.conftest import CliRunner


@dataclass
class Wire:
    """A proxy that counts how often clients say something and wait for the answer."""

    server: URL
    address: URL
    turns: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, listener: socket.socket) -> None:
        """Forward every connection to the server."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((self.server.host, self.server.port))
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        asking = threading.Event()  # the client spoke last
        with client, server:
            back = threading.Thread(target=self._copy, args=(server, client, asking, False))
            back.start()
            self._copy(client, server, asking, True)
            back.join()

    def _copy(
        self, one: socket.socket, other: socket.socket, asking: threading.Event, from_client: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                with self._lock:
                    if from_client and not asking.is_set() and data[:1] != b"X":  # not Terminate
                        self.turns += 1
                    (asking.set if from_client else asking.clear)()
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


@pytest.fixture
def wire(seeded: Database) -> Iterator[Wire]:
    url = seeded.url
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Wire(url, url.set(port=listener.getsockname()[1]))
        threading.Thread(target=found.serve, args=(listener,), daemon=True).start()
        yield found


# Opening a connection takes four: TLS, start-up, and two for the password.
@pytest.mark.unpooled("a pooler adds round trips")
@pytest.mark.parametrize(
    ("words", "most"),
    [
        (("samples", "list", "--limit", "3"), 6),
        (("users", "list"), 7),
        (("groups", "list"), 6),
        (("db", "current"), 7),
        (("db", "status"), 12),
        (("db", "doctor"), 24),
        (("db", "interact", "-c", "session.scalar(sa.text('SELECT 1'))"), 10),
        (("samples", "show", "SAMPLE"), 12),
        (("db", "psql", "-c", "SELECT 1"), 10),  # psql alone takes 5,
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_command_takes_few_round_trips(
    run_cli: CliRunner, seeded: Database, wire: Wire, words: tuple[str, ...], most: int
) -> None:
    with seeded.reading() as session:
        name = (
            session.connection()
            .exec_driver_sql("SELECT private_identifier FROM aspen.samples ORDER BY id LIMIT 1")
            .scalar_one()
        )
    given = [name if word == "SAMPLE" else word for word in words]
    done = run_cli(*given, database=wire.address)
    assert done.code in {0, 1}, done.err
    assert wire.turns <= most


@pytest.mark.unpooled("a pooler adds round trips")
@pytest.mark.parametrize(
    ("env", "most"),
    [
        ("staging", 7),  # one for the question whether it is the known production database
        ("prod", 6),
    ],
)
def test_recognizing_production_takes_one_round_trip_at_most(
    run_cli: CliRunner, wire: Wire, env: str, most: int
) -> None:
    through = wire.address.render_as_string(hide_password=False)
    directly = wire.server.render_as_string(hide_password=False)
    listed = ("samples", "list", "--via", "db", "--limit", "3")
    before = {"ASPEN_DATABASE_URL_PROD": through if env == "prod" else directly}
    assert run_cli("--env", "prod", *listed, env=before).code == 0
    wire.turns = 0
    variable = f"ASPEN_DATABASE_URL_{env.upper()}"
    done = run_cli("--env", env, *listed, env={variable: through})
    assert done.code == 0, done.err
    assert wire.turns <= most
