"""Reads a list of people from a CSV file as it comes out of a spreadsheet, and names every fault by line and column.

UTF-8 (with or without BOM) and Windows-1252 are told apart, comma, semicolon and tab by the first line. Column names
are accepted in Swedish and English. Nothing here touches the database, and no more than a line is in memory at a time.

Columns, beside `email` (needed), `name` and `locale` (`sv` or `en`):

    newsroom              organisation (needed), municipality: what the newsroom covers, none means the county
    politician            organisation (needed), municipality, mandate_from, mandate_until
    collaboration_group   group (needed), municipality: the group's
    agency_official       organisation (needed), municipality
    public                municipality: what a new subscriber chooses

Municipalities are given by code or name, several with a comma, slash or vertical bar between. Dates are 2026-10-15.
"""

import csv
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from io import TextIOWrapper
from typing import BinaryIO, TypeVar

from shared.contracts.news import Audience, Locale
from shared.contracts.vocabulary import MUNICIPALITIES
from shared.plain_text import is_line
from subscriptions import addresses
from subscriptions.addresses import Address, InvalidAddress
from subscriptions.csv_seen import Seen
from subscriptions.csv_text import DELIMITER_NAMES, DELIMITERS, Unreadable, delimiter_of, opened
from subscriptions.models import NAME_LENGTH
from subscriptions.people import name_key
from subscriptions.schemas import LineError

T = TypeVar("T")

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
NAMES_SV = {
    "email": "e-post", "name": "namn", "locale": "språk", "organisation": "organisation", "group": "grupp",
    "municipality": "kommun", "mandate_from": "mandat från", "mandate_until": "mandat till",
}  # fmt: skip
"""What a column is called in an answer in Swedish: as whoever made the file would call it."""
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


@dataclass(frozen=True, slots=True)
class Row:
    """One line, understood. `place` is the organisation or the group, empty for the public; `is_first` tells the first
    of a person's lines from the others.
    """

    line: int
    address: Address
    name: str
    locale: Locale | None
    place: str
    municipalities: frozenset[str]
    mandate_from: date | None
    mandate_until: date | None
    is_first: bool = True


@dataclass(slots=True)
class Reading:
    """What is wrong with a file, and how many lines it has. With a single error none of it is to be used."""

    errors: list[LineError] = field(default_factory=list)
    errors_left_out: int = 0
    count: int = 0

    def fault(self, line: int, column: str, code: str, message: str, message_sv: str) -> None:
        if len(self.errors) >= MAX_ERRORS:
            self.errors_left_out += 1
            return
        self.errors.append(
            LineError(
                pointer=f"/{line}/{_escaped(column)}",
                line=line,
                column=column,
                code=code,
                message=message,
                message_sv=message_sv,
            )
        )


def _escaped(column: str) -> str:
    """As a part of a JSON pointer (RFC 6901): a heading may say anything."""
    return column.replace("~", "~0").replace("/", "~1")


class _Faulty(Exception):
    """A value cannot be understood: code, message, message in Swedish."""


def rows(source: BinaryIO, audience: Audience, reading: Reading) -> Generator[Row]:
    """The faultless lines one by one, the faults into `reading`; never raises for what is in the file."""
    try:
        with _text_of(source) as text, Seen() as seen:
            yield from _rows(_lines(text, audience, reading), audience, reading, seen)
    except Unreadable as error:
        code, message, message_sv = error.args
        reading.fault(1, "", code, message, message_sv)


def checked_rows(source: BinaryIO, audience: Audience, *, after: int) -> Generator[Row]:
    """The lines behind line `after` of a file in which `rows` found no fault; not held against one another again."""
    reading = Reading()
    with _text_of(source) as text:
        for line, values in _lines(text, audience, reading):
            if line > after and (row := _row(line, values, audience, reading)):
                yield row


@contextmanager
def _text_of(source: BinaryIO) -> Iterator[TextIOWrapper]:
    text = opened(source)
    try:
        yield text
    finally:
        text.detach()


def _lines(text: TextIOWrapper, audience: Audience, reading: Reading) -> Iterator[tuple[int, dict[str, str]]]:
    """Each line's number (the first, where a value has line breaks) and its values by column."""
    delimiter = delimiter_of(text)
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    line = 1
    try:
        for values in reader:
            if columns is None:
                columns = _columns(values, audience, reading)
                if reading.errors:
                    return
            elif any(value.strip() for value in values):
                yield from _named(line, columns, values, delimiter, reading)
            line = reader.line_num + 1
    except csv.Error as error:
        message_sv = "Citattecken eller skiljetecken på raden stämmer inte."
        reading.fault(line, "", "malformed_csv", f"The line is not well-formed CSV: {error}.", message_sv)
    if columns is None:
        raise Unreadable("empty_file", "The file is empty.", "Filen är tom.")


