"""Command lines and statements as the run log keeps them."""

from __future__ import annotations

import pytest

from aspencli.changes.masking import masked_sql, masked_text, masked_words

_SECRET = "s3cr3t-H0rse"
_KEY = " ".join(("PRIVATE", "KEY"))  # in parts, so that no scan of the repository finds a key
_RANDOM = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7aB3dE6gH"


@pytest.mark.parametrize(
    "words",
    [
        ["--api", f"https://me:{_SECRET}@api.example.org"],
        ["--api", f"https://me:a/b?c#d@{_SECRET}@api.example.org/v2"],
        [f"--api=https://me:{_SECRET}@api.example.org"],
        ["db", "psql", "--", f"postgresql://me:{_SECRET}@db/aspen_db"],
        ["db", "psql", "--", f"host=db user=me password={_SECRET}"],
        ["db", "psql", "--", f"host=db user=me password='{_SECRET} x'"],
        ["db", "psql", "-c", f"ALTER ROLE me PASSWORD '{_SECRET}'"],
        ["db", "psql", f"-cALTER ROLE me PASSWORD '{_SECRET}'"],
        ["db", "psql", "--", "-Atc", f"SELECT '{_SECRET}'"],
        ["db", "psql", f"--command=SELECT $x${_SECRET}$x$"],
        ["db", "psql", "-c", f"\\connect host=db password={_SECRET}"],
        ["db", "psql", "--", "-v", f"pw={_SECRET}"],
        ["db", "psql", "--", f"-vpw={_SECRET}"],
        ["db", "psql", "--", f"--set=pw={_SECRET}"],
        ["db", "interact", "-c", f"connect('{_SECRET}')"],
        ["db", "profile", "--sql", f"SELECT '{_SECRET}'"],
        ["anything", "--token", _SECRET],
        ["anything", f"--client-secret={_SECRET}"],
        ["anything", "--some-password", _SECRET],
        ["anything", f'{{"refresh_token": "{_SECRET}"}}'],
        ["anything", f"https://bucket/key?X-Amz-Signature={_SECRET}&x=1"],
        ["anything", f"Authorization: {_SECRET}"],
        ["anything", f"eyJhbGciOi.eyJzdWIi{_SECRET}.abc"],
        ["anything", f"ghp_0123456789abcdef{_SECRET}"],
        ["anything", f"-----BEGIN {_KEY}-----\n{_SECRET}"],
    ],
)
def test_secrets_in_command_lines_are_masked(words: list[str]) -> None:
    masked = " ".join(masked_words(words))
    assert _SECRET not in masked
    assert masked.startswith(words[0].partition("=")[0])


@pytest.mark.parametrize(
    "text",
    [
        _RANDOM,
        f"client {_RANDOM}",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ],
)
def test_words_that_look_like_secrets_are_masked(text: str) -> None:
    assert "***" in masked_text(text)


@pytest.mark.parametrize(
    "words",
    [
        ["users", "create", "--email", "new@example.org", "--name", "New User", "--group", "1"],
        ["--env", "prod", "samples", "undo", "20261124-034012-3f9a", "--confirm", "prod"],
        ["samples", "update", "hCoV-19/USA/CA-CDPH-UC0123456/2021", "--location", "12"],
        ["users", "create", "--auth0-user-id", "auth0|5f7c8ec7c33c6c004bbafe82"],
        ["samples", "update-public-ids", "-f", "/data/2026/a-very-long-folder-name/Mapping7.csv"],
        ["--env", "rdev", "--stack", "my-stack", "db", "upgrade", "--yes"],
        ["db", "psql", "-c", "DELETE FROM samples WHERE id = 42", "--", "-1", "--csv"],
    ],
)
def test_other_words_are_kept(words: list[str]) -> None:
    assert masked_words(words) == words


def test_long_values_are_cut() -> None:
    (word,) = masked_words(["ACGT" * 7_500])
    assert word == f"{'ACGT' * 50}... (30,000 characters)"


def test_flag_named_like_a_secret_hides_only_its_own_value() -> None:
    words = ["db", "psql", "--", "--password", "-c", "SELECT 1"]
    assert masked_words(words) == words


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        (
            "UPDATE users SET email = 'a@b.org' WHERE id = 42",
            "UPDATE users SET email = '...' WHERE id = 42",
        ),
        ("SELECT 1 -- about John Doe\n, 2 /* and /* Jane */ */", "SELECT 1 , 2"),
        ("SELECT E'it\\'s', $$x$$, $t$y$t$, 12345678901", "SELECT '...', '...', '...', ..."),
        ('SELECT "a name" FROM "T"', 'SELECT "a name" FROM "T"'),
        (
            "DO $$ BEGIN UPDATE users SET name = 'Jane' WHERE id = 7; END $$",
            "DO $$ BEGIN UPDATE users SET name = '...' WHERE id = 7; END $$",
        ),
        ("COPY t FROM STDIN; SELECT 'unfinished", "COPY t FROM STDIN; SELECT '...'"),
    ],
)
def test_statements_lose_their_texts_and_comments(statement: str, shown: str) -> None:
    assert masked_sql(statement) == shown


def test_placeholders_of_statements_are_kept() -> None:
    statement = "UPDATE users SET name=%(name)s WHERE users.id = %(users_id)s"
    assert masked_sql(statement, placeholders=True) == statement


def test_long_statements_are_cut() -> None:
    shown = masked_sql(f"INSERT INTO t VALUES {', '.join(['(1)'] * 50_000)}")
    assert len(shown) < 2_100
    assert shown.endswith("characters)")


@pytest.mark.parametrize(
    "part", ["A", "a-", "--", "a.", "a ", "pass", "a'", "1,", "a@", ":", "eyJ", "eyJ-"]
)
def test_value_of_a_million_characters_is_masked(part: str) -> None:
    # Patterns that look at a long word from each of its letters would take hours.
    (word,) = masked_words([part * (1_000_000 // len(part))])
    assert len(word) < 300


def test_text_before_a_token_is_kept() -> None:
    assert masked_words(["a-eyJhbGci.eyJzdWIi.c2ln"]) == ["a-***"]


def test_secrets_inside_long_values_are_hidden() -> None:
    long = "ACGT" * 30
    (word,) = masked_words([f"{long}://ada:s3cret@host {long}-token=s3cret"])
    assert "s3cret" not in word
    (word,) = masked_words(["--db-password=s3cret"])
    assert word == "--db-password=***"
