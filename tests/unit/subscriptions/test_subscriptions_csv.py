"""Lists of people as they come out of spreadsheets, good and bad."""

import csv
import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from shared.contracts.news import Audience, Locale
from subscriptions import csv_reading, csv_text, register

POLITICIAN = Audience.POLITICIAN
HEADER = "E-post;Namn;Fullmäktige;Kommun;Mandat från;Mandat till;Språk\n"
ANNA = "anna@kalmar.example;Anna Åberg;Kommunfullmäktige;Kalmar;2026-10-15;2030-10-14;sv\n"


class Read(csv_reading.Reading):
    rows: list[csv_reading.Row]


def read(text: str | bytes, audience: Audience = POLITICIAN, encoding: str = "utf-8") -> Read:
    source, reading = io.BytesIO(text if isinstance(text, bytes) else text.encode(encoding)), Read()
    reading.rows = list(csv_reading.rows(source, audience, reading))
    assert not source.closed
    return reading


def faults(reading: csv_reading.Reading) -> list[tuple[int, str, str]]:
    assert all(error.message and error.message_sv for error in reading.errors)
    return [(error.line, error.column, error.code) for error in reading.errors]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_b28_encodings(encoding: str, line_end: str) -> None:
    reading = read((HEADER + ANNA).replace("\n", line_end), encoding=encoding)
    assert faults(reading) == []
    [row] = reading.rows
    assert (row.name, row.place, row.locale) == ("Anna Åberg", "Kommunfullmäktige", Locale.SV)
    assert row.municipalities == {"0880"}
    assert str(row.mandate_until) == "2030-10-14"


def test_commas_english_names_and_quotes() -> None:
    text = 'email,name,organization,municipalities\r\n"A@Kalmar.Example","Ek, Anna",Council,"Nybro, 0885"\r\n'
    [row] = read(text).rows
    assert (row.address.text, row.address.key) == ("A@kalmar.example", "a@kalmar.example")
    assert (row.name, row.municipalities) == ("Ek, Anna", {"0881", "0885"})


def test_b28_every_fault_is_named_by_line_and_column() -> None:
    text = HEADER + (
        "anna@kalmar;;Kommunfullmäktige;Kalmar;;;sv\n"
        "bo@kalmar.example;;;Stockholm;2026-13-01;;de\n"
        "\n"
        'eva@kalmar.example;"Eva\nBerg";Kommunfullmäktige;0880;2030-01-01;2026-01-01;\n'
        "dan@kalmar.example;Dan\n"
        "ok@kalmar.example;;Kommunfullmäktige;;;;\n"
    )
    reading = read(text)
    assert sorted(faults(reading)) == sorted(
        [
            (2, "email", "invalid_email"),
            (3, "locale", "unknown_locale"),
            (3, "organisation", "missing_value"),
            (3, "municipality", "unknown_municipality"),
            (3, "mandate_from", "invalid_date"),
            (5, "mandate_until", "mandate_ends_before_it_begins"),
            (7, "", "wrong_number_of_values"),
        ]
    )
    assert reading.count == 5


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"PK\x03\x04\x14\x00\x06\x00", "not_csv"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "not_csv"),
        ((HEADER + ANNA).encode("utf-16"), "wrong_encoding"),
        (b"email;fullm\x81ktige\n", "wrong_encoding"),
        (b"email;organisation\na@b.example;\0\n", "wrong_encoding"),
        (b"", "empty_file"),
        (b"email;name,organisation\n", "mixed_separators"),
        (b"x" * 20_000_001, "file_too_large"),
    ],
)
def test_b28_files_that_are_no_list(raw: bytes, code: str) -> None:
    assert faults(read(raw)) == [(1, "", code)]


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        (b"email;shoe size;organisation\na@kalmar.example;38;\n", [("shoe size", "unknown_column")]),
        (b"email;e-post;organisation\n", [("email", "duplicate_column")]),
        (b"email;name\n", [("organisation", "missing_column")]),
        (b"name;organisation\n", [("email", "missing_column")]),
        (
            b"mejladress/hem;shoe size;organisation;organisation\n",
            [
                ("mejladress/hem", "unknown_column"),
                ("shoe size", "unknown_column"),
                ("organisation", "duplicate_column"),
                ("email", "missing_column"),
            ],
        ),
    ],
)
def test_b28_every_fault_of_the_heading_is_told_at_once(raw: bytes, wrong: list[tuple[str, str]]) -> None:
    reading = read(raw)
    assert faults(reading) == [(1, column, code) for column, code in wrong]
    assert [error.pointer for error in reading.errors] == [f"/1/{column.replace('/', '~1')}" for column, _ in wrong]


def test_b28_a_quote_that_never_ends() -> None:
    assert faults(read(HEADER + 'a@kalmar.example;"Anna;K;;;;\nb@kalmar.example;;K;;;;\n'))[0][2] == "malformed_csv"


