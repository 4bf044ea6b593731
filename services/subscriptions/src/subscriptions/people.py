"""What the database knows of people, organisations and groups."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, union, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import STRONGEST_FIRST, Audience
from shared.database import among, insert_ignoring, upsert
from shared.ids import derived_id, new_id
from shared.rows import as_table, put_rows
from subscriptions.addresses import Address
from subscriptions.models import Departure, Group, Organisation, OrganisationKind, Role, Subscriber, rank_of


@dataclass(frozen=True, slots=True)
class RoleRow:
    """A role with the name of where it is held."""

    audience: Audience
    organisation_id: UUID | None
    group_id: UUID | None
    municipalities: frozenset[str]
    mandate_from: date | None
    mandate_until: date | None
    name: str
    covers: frozenset[str]
    began_at: datetime | None
    source: str


def role_id(subscriber_id: UUID, audience: Audience, place_id: UUID | None, mandate_from: date | None = None) -> UUID:
    """The role's id. A mandate that begins on another day is another role: whoever is elected again has both."""
    return derived_id("role", subscriber_id, audience, place_id, *([mandate_from] if mandate_from else []))


def role_values(subscriber_id: UUID, audience: Audience, place_id: UUID | None, **values: Any) -> dict[str, Any]:
    """A row of `roles`; `place_id` is the organisation or the group, by the audience. Whoever gives a role says when
    (`began_at`) and by whose hand (`source`): the subscription's legal basis counts from there.
    """
    in_group = audience is Audience.COLLABORATION_GROUP
    return {
        "id": role_id(subscriber_id, audience, place_id, values.get("mandate_from")),
        "subscriber_id": subscriber_id,
        "audience_rank": rank_of(audience),
        "organisation_id": None if in_group else place_id,
        "group_id": place_id if in_group else None,
        "municipalities": frozenset(),
        "mandate_from": None,
        "mandate_until": None,
        "began_at": None,
        "source": "",
        **values,
    }


def public_role(subscriber_id: UUID, at: datetime, source: str) -> dict[str, Any]:
    """The one role that is everybody's to take."""
    return role_values(subscriber_id, Audience.PUBLIC, None, began_at=at, source=str(source))


async def insert_subscriber(session: AsyncSession, values: dict[str, Any]) -> UUID | None:
    """The new row's id, or `None` where the address is taken."""
    new = insert_ignoring(session, Subscriber.__table__, ["address_key"])  # type: ignore[arg-type]
    found: UUID | None = await session.scalar(new.values(values).returning(Subscriber.id))
    return found


