"""Reads the CSV of a roll: the importer's columns for politicians, all of them with dates.

Every line names its council or board and the first and last day of the mandate; a term that is over is refused, since
nobody would be added by it and everybody be weeded at once.
"""

from dataclasses import dataclass, field
from datetime import date
from typing import BinaryIO

from shared.contracts.news import Audience
from subscriptions import csv_reading
from subscriptions.csv_reading import Reading, Row


@dataclass(slots=True)
class RollReading(Reading):
    """With its rows: rolls are compared whole."""

    rows: list[Row] = field(default_factory=list)


def read(source: BinaryIO, day: date) -> RollReading:
    """Read the whole file; `day` is today. Never raises for what is in it."""
    reading = RollReading()
    reading.rows += csv_reading.rows(source, Audience.POLITICIAN, reading)
    for row in reading.rows:
        _check(row, day, reading)
    if not reading.rows and not reading.errors:
        message = "The file lists nobody. An empty roll would end every mandate."
        reading.fault(1, "", "empty_roll", message, "Filen har inga personer.")
    return reading


def _check(row: Row, day: date, reading: Reading) -> None:
    for column, value in (("mandate_from", row.mandate_from), ("mandate_until", row.mandate_until)):
        if value is None:
            message = "A roll needs the mandate's first and last day on every line."
            message_sv = "Mandatets första och sista dag måste stå på varje rad."
            reading.fault(row.line, column, "missing_value", message, message_sv)
    if row.mandate_until is not None and row.mandate_until < day:
        message = "The mandate is over. Import the roll of the present or the coming term."
        message_sv = "Mandatperioden är slut. Läs in listan för perioden som pågår eller kommer."
        reading.fault(row.line, "mandate_until", "mandate_is_over", message, message_sv)
