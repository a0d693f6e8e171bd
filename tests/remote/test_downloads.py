"""Downloads: complete or absent, and resumed if the server supports it."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from aspencli.errors import AspenError, RefusedError, UnreachableError
from aspencli.remote.downloads import Downloaded, FileLanding, Landing, StreamLanding
from tests.remote.conftest import Client
from tests.remote.naughty import Reply, Seen, Wire, reply, reply_json

MakeClient = Callable[..., Client]
DATA = bytes(range(256)) * 40
SOURCE = "tree 7"


def _fetch(
    made: Client, landing: Landing, progress: list[tuple[int, int | None]] | None = None
) -> Downloaded:
    told = [] if progress is None else progress
    return made.api.phylo_trees.download(1, "SC2", 7, landing, lambda *now: told.append(now))


def _cut(data: bytes, total: int, headers: dict[str, str] | None = None) -> Reply:
    return reply(200, data, headers, length=total)


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder / "tree.json"


def test_complete_download_leaves_only_the_file(client: MakeClient, target: Path) -> None:
    told: list[tuple[int, int | None]] = []
    made = client(
        reply(200, DATA, {"Content-Disposition": 'attachment; filename="../../etc/tree.json"'})
    )
    done = _fetch(made, FileLanding(target, SOURCE), told)
    assert target.read_bytes() == DATA
    assert (done.path, done.size) == (target, len(DATA))
    assert told[-1] == (len(DATA), len(DATA))
    assert _left(target.parent) == ["tree.json"]
    assert made.server.seen[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"', "Accept-Ranges": "bytes"}])
def test_broken_download_without_strong_etag_restarts(
    client: MakeClient, target: Path, headers: dict[str, str]
) -> None:
    made = client(_cut(DATA[:5000], len(DATA), headers), reply(200, DATA, headers))
    _fetch(made, FileLanding(target, SOURCE))
    assert target.read_bytes() == DATA
    assert "range" not in made.server.seen[1].headers
    assert _left(target.parent) == ["tree.json"]


class Ranges:
    """A route that serves ranges of the data like S3, and breaks off after a number of bytes."""

    def __init__(self, data: bytes, after: int, etag: str = '"v1"'):
        self.data, self.after, self.etag = data, after, etag
        self.starts: list[int] = []

    def __call__(self, seen: Seen) -> Reply:
        headers = {"ETag": self.etag, "Accept-Ranges": "bytes"}
        start = 0
        if "range" in seen.headers and seen.headers["if-range"] == self.etag:
            start = int(seen.headers["range"].removeprefix("bytes=").rstrip("-"))
        self.starts.append(start)
        rest = self.data[start:]
        if start >= len(self.data):
            return reply(416, headers={"Content-Range": f"bytes */{len(self.data)}"})
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
        status = 206 if start else 200
        return reply(status, rest[: self.after], headers, length=len(rest))


def test_broken_download_resumes_where_it_stopped(client: MakeClient, target: Path) -> None:
    server = Ranges(DATA, 4000)
    made = client(route=server)
    done = _fetch(made, FileLanding(target, SOURCE))
    assert target.read_bytes() == DATA
    assert done.size == len(DATA)
    assert server.starts[0] == 0
    assert server.starts[-1] > 4000
    assert _left(target.parent) == ["tree.json"]


def test_interrupted_download_resumes_in_next_run(client: MakeClient, target: Path) -> None:
    def stop_early(done: int, total: int | None) -> None:
        if done > 1000:
            raise KeyboardInterrupt

    made = client(route=Ranges(DATA, 1 << 20))
    with pytest.raises(KeyboardInterrupt):
        made.api.phylo_trees.download(1, "SC2", 7, FileLanding(target, SOURCE), stop_early)
    assert not target.exists()
    again = Ranges(DATA, 1 << 20)
    _fetch(client(route=again), FileLanding(target, SOURCE))
    assert again.starts[0] > 1000
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("change", ["etag", "source", "longer"])
def test_partial_download_of_different_content_is_discarded(
    client: MakeClient, target: Path, change: str
) -> None:
    part = target.with_name(".tree.json.part")
    part.write_bytes(b"?" * (len(DATA) if change == "longer" else 100))
    mark = target.with_name(".tree.json.part.etag")
    etag = '"v0"' if change == "etag" else '"v1"'
    mark.write_text(f"{'another' if change == 'source' else SOURCE}\n{etag}")
    made = client(route=Ranges(DATA, 1 << 20))
    _fetch(made, FileLanding(target, SOURCE))
    assert target.read_bytes() == DATA
    assert _left(target.parent) == ["tree.json"]


def test_wrong_range_from_server_restarts_download(client: MakeClient, target: Path) -> None:
    target.with_name(".tree.json.part").write_bytes(b"?" * 100)
    target.with_name(".tree.json.part.etag").write_text(f'{SOURCE}\n"v1"')
    odd = reply(206, DATA[:50], {"Content-Range": f"bytes 0-49/{len(DATA)}"})
    made = client(odd, reply(200, DATA))
    _fetch(made, FileLanding(target, SOURCE))
    assert target.read_bytes() == DATA


def test_interrupted_download_that_cannot_resume_leaves_no_part_file(
    client: MakeClient, target: Path
) -> None:
    target.write_text("the one before")

    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    made = client(reply(200, DATA))
    with pytest.raises(KeyboardInterrupt):
        made.api.phylo_trees.download(1, "SC2", 7, FileLanding(target, SOURCE), stop)
    assert target.read_text() == "the one before"
    assert _left(target.parent) == ["tree.json"]


def test_rejected_download_creates_no_file(client: MakeClient, target: Path) -> None:
    made = client(reply_json({"error": "PhyloTree with id 7 not viewable by user"}, 400))
    with pytest.raises(AspenError) as caught:
        _fetch(made, FileLanding(target, SOURCE))
    assert caught.value.exit_code == 6
    assert _left(target.parent) == []


def test_download_to_missing_folder_names_the_file(client: MakeClient, tmp_path: Path) -> None:
    made = client(reply(200, DATA))
    with pytest.raises(FileNotFoundError) as caught:
        _fetch(made, FileLanding(tmp_path / "no" / "tree.json", SOURCE))
    assert caught.value.filename


def test_failed_write_of_download_names_the_file(client: MakeClient, target: Path) -> None:
    made = client(reply(200, DATA))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(DATA) - 1, hard))  # like a full disk
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            _fetch(made, FileLanding(target, SOURCE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(target.with_name(".tree.json.part")) == caught.value.filename
    assert not target.exists()


@pytest.mark.parametrize("name", [".tree.json.part", "tree.json"])
def test_download_does_not_follow_symlink(client: MakeClient, target: Path, name: str) -> None:
    victim = target.with_name("victim")
    victim.write_text("precious")
    target.with_name(name).symlink_to(victim)
    made = client(reply(200, DATA))
    with contextlib.suppress(RefusedError):
        _fetch(made, FileLanding(target, SOURCE))
    assert victim.read_text() == "precious"


# Streams


def test_download_to_stream_writes_bytes_unchanged(client: MakeClient) -> None:
    stream = BytesIO()
    done = _fetch(client(reply(200, DATA)), StreamLanding(stream))
    assert stream.getvalue() == DATA
    assert done.path is None


def test_broken_download_to_stream_is_not_restarted(client: MakeClient) -> None:
    stream = BytesIO()
    made = client(_cut(DATA[:5000], len(DATA)), reply(200, DATA))
    with pytest.raises(
        UnreachableError, match="was interrupted after 5,000 bytes, which were already written"
    ):
        _fetch(made, StreamLanding(stream))
    assert stream.getvalue() == DATA[:5000]


def test_download_to_stream_is_retried_if_nothing_was_written(client: MakeClient) -> None:
    def nothing(wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        wire.close()

    stream = BytesIO()
    _fetch(client(nothing, reply(200, DATA)), StreamLanding(stream))
    assert stream.getvalue() == DATA