async def put_subscribers(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Write new subscribers."""
    await put_rows(session, insert(Subscriber.__table__), rows)  # type: ignore[arg-type]


async def change_subscribers(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Raise the version of each row's `id`; `name` and `locale` stay where the row has none."""
    if not rows:
        return
    table: Any = Subscriber.__table__
    told = as_table(session, table, rows)
    newer = {name: func.coalesce(told.c[name], table.c[name]) for name in ("name", "locale")}
    await session.execute(update(table).where(table.c.id == told.c.id).values(version=table.c.version + 1, **newer))


async def move_address(session: AsyncSession, subscriber_id: UUID, address: Address) -> None:
    """Write the address; `IntegrityError` where it is somebody else's. The object in hand is the caller's to change."""
    moved = update(Subscriber).where(Subscriber.id == subscriber_id)
    values = {"address": address.text, "address_key": address.key}
    await session.execute(moved.values(values).execution_options(synchronize_session=False))


async def subscriber(session: AsyncSession, subscriber_id: UUID) -> Subscriber | None:
    return await session.get(Subscriber, subscriber_id, populate_existing=True)


async def subscriber_by_address(session: AsyncSession, key: str) -> Subscriber | None:
    return await session.scalar(select(Subscriber).where(Subscriber.address_key == key))


async def subscribers(
    session: AsyncSession, *, after: UUID | None, limit: int, audience: Audience | None
) -> Sequence[Subscriber]:
    """By rising id, which is the order in which they came."""
    statement = select(Subscriber).order_by(Subscriber.id).limit(limit)
    if after is not None:
        statement = statement.where(Subscriber.id > after)
    if audience is not None:
        held = select(Role.subscriber_id).where(Role.audience_rank == rank_of(audience))
        statement = statement.where(Subscriber.id.in_(held))
    return (await session.scalars(statement)).all()


async def roles_of(session: AsyncSession, subscriber_ids: Iterable[UUID]) -> dict[UUID, list[RoleRow]]:
    """Everybody's roles, strongest first."""
    ids = list(subscriber_ids)
    statement = (
        select(Role, Organisation.name, Organisation.municipalities, Group.name, Group.municipalities)
        .outerjoin(Organisation, Organisation.id == Role.organisation_id)
        .outerjoin(Group, Group.id == Role.group_id)
        .where(among(session, Role.subscriber_id, ids))
        .order_by(Role.audience_rank, Role.id)
    )
    found: dict[UUID, list[RoleRow]] = {key: [] for key in ids}
    for role, organisation, covers, group, spans in await session.execute(statement):
        found[role.subscriber_id].append(_role_row(role, organisation or group or "", covers or spans or frozenset()))
    return found


def in_force(roles: Iterable[RoleRow], day: date) -> list[RoleRow]:
    """The roles that are held on `day`: a mandate counts its first and its last day."""
    return [
        role for role in roles if (role.mandate_from or date.min) <= day and (role.mandate_until or date.max) >= day
    ]


async def left_by(session: AsyncSession, subscriber_ids: Iterable[UUID]) -> dict[UUID, set[Audience]]:
    """The audiences that each has left."""
    ids = list(subscriber_ids)
    found: dict[UUID, set[Audience]] = {key: set() for key in ids}
    columns = select(Departure.subscriber_id, Departure.audience_rank)
    for key, rank in await session.execute(columns.where(among(session, Departure.subscriber_id, ids))):
        found[key].add(STRONGEST_FIRST[rank])
    return found


async def audiences_of(session: AsyncSession, subscriber_id: UUID) -> set[Audience]:
    ranks = await session.scalars(select(Role.audience_rank).where(Role.subscriber_id == subscriber_id))
    return {STRONGEST_FIRST[rank] for rank in ranks}


async def replace_roles(session: AsyncSession, subscriber_id: UUID, rows: Sequence[dict[str, Any]]) -> None:
    """Give the subscriber these roles and no others."""
    kept = [row["id"] for row in rows]
    await session.execute(delete(Role).where(Role.subscriber_id == subscriber_id, Role.id.not_in(kept)))
    await put_roles(session, rows)


async def put_roles(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Write roles, replacing what the same ones said before."""
    roles = upsert(session, Role.__table__)  # type: ignore[arg-type]
    newer = {name: roles.excluded[name] for name in ("municipalities", "mandate_from", "mandate_until")}
    await put_rows(session, roles.on_conflict_do_update(index_elements=["id"], set_=newer), rows)


async def remove_role(session: AsyncSession, subscriber_id: UUID, audience: Audience) -> None:
    mine = (Role.subscriber_id == subscriber_id, Role.audience_rank == rank_of(audience))
    await session.execute(delete(Role).where(*mine))


async def insert_organisation(
    session: AsyncSession, kind: OrganisationKind, name: str, municipalities: Iterable[str], at: datetime
) -> Organisation | None:
    """The new organisation, or `None` where one of that kind and name exists."""
    values = {"id": new_id(), "kind": str(kind), "name": name, "name_key": name_key(name), "created_at": at}
    new = insert_ignoring(session, Organisation.__table__, ["kind", "name_key"])  # type: ignore[arg-type]
    row = new.values(**values, municipalities=frozenset(municipalities)).returning(Organisation.id)
    created: UUID | None = await session.scalar(row)
    return await organisation(session, created) if created else None


async def insert_group(session: AsyncSession, name: str, municipalities: Iterable[str], at: datetime) -> Group | None:
    """The new group, or `None` where one of that name exists."""
    values = {"id": new_id(), "name": name, "name_key": name_key(name), "created_at": at}
    new = insert_ignoring(session, Group.__table__, ["name_key"])  # type: ignore[arg-type]
    row = new.values(**values, municipalities=frozenset(municipalities)).returning(Group.id)
    created: UUID | None = await session.scalar(row)
    return await group(session, created) if created else None


async def hold(session: AsyncSession, subscriber_id: UUID) -> bool:
    """Nobody else changes the subscriber until this transaction has ended; False where there is none."""
    mine = select(Subscriber.id).where(Subscriber.id == subscriber_id).with_for_update()
    return await session.scalar(mine) is not None


async def place_names(session: AsyncSession, *, limit: int) -> list[str]:
    """The names of organisations and groups, each once, to be offered in a form."""
    named = union(select(Organisation.name), select(Group.name)).order_by("name").limit(limit)
    return list(await session.scalars(named))


async def organisation(session: AsyncSession, organisation_id: UUID) -> Organisation | None:
    return await session.get(Organisation, organisation_id)


async def organisation_named(session: AsyncSession, kind: OrganisationKind, name: str) -> Organisation | None:
    named = (Organisation.kind == kind, Organisation.name_key == name_key(name))
    return await session.scalar(select(Organisation).where(*named))


async def group(session: AsyncSession, group_id: UUID) -> Group | None:
    return await session.get(Group, group_id)


async def group_named(session: AsyncSession, name: str) -> Group | None:
    return await session.scalar(select(Group).where(Group.name_key == name_key(name)))


async def organisations(
    session: AsyncSession, *, after: UUID | None, limit: int, kind: OrganisationKind | None
) -> Sequence[Organisation]:
    statement = select(Organisation).order_by(Organisation.id).limit(limit)
    if after is not None:
        statement = statement.where(Organisation.id > after)
    if kind is not None:
        statement = statement.where(Organisation.kind == kind)
    return (await session.scalars(statement)).all()


async def groups(session: AsyncSession, *, after: UUID | None, limit: int) -> Sequence[Group]:
    statement = select(Group).order_by(Group.id).limit(limit)
    if after is not None:
        statement = statement.where(Group.id > after)
    return (await session.scalars(statement)).all()


def name_key(name: str) -> str:
    """How two spellings of one name are told to be the same: case and runs of spaces do not count."""
    return " ".join(name.casefold().split())


def _role_row(role: Role, name: str, covers: frozenset[str]) -> RoleRow:
    return RoleRow(
        audience=STRONGEST_FIRST[role.audience_rank],
        organisation_id=role.organisation_id,
        group_id=role.group_id,
        municipalities=role.municipalities,
        mandate_from=role.mandate_from,
        mandate_until=role.mandate_until,
        name=name,
        covers=covers,
        began_at=role.began_at,
        source=role.source,
    )
