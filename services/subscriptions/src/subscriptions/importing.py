"""Imports a list of people: all of it or nothing, and the second time nothing is changed.

The file is read and checked before a transaction is open (`csv_reading`), then written in one, some hundred rows at a
time. Who has left, paused or unsubscribed stays so: an import brings nobody back, and overwrites no choice. Empty
names and locales leave what is known. Organisations and groups that the file names are created where they are missing.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience, Locale
from shared.database import Database
from shared.ids import new_id
from subscriptions import csv_reading, people
from subscriptions.csv_reading import Row
from subscriptions.history import AUDIENCE, GETS, Act, Change, Source, put_changes
from subscriptions.models import Group, Organisation, Role, Subscriber
from subscriptions.people import name_key
from subscriptions.schemas import ImportReport
from subscriptions.subscribing import ORGANISATION_OF, values_of

CHUNK = 400
"""Rows written together: their keys stay below the 999 parameters that an old SQLite takes."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the database holds of a row's person."""

    id: UUID
    name: str
    locale: str


async def import_file(
    database: Database, source: BinaryIO, audience: Audience, *, dry_run: bool, at: datetime
) -> ImportReport:
    """Import the file, or say what is wrong with it, or (dry run) what would be done."""
    reading = await asyncio.to_thread(csv_reading.read, source, audience)
    report = ImportReport(
        dry_run=dry_run,
        audience=audience,
        rows=reading.count,
        errors=reading.errors,
        errors_left_out=reading.errors_left_out,
    )
    if reading.errors:
        return report
    if dry_run:
        async with database.reading() as session:
            await _Import(session, audience, report, at, writes=False).carry_out(reading.rows)
    else:
        async with database.transaction() as session:
            await _prefer_indexes(session, database)
            await _Import(session, audience, report, at, writes=True).carry_out(reading.rows)
    return report


async def _prefer_indexes(session: AsyncSession, database: Database) -> None:
    """PostgreSQL plans for the tables as they were last analysed: filling empty ones, it would read them whole for
    every foreign key (measured: 150 s for 100,000 lines instead of a fraction). For this transaction it uses the
    indexes.
    """
    if not database.is_sqlite:
        await session.execute(text("SET LOCAL enable_seqscan = off"))


class _Import:
    """One file on its way into the database; a dry run asks the same questions and writes nothing."""

    def __init__(
        self, session: AsyncSession, audience: Audience, report: ImportReport, at: datetime, *, writes: bool
    ) -> None:
        self._session = session
        self._audience = audience
        self._report = report
        self._at = at
        self._writes = writes
        self._places: dict[str, UUID] = {}
        self._moved: set[str] = set()
        self._newcomers: set[str] = set()

    async def carry_out(self, rows: Sequence[Row]) -> None:
        for place, row in {name_key(row.place): row for row in rows if row.place}.items():
            self._places[place] = await self._place(row)
        for chunk in _chunks(rows):
            await self._carry_out(chunk)

    async def _carry_out(self, rows: Sequence[Row]) -> None:
        known = await self._known(rows)
        people_rows: dict[str, dict[str, Any]] = {}
        role_rows: list[dict[str, Any]] = []
        joined: list[Change] = []
        changed: list[dict[str, Any]] = []
        ids = {row.address.key: known[row.address.key].id if row.address.key in known else new_id() for row in rows}
        wanted = [self._role(ids[row.address.key], row) for row in rows]
        held = await self._held([role["id"] for role in wanted])
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
                changed.append({"id": ids[row.address.key], **change})
            elif person and not has_role:
                changed.append({"id": ids[row.address.key]})
            self._count(row, is_new=is_new, is_changed=bool(change) or not has_role)
        if self._writes:
            await self._write(list(people_rows.values()), role_rows, changed)
            await put_changes(self._session, joined)

    def _joining(self, subscriber_id: UUID) -> Change:
        field = f"{AUDIENCE}{self._audience}"
        return Change(new_id(), subscriber_id, self._at, Act.JOINED, Source.IMPORT, {field: None}, {field: GETS})

    def _count(self, row: Row, *, is_new: bool, is_changed: bool) -> None:
        if is_new and row.address.key not in self._newcomers:
            self._newcomers.add(row.address.key)
            self._report.created += 1
        elif is_changed or name_key(row.place) in self._moved:
            self._report.updated += 1
        else:
            self._report.unchanged += 1

    async def _write(
        self, newcomers: list[dict[str, Any]], roles: list[dict[str, Any]], changed: list[dict[str, Any]]
    ) -> None:
        if newcomers:
            await people.put_subscribers(self._session, newcomers)
        await people.put_roles(self._session, roles)
        for values in changed:
            mine = Subscriber.id == values.pop("id")
            await self._session.execute(update(Subscriber).where(mine).values(version=Subscriber.version + 1, **values))

    async def _known(self, rows: Sequence[Row]) -> dict[str, Known]:
        keys = {row.address.key for row in rows}
        columns = select(Subscriber.address_key, Subscriber.id, Subscriber.name, Subscriber.locale)
        found = await self._session.execute(columns.where(Subscriber.address_key.in_(keys)))
        return {key: Known(subscriber_id, name, locale) for key, subscriber_id, name, locale in found}

    async def _held(self, role_ids: Sequence[UUID]) -> dict[UUID, tuple[Any, ...]]:
        columns = select(Role.id, Role.municipalities, Role.mandate_from, Role.mandate_until)
        return {row[0]: tuple(row[1:]) for row in await self._session.execute(columns.where(Role.id.in_(role_ids)))}

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
        )

    async def _place(self, row: Row) -> UUID:
        """The organisation or group; a newsroom's coverage and a group's area follow the file where it gives one."""
        has_area = self._audience in (Audience.NEWSROOM, Audience.COLLABORATION_GROUP)
        found = await self._find(row.place)
        if found is None:
            return await self._found(row, row.municipalities if has_area else frozenset())
        if has_area and row.municipalities and found.municipalities != row.municipalities:
            self._moved.add(name_key(row.place))
            if self._writes:
                found.municipalities = row.municipalities
                await self._session.flush()
        return found.id

    async def _find(self, name: str) -> Organisation | Group | None:
        if self._audience is Audience.COLLABORATION_GROUP:
            return await people.group_named(self._session, name)
        return await people.organisation_named(self._session, ORGANISATION_OF[self._audience], name)

    async def _found(self, row: Row, area: frozenset[str]) -> UUID:
        if not self._writes:
            return new_id()
        created: Organisation | Group | None
        if self._audience is Audience.COLLABORATION_GROUP:
            created = await people.insert_group(self._session, row.place, area, self._at)
        else:
            kind = ORGANISATION_OF[self._audience]
            created = await people.insert_organisation(self._session, kind, row.place, area, self._at)
        created = created or await self._find(row.place)
        assert created is not None
        return created.id


def _change(person: Known, row: Row) -> dict[str, Any]:
    wanted = {"name": row.name or person.name, "locale": str(row.locale or person.locale)}
    return {column: value for column, value in wanted.items() if value != getattr(person, column)}


def _substance(role: dict[str, Any]) -> tuple[Any, ...]:
    return role["municipalities"], role["mandate_from"], role["mandate_until"]


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]
