"""Imports rolls: a comparison that is shown first, and then applied as it was shown, all of it or nothing.

A comparison has a version, which covers the file and everything known that it was made from. Applying names the
version; where anything has changed since, nothing is done and the caller compares again. Two who apply at the same
time queue at the council's row; the second finds another version. Once applied, the same file has nothing to change.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import date, datetime
from typing import BinaryIO, TypeVar
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience, Locale
from shared.database import Database, among, upsert
from shared.ids import derived_id, new_id
from shared.web.dates import STOCKHOLM
from subscriptions import people
from subscriptions.addresses import Address
from subscriptions.csv_reading import Row
from subscriptions.history import AUDIENCE, GETS, Act, Change, Source, put_changes
from subscriptions.models import Organisation, OrganisationKind, Role, Subscriber, rank_of
from subscriptions.people import name_key
from subscriptions.rolls import reading as roll_reading
from subscriptions.rolls.comparing import Comparison, Listed, Person, Seat, compare
from subscriptions.rolls.models import Council
from subscriptions.rolls.reading import RollReading
from subscriptions.rolls.schemas import RollReport
from subscriptions.subscribing import values_of

T = TypeVar("T")

CHUNK = 5_000
"""Rows written by one statement: however large a roll is, none runs into the database's time limit."""


class RollChanged(Exception):
    """What the comparison was made from is not so any more."""


async def compare_file(database: Database, source: BinaryIO, at: datetime) -> RollReport:
    """What applying the file would do, and the version to apply; or what is wrong with the file."""
    reading = await asyncio.to_thread(roll_reading.read, source, _day(at))
    if reading.errors:
        return _report(reading, (), "", dry_run=True)
    async with database.reading() as session:
        comparisons, version = await _compare(session, reading.rows, at)
    return _report(reading, comparisons, version, dry_run=True)


Finish = Callable[[AsyncSession, RollReport], Awaitable[None]]


async def apply_file(
    database: Database,
    source: BinaryIO,
    is_shown: Callable[[str], bool],
    at: datetime,
    finish: Finish | None = None,
) -> RollReport:
    """Apply the file where `is_shown` knows its comparison's version; else `RollChanged`, and nothing is done. What
    `finish` writes is part of it.
    """
    reading = await asyncio.to_thread(roll_reading.read, source, _day(at))
    if reading.errors:
        return _report(reading, (), "", dry_run=False)
    try:
        async with database.transaction() as session:
            await _lock(session, reading.rows, at)
            comparisons, version = await _compare(session, reading.rows, at)
            if not is_shown(version):
                raise RollChanged
            for comparison in comparisons:
                await _write(session, comparison, at)
            report = _report(reading, comparisons, version, dry_run=False)
            if finish is not None:
                await finish(session, report)
    except IntegrityError as error:  # somebody of the roll was added or erased this very moment
        raise RollChanged from error
    return report


async def _lock(session: AsyncSession, rows: Sequence[Row], at: datetime) -> None:
    """Make what is missing of organisations and councils, and hold the councils, in one order for everybody."""
    wanted: dict[UUID, dict[str, object]] = {}
    for row in {(name_key(row.place), row.municipalities): row for row in rows}.values():
        kind = OrganisationKind.COUNCIL
        created = await people.insert_organisation(session, kind, row.place, frozenset(), at)
        found = created or await people.organisation_named(session, kind, row.place)
        assert found is not None
        key = council_id(found.id, row.municipalities)
        wanted[key] = {
            "id": key, "organisation_id": found.id, "municipalities": row.municipalities, "imported_at": at
        }  # fmt: skip
    for key in sorted(wanted):
        insert = upsert(session, Council.__table__).values(wanted[key])  # type: ignore[arg-type]
        await session.execute(insert.on_conflict_do_update(index_elements=["id"], set_={"imported_at": at}))


def council_id(organisation_id: UUID, municipalities: Iterable[str]) -> UUID:
    """A council is an organisation in an area: every municipality has a 'Kommunfullmäktige'."""
    return derived_id("council", organisation_id, *sorted(municipalities))


async def _compare(session: AsyncSession, rows: Sequence[Row], at: datetime) -> tuple[list[Comparison], str]:
    organisations = await _organisations(session, {row.place for row in rows})
    held = await _held(session, organisations.values())
    known = await _known(session, [row.address.key for row in rows])
    # Of a hundred thousand lines it takes seconds, in which others are served.
    return await asyncio.to_thread(_compared, rows, organisations, held, known, _day(at))


def _compared(
    rows: Sequence[Row],
    organisations: dict[str, UUID],
    held: dict[UUID | None, list[Seat]],
    known: dict[str, Person],
    day: date,
) -> tuple[list[Comparison], str]:
    persons = {row.address.key: known.get(row.address.key) or _newcomer(row) for row in rows}
    comparisons = [
        compare(listed, held.get(listed.organisation_id, ()), persons, day) for listed in _listed(rows, organisations)
    ]
    return comparisons, _version(rows, held, known)


def _newcomer(row: Row) -> Person:
    return Person(new_id(), row.address.text, row.address.key, row.name, str(row.locale or Locale.SV), is_new=True)


