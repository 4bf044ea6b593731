"""The register extract for the data-protection officer: who is in it, why, since when, by whose hand, under which text.

Read by rising subscriber id, a page at a time, so that it streams at any size.
"""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience
from shared.database import Database
from shared.tasks import to_its_end
from subscriptions import history, people
from subscriptions.consent import ground_of
from subscriptions.history import Change
from subscriptions.models import Subscriber
from subscriptions.people import RoleRow
from subscriptions.schemas import RegisteredSubscription, RegisterEntry

PAGE = 500
COLUMNS = (
    "id",
    "address",
    "name",
    "since",
    "unsubscribed_at",
    "suppressed_at",
    "audience",
    "place",
    "municipalities",
    "mandate_from",
    "mandate_until",
    "left",
    "basis",
    "basis_since",
    "basis_source",
    "text_shown",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\0")
"""What a spreadsheet would take for a formula gets an apostrophe before it."""


async def entries(session: AsyncSession, *, after: UUID | None, limit: int) -> list[RegisterEntry]:
    """The next people of the register."""
    rows = await people.subscribers(session, after=after, limit=limit, audience=None)
    ids = [row.id for row in rows]
    roles, left = await people.roles_of(session, ids), await people.left_by(session, ids)
    changes = await history.changes_of(session, ids)
    return [_entry(row, roles[row.id], left[row.id], changes.get(row.id, ())) for row in rows]


async def lines(database: Database) -> AsyncIterator[str]:
    """The whole register as CSV (RFC 4180, UTF-8 with a BOM, which spreadsheets ask for), a subscription a line."""
    yield "\ufeff" + _line(COLUMNS)
    after: UUID | None = None
    while True:
        page = await to_its_end(_page(database, after))  # whoever downloads may hang up
        for entry in page:
            for row in _rows(entry):
                yield _line(row)
        if len(page) < PAGE:
            return
        after = page[-1].id


async def _page(database: Database, after: UUID | None) -> list[RegisterEntry]:
    async with database.reading() as session:
        return await entries(session, after=after, limit=PAGE)


def _entry(row: Subscriber, roles: Sequence[RoleRow], left: set[Audience], changes: Sequence[Change]) -> RegisterEntry:
    return RegisterEntry(
        id=row.id,
        address=row.address,
        name=row.name,
        since=row.created_at,
        unsubscribed_at=row.unsubscribed_at,
        suppressed_at=row.suppressed_at,
        subscriptions=[_subscription(role, left, changes) for role in roles],
    )


def _subscription(role: RoleRow, left: set[Audience], changes: Sequence[Change]) -> RegisteredSubscription:
    ground = ground_of(role, changes)
    return RegisteredSubscription(
        audience=role.audience,
        place=role.name,
        municipalities=sorted(role.municipalities),
        mandate_from=role.mandate_from,
        mandate_until=role.mandate_until,
        left=role.audience in left,
        basis=ground.basis,
        basis_since=ground.since,
        basis_source=ground.source,
        text_shown=ground.text_shown,
        text=ground.text,
    )


def _rows(entry: RegisterEntry) -> list[list[object]]:
    person: list[object] = [getattr(entry, name) for name in COLUMNS[:6]]
    if not entry.subscriptions:
        return [[*person, *[""] * (len(COLUMNS) - 6)]]
    return [[*person, *(getattr(held, name) for name in COLUMNS[6:])] for held in entry.subscriptions]


def _line(values: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow([_cell(value) for value in values])
    return line.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(value)
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
