"""A short outage of what ``make outages-remote`` does with longer ones."""

from __future__ import annotations

import pytest

from benchmarks import outages_remote
from tests.deployments.rig import missing


def test_commands_survive_a_short_outage_or_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := missing():
        pytest.skip(reason)
    monkeypatch.setattr(outages_remote, "_OUTAGES_S", (1.0,))
    monkeypatch.setattr(outages_remote, "_ROWS", 5_000)
    monkeypatch.setattr("sys.argv", ["outages_remote", "--commands", "3"])
    code = outages_remote.main()
    said = capsys.readouterr().out
    assert "FAULT" not in said
    assert "3 commands cut off; 3 reported correctly" in said
    assert code == 0
