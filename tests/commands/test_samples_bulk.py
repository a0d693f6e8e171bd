from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.commands.mapping_cases import CASES, Case
from tests.commands.mapping_lab import Lab

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_mapping(case: Case, lab: Lab, tmp_path: Path) -> None:
    if os.geteuid() == 0 and not case.as_root:
        pytest.skip("root may read everything")
    ended = case.run(lab, tmp_path)
    assert ended.code == case.code, ended.err
    assert ended.written == case.writes
    for words in case.says:
        assert words in ended.err
    assert not _CONTROL.search(ended.err)
    if case.code:
        assert ended.out == ""
        assert re.search("^(→|  )", ended.err, re.MULTILINE), "no word of what to do next"