def _columns(values: list[str], audience: Audience, reading: Reading) -> list[str]:
    """What each column holds. With anything wrong in the heading, all of it goes into `reading`."""
    allowed = (*ALWAYS, *OF_AUDIENCE[audience])
    spelling = {alias: column for column in allowed for alias in COLUMNS[column]}
    found: list[str] = []
    if any("@" in value for value in values):  # told by no value of it: faults are kept longer than people
        raise _no_header(allowed)
    for value in values:
        column = spelling.get(re.sub(r"[\s_\-.]", "", value).casefold())
        if column is None:
            if any(other in value for other in DELIMITERS):
                raise _mixed_header()
            told = value.strip()[:40]
            message = f"The column {told!r} is not known for {audience}. Use: {', '.join(allowed)}."
            message_sv = f"Kolumnen ”{told}” finns inte för målgruppen. Använd: {_named_sv(allowed)}."
            reading.fault(1, told, "unknown_column", message, message_sv)
        elif column in found:
            message = f"The column {column} stands twice."
            reading.fault(1, column, "duplicate_column", message, f"Kolumnen {NAMES_SV[column]} finns två gånger.")
        else:
            found.append(column)
    for column in allowed:
        if column in NEEDED and column not in found:
            message = f"The column {column} is missing."
            reading.fault(1, column, "missing_column", message, f"Kolumnen {NAMES_SV[column]} saknas.")
    return found


def _no_header(allowed: tuple[str, ...]) -> Unreadable:
    message = f"The first line is a person. It must name the columns: {', '.join(allowed)}."
    message_sv = f"Första raden är en person. Den ska ha kolumnernas namn: {_named_sv(allowed)}."
    return Unreadable("missing_header", message, message_sv)


def _named_sv(columns: tuple[str, ...]) -> str:
    return ", ".join(NAMES_SV[column] for column in columns)


def _mixed_header() -> Unreadable:
    message = "The first line has several kinds of separators. Use one of comma, semicolon and tab in the whole file."
    message_sv = "Första raden blandar olika skiljetecken. Använd ett av komma, semikolon och tabb i hela filen."
    return Unreadable("mixed_separators", message, message_sv)


def _named(
    line: int, columns: list[str], values: list[str], delimiter: str, reading: Reading
) -> Iterator[tuple[int, dict[str, str]]]:
    reading.count += 1
    if len(values) == len(columns):
        yield line, {column: value.strip() for column, value in zip(columns, values, strict=True)}
    elif other := _other_delimiter(values, len(columns), delimiter):
        (ours, ours_sv), (theirs, theirs_sv) = DELIMITER_NAMES[delimiter], DELIMITER_NAMES[other]
        message = f"The line has {theirs} between its values, the first line has {ours}."
        message_sv = f"Raden har {theirs_sv} mellan värdena, men första raden har {ours_sv}."
        reading.fault(line, "", "mixed_separators", message, message_sv)
    else:
        message = f"The line has {len(values)} values for {len(columns)} columns."
        message_sv = f"Raden har {len(values)} värden men filen har {len(columns)} kolumner."
        reading.fault(line, "", "wrong_number_of_values", message, message_sv)


def _other_delimiter(values: list[str], columns: int, delimiter: str) -> str:
    """The separator by which the line would have its values, where it has another one than the first line."""
    whole = delimiter.join(values)
    return next((other for other in DELIMITERS if other != delimiter and whole.count(other) == columns - 1), "")


def _rows(
    lines: Iterator[tuple[int, dict[str, str]]], audience: Audience, reading: Reading, seen: Seen
) -> Iterator[Row]:
    for line, values in lines:
        row = _row(line, values, audience, reading)
        if row is None:
            continue
        first, _ = seen.first(line, "line", row.address.key, name_key(row.place))
        if first != line:
            _fault_repeated(reading, row, first)
            continue
        first = _check_person(row, reading, seen)
        if audience in (Audience.NEWSROOM, Audience.COLLABORATION_GROUP):
            _check_place(row, reading, seen)
        yield row if first == line else replace(row, is_first=False)


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


def _check_person(row: Row, reading: Reading, seen: Seen) -> int:
    """The person's first line."""
    first, agrees = seen.first(row.line, "person", row.address.key, said=(row.name, str(row.locale)))
    if not agrees:
        message = f"The person has another name or locale on line {first}."
        message_sv = f"Personen har ett annat namn eller språk på rad {first}."
        reading.fault(row.line, "name", "conflicting_lines", message, message_sv)
    return first


def _check_place(row: Row, reading: Reading, seen: Seen) -> None:
    first, agrees = seen.first(row.line, "place", name_key(row.place), said=sorted(row.municipalities))
    if not agrees:
        message = f"The same name has other municipalities on line {first}."
        message_sv = f"Samma namn har andra kommuner på rad {first}."
        reading.fault(row.line, "municipality", "conflicting_lines", message, message_sv)


def _fault_repeated(reading: Reading, row: Row, first: int) -> None:
    within, within_sv = (f" for {row.place}", f" för {row.place}") if row.place else ("", "")
    message = f"The address stands on line {first} already{within}. Remove one of the lines."
    message_sv = f"Adressen står redan på rad {first}{within_sv}. Ta bort en av raderna."
    reading.fault(row.line, "email", "duplicate_line", message, message_sv)


def _address(value: str) -> Address:
    try:
        return addresses.parse(value)
    except InvalidAddress as error:
        raise _Faulty("invalid_email", error.message, error.message_sv) from error


def _words(value: str) -> str:
    words = " ".join(value.split())
    if len(words) > NAME_LENGTH:
        raise _Faulty("too_long", f"Use at most {NAME_LENGTH} characters.", f"Skriv högst {NAME_LENGTH} tecken.")
    if not is_line(words):
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
