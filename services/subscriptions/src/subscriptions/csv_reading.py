"""Reads a list of people from a CSV file as it comes out of a spreadsheet, and names every fault by line and column.

UTF-8 (with or without BOM) and Windows-1252 are told apart, comma, semicolon and tab by the first line. Column names
are accepted in Swedish and English. Nothing here touches the database; the rows of a file of `MAX_BYTES` fit in memory.

Columns, beside `email` (needed), `name` and `locale` (`sv` or `en`):

    newsroom              organisation (needed), municipality: what the newsroom covers, none means the county
    politician            organisation (needed), municipality, mandate_from, mandate_until
    collaboration_group   group (needed), municipality: the group's
    agency_official       organisation (needed), municipality
    public                municipality: what a new subscriber chooses

Municipalities are given by code or name, several with a comma, slash or vertical bar between. Dates are 2026-10-15.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import BinaryIO, TypeVar

from shared.contracts.news import Audience, Locale
from shared.contracts.vocabulary import MUNICIPALITIES
from subscriptions import addresses
from subscriptions.addresses import Address, InvalidAddress
from subscriptions.models import NAME_LENGTH
from subscriptions.people import name_key
from subscriptions.schemas import LineError

T = TypeVar("T")

MAX_BYTES = 20_000_000
MAX_ERRORS = 500

COLUMNS: dict[str, tuple[str, ...]] = {
    "email": ("email", "epost", "epostadress", "mejl", "mejladress", "mail", "address", "adress"),
    "name": ("name", "namn"),
    "locale": ("locale", "språk", "language", "lang"),
    "organisation": (
        "organisation", "organization", "redaktion", "newsroom", "council", "fullmäktige", "nämnd", "styrelse", "board",
        "myndighet", "agency",
    ),
    "group": ("group", "grupp", "samverkansgrupp", "collaborationgroup"),
    "municipality": ("municipality", "municipalities", "kommun", "kommuner", "coverage", "bevakar", "bevakningsområde"),
    "mandate_from": ("mandatefrom", "mandatfrån", "mandatfrom", "mandatperiodfrån"),
    "mandate_until": ("mandateuntil", "mandateto", "mandattill", "mandattom", "mandatperiodtill"),
}  # fmt: skip
ALWAYS = ("email", "name", "locale")
OF_AUDIENCE: dict[Audience, tuple[str, ...]] = {
    Audience.NEWSROOM: ("organisation", "municipality"),
    Audience.POLITICIAN: ("organisation", "municipality", "mandate_from", "mandate_until"),
    Audience.COLLABORATION_GROUP: ("group", "municipality"),
    Audience.AGENCY_OFFICIAL: ("organisation", "municipality"),
    Audience.PUBLIC: ("municipality",),
}
NEEDED = ("email", "organisation", "group")
MUNICIPALITY_CODES = {name.casefold(): code for code, name in MUNICIPALITIES.items()}
LOCALES = {"": None, "sv": Locale.SV, "svenska": Locale.SV, "swedish": Locale.SV, "en": Locale.EN,
           "engelska": Locale.EN, "english": Locale.EN}  # fmt: skip
SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Row:
    """One line, understood. `place` is the organisation or the group, empty for the public."""

    line: int
    address: Address
    name: str
    locale: Locale | None
    place: str
    municipalities: frozenset[str]
    mandate_from: date | None
    mandate_until: date | None


@dataclass(slots=True)
class Reading:
    """What a file said: its rows, and what is wrong with it. With a single error none of it is to be used."""

    rows: list[Row] = field(default_factory=list)
    errors: list[LineError] = field(default_factory=list)
    errors_left_out: int = 0
    count: int = 0

    def fault(self, line: int, column: str, code: str, message: str, message_sv: str) -> None:
        if len(self.errors) >= MAX_ERRORS:
            self.errors_left_out += 1
            return
        self.errors.append(
            LineError(
                pointer=f"/{line}/{column}", line=line, column=column, code=code, message=message, message_sv=message_sv
            )
        )


class _Unreadable(Exception):
    """The file as a whole cannot be read: code, message, message in Swedish."""


class _Faulty(Exception):
    """A value cannot be understood: code, message, message in Swedish."""


def read(source: BinaryIO, audience: Audience) -> Reading:
    """Read the whole file; never raises for what is in it."""
    reading = Reading()
    try:
        lines = _lines(_text(source), audience, reading)
        _read_rows(lines, audience, reading)
    except _Unreadable as error:
        code, message, message_sv = error.args
        reading.fault(1, "", code, message, message_sv)
    return reading


def _text(source: BinaryIO) -> str:
    raw = source.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        limit = MAX_BYTES // 1_000_000
        raise _Unreadable("file_too_large", f"The file is larger than {limit} MB.", f"Filen är större än {limit} MB.")
    if raw.startswith(SPREADSHEETS):
        message = "This is a spreadsheet, not CSV. Save it as CSV (semicolon or comma) and send that file."
        raise _Unreadable("not_csv", message, "Det här är en Excelfil. Spara den som CSV i Excel och skicka den filen.")
    if raw.startswith(UTF_16) or b"\0" in raw:
        message = "The file is not text in UTF-8 or Windows-1252. Save it as CSV UTF-8."
        raise _Unreadable("wrong_encoding", message, "Filen har fel teckenkodning. Spara den som CSV UTF-8.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _windows(raw)


def _windows(raw: bytes) -> str:
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"A byte on line {line} is neither UTF-8 nor Windows-1252. Save the file as CSV UTF-8."
        message_sv = f"Rad {line} har ett tecken som inte går att läsa. Spara filen som CSV UTF-8."
        raise _Unreadable("wrong_encoding", message, message_sv) from error


def _lines(text: str, audience: Audience, reading: Reading) -> Iterator[tuple[int, dict[str, str]]]:
    """Each line's number (the first, where a value has line breaks) and its values by column."""
    header, _, _ = text.partition("\n")
    delimiter = max(";,\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    line = 1
    try:
        for values in reader:
            if columns is None:
                columns = _columns(values, audience)
            elif any(value.strip() for value in values):
                yield from _named(line, columns, values, reading)
            line = reader.line_num + 1
    except csv.Error as error:
        message_sv = "Citattecken eller skiljetecken på raden stämmer inte."
        reading.fault(line, "", "malformed_csv", f"The line is not well-formed CSV: {error}.", message_sv)
    if columns is None:
        raise _Unreadable("empty_file", "The file is empty.", "Filen är tom.")


def _columns(values: list[str], audience: Audience) -> list[str]:
    allowed = (*ALWAYS, *OF_AUDIENCE[audience])
    spelling = {alias: column for column in allowed for alias in COLUMNS[column]}
    found: list[str] = []
    for value in values:
        column = spelling.get(re.sub(r"[\s_\-.]", "", value).casefold())
        if column is None:
            message = f"The column {value.strip()[:40]!r} is not known for {audience}. Use: {', '.join(allowed)}."
            message_sv = f"Kolumnen ”{value.strip()[:40]}” finns inte för målgruppen. Använd: {', '.join(allowed)}."
            raise _Unreadable("unknown_column", message, message_sv)
        if column in found:
            message = f"The column {column} stands twice."
            raise _Unreadable("duplicate_column", message, f"Kolumnen {column} finns två gånger.")
        found.append(column)
    for column in allowed:
        if column in NEEDED and column not in found:
            message = f"The column {column} is missing."
            raise _Unreadable("missing_column", message, f"Kolumnen {column} saknas.")
    return found


def _named(line: int, columns: list[str], values: list[str], reading: Reading) -> Iterator[tuple[int, dict[str, str]]]:
    reading.count += 1
    if len(values) != len(columns):
        message = f"The line has {len(values)} values for {len(columns)} columns."
        message_sv = f"Raden har {len(values)} värden men filen har {len(columns)} kolumner."
        reading.fault(line, "", "wrong_number_of_values", message, message_sv)
        return
    yield line, {column: value.strip() for column, value in zip(columns, values, strict=True)}


def _read_rows(lines: Iterator[tuple[int, dict[str, str]]], audience: Audience, reading: Reading) -> None:
    seen: dict[tuple[str, str], int] = {}
    persons: dict[str, Row] = {}
    places: dict[str, Row] = {}
    for line, values in lines:
        row = _row(line, values, audience, reading)
        if row is None:
            continue
        first = seen.setdefault((row.address.key, name_key(row.place)), line)
        if first != line:
            _fault_repeated(reading, line, first)
            continue
        _check_person(row, persons.setdefault(row.address.key, row), reading)
        if audience in (Audience.NEWSROOM, Audience.COLLABORATION_GROUP):
            _check_place(row, places.setdefault(name_key(row.place), row), reading)
        reading.rows.append(row)


def _row(line: int, values: dict[str, str], audience: Audience, reading: Reading) -> Row | None:
    before = len(reading.errors) + reading.errors_left_out
    place_column = "group" if audience is Audience.COLLABORATION_GROUP else "organisation"

    def understood(column: str, parse: Callable[[str], T], default: T) -> T:
        try:
            return parse(values.get(column, ""))
        except _Faulty as error:
            reading.fault(line, column, *error.args)
            return default

    address = understood("email", _address, Address("", ""))
    place = "" if audience is Audience.PUBLIC else understood(place_column, _place, "")
    row = Row(
        line=line,
        address=address,
        name=understood("name", _words, ""),
        locale=understood("locale", _locale, None),
        place=place,
        municipalities=understood("municipality", _municipalities, frozenset()),
        mandate_from=understood("mandate_from", _date, None),
        mandate_until=understood("mandate_until", _date, None),
    )
    if row.mandate_from and row.mandate_until and row.mandate_until < row.mandate_from:
        message = "The mandate ends before it begins."
        reading.fault(
            line, "mandate_until", "mandate_ends_before_it_begins", message, "Mandatperioden slutar innan den börjar."
        )
    return row if len(reading.errors) + reading.errors_left_out == before else None


def _check_person(row: Row, first: Row, reading: Reading) -> None:
    if (row.name, row.locale) != (first.name, first.locale):
        message = f"The person has another name or locale on line {first.line}."
        message_sv = f"Personen har ett annat namn eller språk på rad {first.line}."
        reading.fault(row.line, "name", "conflicting_lines", message, message_sv)


def _check_place(row: Row, first: Row, reading: Reading) -> None:
    if row.municipalities != first.municipalities:
        message = f"The same name has other municipalities on line {first.line}."
        message_sv = f"Samma namn har andra kommuner på rad {first.line}."
        reading.fault(row.line, "municipality", "conflicting_lines", message, message_sv)


def _fault_repeated(reading: Reading, line: int, first: int) -> None:
    message = f"The line says the same as line {first}. Remove one of them."
    message_sv = f"Raden säger samma sak som rad {first}. Ta bort en av dem."
    reading.fault(line, "email", "duplicate_line", message, message_sv)


def _address(value: str) -> Address:
    try:
        return addresses.parse(value)
    except InvalidAddress as error:
        raise _Faulty("invalid_email", error.message, error.message_sv) from error


def _words(value: str) -> str:
    words = " ".join(value.split())
    if len(words) > NAME_LENGTH:
        raise _Faulty("too_long", f"Use at most {NAME_LENGTH} characters.", f"Skriv högst {NAME_LENGTH} tecken.")
    if not words.isprintable():
        raise _Faulty("invalid_text", "The text holds a control character.", "Texten har ett otillåtet tecken.")
    return words


def _place(value: str) -> str:
    if not value:
        raise _Faulty("missing_value", "The value is missing.", "Värdet saknas.")
    return _words(value)


def _locale(value: str) -> Locale | None:
    try:
        return LOCALES[value.casefold()]
    except KeyError as error:
        raise _Faulty("unknown_locale", "Use sv or en.", "Skriv sv eller en.") from error


def _municipalities(value: str) -> frozenset[str]:
    names = [part.strip() for part in re.split(r"[,;|/]", value) if part.strip()]
    return frozenset(_municipality(name) for name in names)


def _municipality(name: str) -> str:
    if name in MUNICIPALITIES:
        return name
    bare = name.casefold().removesuffix(" kommun")
    code = MUNICIPALITY_CODES.get(bare) or MUNICIPALITY_CODES.get(bare.removesuffix("s"))
    if code is None:
        message = "Use the name or the four-digit code of a municipality in the county."
        raise _Faulty("unknown_municipality", message, "Skriv namnet på en kommun i länet, eller dess kod.")
    return code


def _date(value: str) -> date | None:
    if not value:
        return None
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise _Faulty("invalid_date", "Write the date as 2026-10-15.", "Skriv datumet så här: 2026-10-15.")
