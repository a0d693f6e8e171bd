"""The rules for stored text, character by character."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspencli.changes.cells import identifier
from aspencli.errors import BadInputError
from aspencli.text import (
    clean_email,
    clean_identifier,
    clean_name,
    code_point,
    email_flaw,
    folded,
    identifier_flaw,
    name_flaw,
    unusual_in_identifier,
)

INVISIBLE = (
    "\u200b\u200c\u200d\u200e\u200f\u00ad\u061c\u2060\u2061\u2062\u2063\u2064\u180e\ufeff\u202a"
    "\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u034f\u115f\u1160\u17b4\u17b5\u180b\u180f"
    "\u2800\u3164\uffa0\ufe0e\ufe0f\U000e0001\U000e0041\U000e0100\U0001d173\ufff9\u2028\u2029"
)
SPACES = "\u00a0\u1680\u2000\u2002\u2003\u2007\u2008\u2009\u200a\u202f\u205f"
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u02d7\u2043\ufe58\ufe63\uff0d"


@pytest.mark.parametrize("char", INVISIBLE, ids=code_point)
def test_invisible_characters_are_refused_in_all_stored_text(char: str) -> None:
    for flaw in (identifier_flaw, name_flaw):
        found = str(flaw(f"CA{char}1"))
        assert found.startswith(f"contains {code_point(char)} at position 3, which is invisible")
    assert code_point(char) in str(email_flaw(f"ada@lab{char}.org"))
    assert folded(f"CA{char}1") == "CA1"


@pytest.mark.parametrize("char", SPACES, ids=code_point)
def test_nonstandard_spaces_are_refused_in_all_stored_text(char: str) -> None:
    for flaw in (identifier_flaw, name_flaw):
        assert "which looks like a space" in str(flaw(f"CA{char}1"))
    assert folded(f"CA{char}1") == "CA 1"


@pytest.mark.parametrize("char", DASHES, ids=code_point)
def test_unicode_dashes_are_refused_in_identifiers(char: str) -> None:
    found = str(identifier_flaw(f"CA{char}1"))
    assert found == f"contains {code_point(char)} at position 3, which looks like '-'"
    assert name_flaw(f"Lab {char} West") is None
    assert folded(f"CA{char}1") == "CA-1"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("\uff32\uff23\uff30-\uff11", "RCP-1"),  # fullwidth
        ("h\u0421oV-19", "hCoV-19"),  # Cyrillic
        ("\u0410\u0412-001", "AB-001"),  # Cyrillic; all of them look Latin
        ("N\u03bf-1", "No-1"),  # Greek
        ("\u0555K-1", "OK-1"),  # Armenian
        ("\u13abA-1", "JA-1"),  # Cherokee
        ("CA\u22151", "CA/1"),  # division slash
        ("CA\u20441", "CA/1"),  # fraction slash
        ("CA\uff0f1", "CA/1"),
        ("CA\u2236 1", "CA: 1"),  # ratio
        ("CA\u02d01", "CA:1"),
        ("\u201cCA-1\u201d", '"CA-1"'),
        ("\u2018CA-1\u2019", "'CA-1'"),
        ("CA\ufb011", "CAfi1"),  # ligature
        ("CA\u00b9", "CA1"),  # superscript
        ("\u2102A-1", "CA-1"),  # mathematical
        ("\U0001d402A-1", "CA-1"),
        ("\u2460-1", "1-1"),  # circled
        ("CA\uff11", "CA1"),
        ("\u0261ene-1", "gene-1"),  # IPA
        ("\u0131D-1", "iD-1"),  # dotless i
        ("3\u00d74", "3x4"),
    ],
)
def test_lookalike_characters_are_refused_in_identifiers(text: str, meant: str) -> None:
    assert "which looks like" in str(identifier_flaw(text))
    assert folded(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("hCoV-19/USA/CA-N1/2020", "RCPHL-0000001", "L 1", "a_b.c:d|e+f=g", "=1+1", "#12", "12E5"),
        *("é-lab", "Ñ-日本/🧬", "Москва-1", "Лаб-А-1", "ΑΒΓ-1", "β-1", "北京ノ-1", "مختبر-١"),
        *("한국-1", "हिन्दी-1", "ไทย-1", "Ørsted-1", "Łódź-9", "ß-1", "ähnlich-2"),
    ],
)
def test_identifiers_of_any_script_are_accepted(text: str) -> None:
    assert identifier_flaw(text) is None


def test_decomposed_letters_are_refused_in_identifiers() -> None:
    text = "e\u0301-lab"
    assert identifier_flaw(text) == (
        "contains U+0301 COMBINING ACUTE ACCENT at position 2, which looks the same as "
        "U+00E9 LATIN SMALL LETTER E WITH ACUTE"
    )
    assert folded(text) == "é-lab"
    assert name_flaw("Jose\u0301") is None


@pytest.mark.parametrize(
    "char", ["\ue000", "\U000f0000", "\ud800"], ids=["BMP", "plane 15", "half"]
)
def test_private_use_and_surrogate_characters_are_refused(char: str) -> None:
    for flaw in (identifier_flaw, name_flaw):
        assert "at position 2, which has no meaning" in str(flaw(f"A{char}"))


@pytest.mark.parametrize("char", ["\uffff", "\ufdd0", "\u0378"], ids=code_point)
def test_unassigned_characters_are_refused(char: str) -> None:
    for flaw in (identifier_flaw, name_flaw):
        assert "which is not assigned in Unicode" in str(flaw(f"A{char}"))


@pytest.mark.parametrize(
    "name",
    [
        *("Sinéad O’Connor", "Gerard ’t Hooft", "Núñez-Peña", "Søren Åkesson", "Мария Иванова"),
        *("山田\u3000太郎", "می\u200cخواهم", "क्\u200dष", "葛\U000e0100城", "Lab – West", "Null"),
        *("👩\u200d🔬 Lab", "☎\ufe0f Desk", "Αθηνά", "أحمد", "Dvořák, Antonín", "Ngô"),
    ],
)
def test_names_of_any_script_are_accepted(name: str) -> None:
    assert name_flaw(name) is None
    assert clean_name(f" {name} ", "the name") == name


@pytest.mark.parametrize(
    "name", ["Bo\u200cb", "\u200dBob", "Bob\u200d", "Bob \u3000 Li", "Bob\ufe0f", "a\u200d1"]
)
def test_unneeded_joiners_and_selectors_are_refused_in_names(name: str) -> None:
    assert "U+" in str(name_flaw(name))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "ada@lab.example.org",
            "o'neil@lab.org",
            "a+b.c_d@x-y.co.uk",
            "1@2.io",
            "jürgen@müller.de",
        ),
        *("ADA@LAB.ORG", "a@b.museum", "用户@例子.广告"),
    ],
)
def test_valid_email_addresses_are_accepted(text: str) -> None:
    assert clean_email(f" {text} ") == text


@pytest.mark.parametrize(
    "text",
    [
        *("mailto:bob@lab.org", "MAILTO:bob@lab.org", "<bob@lab.org>", '"bob"@lab.org', "bob"),
        *("Bob <bob@lab.org>", "'bob@lab.org", "bob@lab.org;amy@lab.org", "bob@lab.org,", "@x.org"),
        *("bob@lab", "bob@lab..org", ".bob@lab.org", "bob.@lab.org", "b..ob@lab.org", "bob@-x.org"),
        *("bob@x-.org", "bob@x_y.org", "b ob@lab.org", "bob@la b.org", "bob@@lab.org", "a@b@c.org"),
        *("x@y\u200b.org", "\u202aq@lab.org\u202c", "b\u043eb@lab.org", "bob@l\u0430b.org"),
        *(
            "bob\uff20lab.org",
            "bob@lab\u3002org",
            "bob\u00a0@lab.org",
            "bob(at)lab.org",
            "[bob@x.org]",
        ),
        *("bob@lab.org.", "bob@lab.org/", "bob@[127.0.0.1]", f"{'a' * 250}@x.org", ""),
    ],
)
def test_invalid_email_addresses_are_refused(text: str) -> None:
    with pytest.raises(BadInputError):
        clean_email(text)


@pytest.mark.parametrize("clean", [clean_identifier, clean_name])
def test_error_about_invalid_text_names_its_field(clean: Callable[[str, str], str]) -> None:
    with pytest.raises(BadInputError, match=r"The name contains U\+200B ZERO WIDTH SPACE"):
        clean("a\u200bb", "the name")
    with pytest.raises(BadInputError, match="The name is blank"):
        clean("  ", "the name")


def test_unsupported_characters_are_flagged_in_identifiers() -> None:
    accepted = {"Ll", "Lu", "Lt", "Lo", "Lm", "Mn", "Mc", "Me", "Nd", "Nl", "No"}
    accepted |= {"Pc", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Pd"}
    for code in range(0x80, sys.maxunicode + 1, 7):  # every seventh character
        char = chr(code)
        odd = unusual_in_identifier(f"A{char}1")
        if (
            unicodedata.category(char) not in accepted
            or unicodedata.normalize("NFKC", char) != char
        ):
            assert odd, code_point(char)


@given(value=st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_folding_is_stable_after_two_passes(value: str) -> None:
    again = folded(folded(value))
    assert again == folded(again)


# Leftovers from spreadsheets

ERRORS = (
    "#N/A #REF! #VALUE! #DIV/0! #NAME? #NULL! #NUM! #SPILL! #CALC! #GETTING_DATA #FIELD! #BUSY! "
    "#CONNECT! #BLOCKED! #UNKNOWN! #EXTERNAL! #PYTHON! #ERROR! #n/a #ref! ## ######## Err:502 "
    "Loading... #NV #BEZUG! #WERT! #ZAHL! #ÜBERLAUF! #KALK! #VALEUR! #NOM? #NOMBRE! #NUL! #N/D "
    "#¡REF! #¡VALOR! #¿NOMBRE? #¡NUM! #¡DIV/0! #RIF! #NOME? #NÚM! #N/B #VERW! #WAARDE! #NAAM? "
    "#N/D! #ADR! #NAZWA? #LICZBA! #SAKNAS! #VÄRDEFEL! #I/T #VÆRDI! #PUUTTUU! #ARVO! #ССЫЛКА! "
    "#ЗНАЧ! #ИМЯ? #HIV! #ÉRTÉK! #YOK #DEĞER! #AD?"
).split()


@pytest.mark.parametrize("text", ERRORS)
def test_spreadsheet_errors_are_refused_in_identifiers(text: str) -> None:
    assert identifier(text)[1] == f"contains the error {text}"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "NA",
            "na",
            "N/A",
            "n/a",
            "n.a.",
            "NULL",
            "None",
            "nan",
            "NaN",
            "missing",
            "Unknown",
            "-",
        ),
        *("--", "?", "not applicable", "Not Collected", "TBD", "(blank)", "<NA>", "\\N", "pending"),
    ],
)
def test_words_for_missing_values_are_refused_unless_allowed(text: str) -> None:
    assert "means a missing value" in str(identifier(text, missing_words=False)[1])
    assert identifier(text, missing_words=True) == (text, None)


@pytest.mark.parametrize(
    "text",
    [
        *("1.20E+05", "1.2E5", "1E+05", "2e-10", "12E+05", "1,20E+05", "-1.5E+10", "2E+100"),
        *("1-Mar", "01-Mar", "Mar-01", "Sep-2023", "2-Sep-23", "3/1/2024", "03/01/24", "1-Mrz"),
        *(
            "2023-03-01 00:00",
            "2023-03-01T00:00:00",
            "17.0",
            "0.0",
            "1,234",
            "12,345,678",
            "1,234.5",
        ),
        *("'RCPHL-1", '="RCPHL-1"', '=""', "=A2", '=A2&"-x"', "=VLOOKUP(A1;B1)", "=$B$2", '"L-1"'),
    ],
)
def test_spreadsheet_damage_is_refused_with_remedy(text: str) -> None:
    reason = str(identifier(text)[1])
    assert reason.startswith(("is ", "starts with", '"'))
    remedies = ("format the column as text", "use its value", "remove", "save")
    assert any(remedy in reason for remedy in remedies)


@pytest.mark.parametrize(
    "text",
    [
        *("2E10", "12E5", "E12", "1E", "44986", "MAR1", "MAR-01", "SEP-2", "DEC1", "2023-03-01"),
        *("NA-1", "N/A-7", "null-2", "Nadia", "#12", "#A1", "1.2.3", "1.01", "0017", "17.01"),
        *("L-1.0", "A1,234", "1,23", "=1+1", "@SUM", "+1", "-1", "O'Neil-1", 'a"b', "L'1", "E1234"),
    ],
)
def test_identifiers_resembling_spreadsheet_damage_are_accepted(text: str) -> None:
    assert identifier(text, missing_words=False) == (text, None)
