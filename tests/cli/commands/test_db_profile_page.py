"""The page of ``db profile --html``: it is self-contained, and everything that ran is in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.cli.commands.profile_lab import Profiling

# Anything that would make a browser send a request.
ASKS = re.compile(r"\b(?:https?:|src=|@import|url\(|fetch\(|XMLHttpRequest|WebSocket|sendBeacon)")
START, QUERY, FAILED = 0, 3, 4
LANE, DEPTH, LENGTH, OUTCOME = 0, 1, 3, 4
WORK = """
with engine.begin() as first:
    for number in range(150):
        first.execute(sa.text("select 'a', :n"), {"n": number})
    with first.begin_nested():
        first.execute(sa.text("select 'kept'"))
    with first.begin_nested() as lost:
        first.execute(sa.text("select 'lost'"))
        lost.rollback()
with engine.begin() as second:
    try:
        second.execute(sa.text("select 1/0"))
    except sa.exc.DBAPIError:
        second.rollback()
"""


def data_of(page: Path) -> Any:
    return json.loads(page.read_text().partition('id="data">')[2].partition("</script>")[0])


def test_html_report_is_self_contained_and_escapes_statements(
    profile: Profiling, tmp_path: Path
) -> None:
    page = tmp_path / "profile.html"
    query = 'select 1 as "</script><script>alert(1)</script><!--<script>{{SCRIPT}}"'
    done = profile("--explain", "--html", str(page), "--sql", query)
    assert done.code == 0, done.err
    text = page.read_text()
    assert text.count("</script>") == 2, "the data's, and the code's"
    assert "{{DATA}}" not in text
    code = text.replace(text.partition('id="data">')[2].partition("</script>")[0], "")
    assert ASKS.search(code) is None
    assert "default-src 'none'" in code
    (one,) = data_of(page)["statements"]
    assert one["fingerprint"] == query.replace("select 1", "select ?")
    assert one["plan"]["Plan"]


def test_html_report_has_every_query_transaction_and_savepoint(
    profile: Profiling, tmp_path: Path
) -> None:
    page = tmp_path / "profile.html"
    done = profile("--write", "--html", str(page), "-c", WORK)
    assert done.code == 0, done.err
    document = data_of(page)
    names = [one["fingerprint"] for one in document["statements"]]
    assert document["statements"] == done.json["statements"]
    timeline = document["timeline"]
    drawn = [names[one[QUERY]] for one in timeline["queries"]]
    assert len(drawn) == done.json["totals"]["queries"]
    assert drawn.count("select ?, ?") == 150
    failed = [names[one[QUERY]] for one in timeline["queries"] if one[FAILED]]
    assert failed == ["select ?/?"]
    assert timeline["left_out"] == 0

    bands = sorted(timeline["transactions"], key=lambda band: (band[2], band[DEPTH]))
    committed, rolled_back = 1, 2
    assert [(band[LANE], band[DEPTH], band[OUTCOME]) for band in bands] == [
        (0, 0, committed),
        (0, 1, committed),
        (0, 1, rolled_back),
        (0, 0, rolled_back),
    ]
    assert timeline["lanes"] == 1
    assert bands[0][LENGTH] > bands[1][LENGTH]
