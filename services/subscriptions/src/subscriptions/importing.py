"""Writes a list of people: some hundred lines at a time, and the second time nothing is changed.

The file is read and checked before a transaction is open (`csv_reading`). Who has left or paused stays so: an
import brings nobody back, and overwrites no choice. Empty names and locales leave what is known. Organisations and
groups that the file names are created where they are missing. No more than a stretch of the file is in memory.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, BinaryIO
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience, Locale
from shared.database import Database, among
from shared.ids import new_id
from subscriptions import csv_reading, people
from subscriptions.csv_reading import Reading, Row
from subscriptions.history import AUDIENCE, GETS, Act, Change, Source, put_changes
from subscriptions.models import Group, Organisation, Role, Subscriber
from subscriptions.people import name_key
from subscriptions.schemas import ImportReport
from subscriptions.subscribing import ORGANISATION_OF, values_of

CHUNK = 400
"""Rows written together; on SQLite everybody else who writes waits for them."""
UNCHANGED = {"name": None, "locale": None}


@dataclass(frozen=True, slots=True)
class Known:
    """What the database holds of a row's person."""

    id: UUID
    name: str
    locale: str


async def import_file(
    database: Database, source: BinaryIO, audience: Audience, *, dry_run: bool, at: datetime
) -> ImportReport:
    """Import a small file in one transaction, or say what is wrong with it, or (dry run) what would be done."""
    if dry_run:
        return await check(database, source, audience, at, compares=True)
    reading = Reading()
    rows = await asyncio.to_thread(list, csv_reading.rows(source, audience, reading))
    report = report_of(reading, audience, dry_run=False)
    if not report.errors:
        async with database.transaction() as session:
            writing = Writing(database, audience, report, at)
            for start in range(0, len(rows), CHUNK):
                await writing.write(session, rows[start : start + CHUNK])
    return report


async def check(
    database: Database,
    source: BinaryIO,
    audience: Audience,
    at: datetime,
    *,
    compares: bool,
    tell: Callable[[int], Awaitable[None]] | None = None,
) -> ImportReport:
    """What is wrong with the file and, where nothing is, what importing it would do. `tell` hears of each stretch."""
    reading, report = Reading(), report_of(Reading(), audience, dry_run=True)
    comparing = Writing(database, audience, report, at)
    with closing(csv_reading.rows(source, audience, reading)) as rows:
        while chunk := await asyncio.to_thread(next_chunk, rows):
            if compares and not reading.errors:
                async with database.reading() as session:
                    await comparing.compare(session, chunk)
            if tell is not None:
                await tell(reading.count)
    if reading.errors:
        return report_of(reading, audience, dry_run=True)
    report.rows = reading.count
    return report


def report_of(reading: Reading, audience: Audience, *, dry_run: bool) -> ImportReport:
    """What the file itself says; nothing is counted yet."""
    return ImportReport(
        dry_run=dry_run,
        audience=audience,
        rows=reading.count,
        errors=reading.errors,
        errors_left_out=reading.errors_left_out,
    )


def next_chunk(rows: Iterator[Row]) -> list[Row]:
    """The rows that are written together; none at the end."""
    return list(islice(rows, CHUNK))


async def _prefer_indexes(session: AsyncSession, database: Database) -> None:
    """PostgreSQL plans for the tables as they were last analysed: filling empty ones, it would read them whole for
    every foreign key (measured: 150 s for 100,000 lines instead of a fraction). For this transaction it uses the
    indexes.
    """
    if not database.is_sqlite:
        await session.execute(text("SET LOCAL enable_seqscan = off"))