def test_b28_lines_that_contradict_or_repeat_each_other() -> None:
    text = HEADER + ANNA + ANNA + "ANNA@kalmar.example;Anna Berg;Regionfullmäktige;;;;sv\n"
    assert faults(read(text)) == [(3, "email", "duplicate_line"), (4, "name", "conflicting_lines")]
    papers = "email;redaktion;bevakar\na@barometern.example;Barometern;Kalmar\nb@barometern.example;barometern;Nybro\n"
    assert faults(read(papers, Audience.NEWSROOM)) == [(3, "municipality", "conflicting_lines")]


def test_b28_a_formula_is_no_address_and_a_name_stays_text() -> None:
    reading = read(HEADER + "=cmd();=1+1;Kommunfullmäktige;;;;\nb@kalmar.example;=1+1;Kommunfullmäktige;;;;\n")
    assert faults(reading) == [(2, "email", "invalid_email")]
    assert reading.rows[0].name == "=1+1"


def test_errors_are_listed_up_to_a_limit() -> None:
    reading = read(HEADER + "x;;K;;;;\n" * 600)
    assert (len(reading.errors), reading.errors_left_out) == (500, 100)


def test_lines_with_another_separator() -> None:
    reading = read("email;name;kommun\na@kalmar.example,Anna,Kalmar\nb@kalmar.example\tBo\tNybro\n", Audience.PUBLIC)
    assert faults(reading) == [(2, "", "mixed_separators"), (3, "", "mixed_separators")]
    assert "komma" in reading.errors[0].message_sv
    assert "semikolon" in reading.errors[0].message_sv


def test_a_letter_that_is_cut_by_the_reading_and_a_byte_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "PIECE", 100)
    line = "anna@kalmar.example;Åsa\n"
    for shift in range(2):
        text = "email;name" + " " * shift + "\n" + "".join(line.replace("anna", f"p{n}") for n in range(200))
        reading = read(text, Audience.PUBLIC)
        assert (faults(reading), len(reading.rows)) == ([], 200)
    broken = text.encode() + b"x@kalmar.example;\x81\n"
    [fault] = read(broken, Audience.PUBLIC).errors
    assert (fault.code, "202" in fault.message_sv) == ("wrong_encoding", True)


def test_lines_that_were_read_before_are_passed_by() -> None:
    text = "email;kommun\n" + "".join(f"p{n}@kalmar.example;Kalmar\n" for n in range(5))
    source = io.BytesIO(text.encode())
    assert [row.line for row in csv_reading.checked_rows(source, Audience.PUBLIC, after=4)] == [5, 6]
    assert not source.closed


def test_the_first_of_a_persons_lines_is_known() -> None:
    text = HEADER + ANNA + ANNA.replace("Kommunfullmäktige", "Nämnden")
    assert [row.is_first for row in read(text).rows] == [True, False]


def test_a_long_list_is_read_in_the_memory_of_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "PIECE", 10_000)

    def peak(lines: int) -> int:
        file = tmp_path / f"{lines}.csv"
        file.write_text("email;namn\n" + "".join(f"p{n}@kalmar.example;Person {n}\n" for n in range(lines)))
        with file.open("rb") as source:
            tracemalloc.start()
            count = sum(1 for _ in csv_reading.rows(source, Audience.PUBLIC, csv_reading.Reading()))
            _, highest = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert count == lines
        return highest

    peak(100)
    assert peak(4_000) < peak(1_000) + 20_000


def test_a_list_without_a_heading_is_told_so_and_nobody_is_named() -> None:
    reading = read("anna@kalmar.example;Anna\nbo@kalmar.example;Bo\n", Audience.PUBLIC)
    assert faults(reading) == [(1, "", "missing_header")]
    assert "anna" not in repr(reading.errors).casefold()


@pytest.mark.parametrize("formula", ["=cmd()", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\0=1"])
def test_b28_an_export_disarms_formulas(formula: str) -> None:
    """OWASP's list of what a spreadsheet takes for a formula."""
    [row] = csv.reader([register._line(["a", formula])])
    assert row == ["a", f"'{formula}"]


PIECES = ["E-post", "anna@kalmar.example", ";", ",", "\t", '"', "\n", "\r", "\0", "\ufeff", "=1", "2026-02-30", "å"]


@trials(max_examples=150, deadline=None)
@given(
    st.binary(max_size=400) | st.lists(st.sampled_from(PIECES), max_size=40).map(lambda parts: "".join(parts).encode())
)
def test_b28_no_bytes_raise_and_every_fault_has_a_line(raw: bytes) -> None:
    for content in (raw, HEADER.encode() + raw):
        reading = read(content)
        assert all(line >= 0 and code for line, _, code in faults(reading))
        assert all("@" in row.address.text for row in reading.rows)