def _listed(rows: Sequence[Row], organisations: dict[str, UUID]) -> list[Listed]:
    councils: dict[tuple[str, frozenset[str]], list[Row]] = {}
    for row in rows:
        councils.setdefault((name_key(row.place), row.municipalities), []).append(row)
    return [Listed(own[0].place, organisations.get(name), area, own) for (name, area), own in councils.items()]


async def _organisations(session: AsyncSession, names: Iterable[str]) -> dict[str, UUID]:
    keys = among(session, Organisation.name_key, {name_key(name) for name in names})
    named = select(Organisation.name_key, Organisation.id).where(Organisation.kind == OrganisationKind.COUNCIL, keys)
    return {row.name_key: row.id for row in await session.execute(named)}


async def _held(session: AsyncSession, organisation_ids: Iterable[UUID]) -> dict[UUID | None, list[Seat]]:
    found: dict[UUID | None, list[Seat]] = {}
    theirs = among(session, Role.organisation_id, organisation_ids)
    held = (Role.audience_rank == rank_of(Audience.POLITICIAN), theirs)
    statement = select(Role, *PERSON).join(Subscriber, Subscriber.id == Role.subscriber_id).where(*held)
    for row in await session.execute(statement.order_by(Role.id)):
        role: Role = row[0]
        seat = Seat(role.id, Person(*row[1:]), role.municipalities, role.mandate_from, role.mandate_until)
        found.setdefault(role.organisation_id, []).append(seat)
    return found


PERSON = (Subscriber.id, Subscriber.address, Subscriber.address_key, Subscriber.name, Subscriber.locale)


async def _known(session: AsyncSession, keys: Sequence[str]) -> dict[str, Person]:
    rows = await session.execute(select(*PERSON).where(among(session, Subscriber.address_key, keys)))
    return {person.key: person for person in (Person(*row) for row in rows)}


def _version(rows: Sequence[Row], held: dict[UUID | None, list[Seat]], known: dict[str, Person]) -> str:
    """Grows out of all that the comparison was made from, and of nothing that applying makes by itself."""
    digest = hashlib.sha256()
    for row in rows:
        said = (row.address.key, row.name, row.locale, row.place, *_dates(row), sorted(row.municipalities))
        digest.update(repr(said).encode())
    for seat in (seat for seats in held.values() for seat in seats):
        digest.update(repr((seat.role_id, seat.person, *_dates(seat), sorted(seat.municipalities))).encode())
    for key in sorted(known):
        digest.update(repr(known[key]).encode())
    return digest.hexdigest()[:32]


def _dates(row: Row | Seat) -> tuple[date | None, date | None]:
    return row.mandate_from, row.mandate_until


async def _write(session: AsyncSession, comparison: Comparison, at: datetime) -> None:
    for seat in comparison.seats:
        if seat.person.is_new:
            await _add(session, seat.person, at)
    for person in comparison.renamed:
        mine = Subscriber.id == person.id
        await session.execute(update(Subscriber).where(mine).values(name=person.name, locale=person.locale))
    for role_ids in _chunks(comparison.dropped):
        gone = delete(Role).where(among(session, Role.id, role_ids))
        await session.execute(gone.execution_options(synchronize_session=False))
    for seats in _chunks(comparison.seats):
        await people.put_roles(session, [_role(seat, comparison.diff.organisation_id, at) for seat in seats])
    await put_changes(session, [_joining(subscriber_id, at) for subscriber_id in comparison.joined])
    for ids in _chunks(sorted(comparison.touched)):
        touched = among(session, Subscriber.id, ids)
        grown = update(Subscriber).where(touched).values(version=Subscriber.version + 1)
        await session.execute(grown.execution_options(synchronize_session=False))


async def _add(session: AsyncSession, person: Person, at: datetime) -> None:
    values = values_of(Address(person.address, person.key), person.name, Locale(person.locale), at)
    added = await people.insert_subscriber(session, {"id": person.id, **values})
    if added is None and await people.subscriber(session, person.id) is None:
        raise RollChanged


def _joining(subscriber_id: UUID, at: datetime) -> Change:
    field = f"{AUDIENCE}{Audience.POLITICIAN}"
    return Change(new_id(), subscriber_id, at, Act.JOINED, Source.IMPORT, {field: None}, {field: GETS})


def _role(seat: Seat, organisation_id: UUID | None, at: datetime) -> dict[str, object]:
    values = people.role_values(
        seat.person.id,
        Audience.POLITICIAN,
        organisation_id,
        municipalities=seat.municipalities,
        mandate_from=seat.mandate_from,
        mandate_until=seat.mandate_until,
        began_at=at,
        source=str(Source.IMPORT),
    )
    return {**values, "id": seat.role_id}


def _report(reading: RollReading, comparisons: Iterable[Comparison], version: str, *, dry_run: bool) -> RollReport:
    return RollReport(
        dry_run=dry_run,
        version=version,
        rows=reading.count,
        rolls=[comparison.diff for comparison in comparisons],
        errors=reading.errors,
        errors_left_out=reading.errors_left_out,
    )


def _day(at: datetime) -> date:
    return at.astimezone(STOCKHOLM).date()


def _chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]