class Writing:
    """One file on its way into the database, counting in `report`; a comparison asks the same and writes nothing."""

    def __init__(self, database: Database, audience: Audience, report: ImportReport, at: datetime) -> None:
        self._database = database
        self._audience = audience
        self._report = report
        self._at = at
        self._places: dict[str, UUID] = {}
        self._moved: set[str] = set()

    async def write(self, session: AsyncSession, rows: Sequence[Row]) -> None:
        """Write a stretch of at most `CHUNK` rows."""
        await _prefer_indexes(session, self._database)
        await self._carry_out(session, rows, writes=True)

    async def compare(self, session: AsyncSession, rows: Sequence[Row]) -> None:
        """Count what writing the stretch would do."""
        await self._carry_out(session, rows, writes=False)

    async def _carry_out(self, session: AsyncSession, rows: Sequence[Row], *, writes: bool) -> None:
        await self._know_places(session, rows, writes=writes)
        known = await _known(session, rows)
        people_rows: dict[str, dict[str, Any]] = {}
        role_rows: list[dict[str, Any]] = []
        joined: list[Change] = []
        changed: list[dict[str, Any]] = []
        ids = {row.address.key: known[row.address.key].id if row.address.key in known else new_id() for row in rows}
        wanted = [self._role(ids[row.address.key], row) for row in rows]
        held = await _held(session, [role["id"] for role in wanted])
        for row, role in zip(rows, wanted, strict=True):
            person = known.get(row.address.key)
            is_new = person is None and row.address.key not in people_rows
            if is_new:
                people_rows[row.address.key] = {"id": ids[row.address.key], **self._newcomer(row)}
            change = _change(person, row) if person else {}
            has_role = held.get(role["id"]) == _substance(role)
            if not has_role:
                role_rows.append(role)
            if role["id"] not in held:
                joined.append(self._joining(role["subscriber_id"]))
            if change:
                changed.append({"id": ids[row.address.key], **UNCHANGED, **change})
            elif person and not has_role:
                changed.append({"id": ids[row.address.key], **UNCHANGED})
            self._count(row, is_new=is_new and row.is_first, is_changed=bool(change) or not has_role)
        if writes:
            await _write(session, list(people_rows.values()), role_rows, changed)
            await put_changes(session, joined)

    def _joining(self, subscriber_id: UUID) -> Change:
        field = f"{AUDIENCE}{self._audience}"
        return Change(new_id(), subscriber_id, self._at, Act.JOINED, Source.IMPORT, {field: None}, {field: GETS})

    def _count(self, row: Row, *, is_new: bool, is_changed: bool) -> None:
        if is_new:
            self._report.created += 1
        elif is_changed or name_key(row.place) in self._moved:
            self._report.updated += 1
        else:
            self._report.unchanged += 1

    def _newcomer(self, row: Row) -> dict[str, Any]:
        chosen = row.municipalities if self._audience is Audience.PUBLIC else frozenset()
        values = values_of(row.address, row.name, row.locale or Locale.SV, self._at)
        return {**values, "municipalities": chosen}

    def _role(self, subscriber_id: UUID, row: Row) -> dict[str, Any]:
        own = self._audience in (Audience.POLITICIAN, Audience.AGENCY_OFFICIAL)
        return people.role_values(
            subscriber_id,
            self._audience,
            self._places.get(name_key(row.place)),
            municipalities=row.municipalities if own else frozenset(),
            mandate_from=row.mandate_from,
            mandate_until=row.mandate_until,
            began_at=self._at,
            source=str(Source.IMPORT),
        )

    async def _know_places(self, session: AsyncSession, rows: Sequence[Row], *, writes: bool) -> None:
        for key, row in {name_key(row.place): row for row in rows if row.place}.items():
            if key not in self._places:
                self._places[key] = await self._place(session, row, writes=writes)

    async def _place(self, session: AsyncSession, row: Row, *, writes: bool) -> UUID:
        """The organisation or group; a newsroom's coverage and a group's area follow the file where it gives one."""
        has_area = self._audience in (Audience.NEWSROOM, Audience.COLLABORATION_GROUP)
        found = await self._find(session, row.place)
        if found is None:
            area = row.municipalities if has_area else frozenset[str]()
            return await self._found(session, row, area) if writes else new_id()
        if has_area and row.municipalities and found.municipalities != row.municipalities:
            self._moved.add(name_key(row.place))
            if writes:
                found.municipalities = row.municipalities
                await session.flush()
        return found.id

    async def _find(self, session: AsyncSession, name: str) -> Organisation | Group | None:
        if self._audience is Audience.COLLABORATION_GROUP:
            return await people.group_named(session, name)
        return await people.organisation_named(session, ORGANISATION_OF[self._audience], name)

    async def _found(self, session: AsyncSession, row: Row, area: frozenset[str]) -> UUID:
        created: Organisation | Group | None
        if self._audience is Audience.COLLABORATION_GROUP:
            created = await people.insert_group(session, row.place, area, self._at)
        else:
            kind = ORGANISATION_OF[self._audience]
            created = await people.insert_organisation(session, kind, row.place, area, self._at)
        created = created or await self._find(session, row.place)
        assert created is not None
        return created.id


async def _write(
    session: AsyncSession,
    newcomers: list[dict[str, Any]],
    roles: list[dict[str, Any]],
    changed: list[dict[str, Any]],
) -> None:
    await people.put_subscribers(session, newcomers)
    await people.put_roles(session, roles)
    await people.change_subscribers(session, changed)


async def _known(session: AsyncSession, rows: Sequence[Row]) -> dict[str, Known]:
    keys = {row.address.key for row in rows}
    columns = select(Subscriber.address_key, Subscriber.id, Subscriber.name, Subscriber.locale)
    found = await session.execute(columns.where(among(session, Subscriber.address_key, keys)))
    return {key: Known(subscriber_id, name, locale) for key, subscriber_id, name, locale in found}


async def _held(session: AsyncSession, role_ids: Sequence[UUID]) -> dict[UUID, tuple[Any, ...]]:
    columns = select(Role.id, Role.municipalities, Role.mandate_from, Role.mandate_until)
    found = await session.execute(columns.where(among(session, Role.id, role_ids)))
    return {row[0]: tuple(row[1:]) for row in found}


def _change(person: Known, row: Row) -> dict[str, Any]:
    wanted = {"name": row.name or person.name, "locale": str(row.locale or person.locale)}
    return {column: value for column, value in wanted.items() if value != getattr(person, column)}


def _substance(role: dict[str, Any]) -> tuple[Any, ...]:
    return role["municipalities"], role["mandate_from"], role["mandate_until"]
