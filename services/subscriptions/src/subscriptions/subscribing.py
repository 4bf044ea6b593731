"""What the office does to a subscriber: add and change.

Everything that may stop or resume mail goes through `stops.changing`, which tells the distributor. Faults in what the
caller sent are `Problem`s that name the field.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience, Locale
from shared.ids import new_id
from shared.problems import Problem, invalid
from subscriptions import addresses, people, suppressions
from subscriptions.addresses import Address, InvalidAddress
from subscriptions.frequencies import as_kept, put_frequencies
from subscriptions.history import Act, Source, record, standing_of
from subscriptions.models import OrganisationKind
from subscriptions.schemas import RoleIn, SubscriberIn, SubscriberPatch
from subscriptions.stops import Person, changing
from subscriptions.suppressions import BY_MAILBOX

ORGANISATION_OF = {
    Audience.NEWSROOM: OrganisationKind.NEWSROOM,
    Audience.POLITICIAN: OrganisationKind.COUNCIL,
    Audience.AGENCY_OFFICIAL: OrganisationKind.AGENCY,
}
WITH_MANDATE = frozenset({Audience.POLITICIAN})
WITHOUT_AREA = frozenset({Audience.NEWSROOM, Audience.COLLABORATION_GROUP, Audience.PUBLIC})
"""Audiences whose area is not the role's own: a newsroom's and a group's is theirs, the public's is a choice."""


async def add(session: AsyncSession, wanted: SubscriberIn, at: datetime) -> UUID:
    """Add a subscriber; 409 where the address has one."""
    address = read_address(wanted.address)
    subscriber_id = new_id()
    values = {
        "id": subscriber_id,
        **values_of(address, wanted.name, wanted.locale, at),
        "topics": frozenset(wanted.topics),
        "municipalities": frozenset(wanted.municipalities),
        "paused_until": wanted.paused_until,
    }
    if await people.insert_subscriber(session, values) is None:
        await _refuse_taken(session, address)
    rows = await _role_rows(session, subscriber_id, wanted.roles, at)
    await people.put_roles(session, rows)
    await put_frequencies(session, subscriber_id, as_kept(wanted.frequencies))
    subscriber = await people.subscriber(session, subscriber_id)
    assert subscriber is not None
    stands = {field: value for field, value in (await standing_of(session, subscriber, ())).items() if value}
    await record(session, subscriber_id, at, act=Act.JOINED, source=Source.OFFICE, before={}, after=stands)
    return subscriber_id


def values_of(address: Address, name: str, locale: Locale, at: datetime) -> dict[str, Any]:
    """The columns of a new subscriber that every way in fills."""
    return {
        "address": address.text,
        "address_key": address.key,
        "name": name,
        "locale": str(locale),
        "topics": frozenset(),
        "municipalities": frozenset(),
        "generation": 1,
        "version": 1,
        "created_at": at,
    }


async def change(
    session: AsyncSession, subscriber_id: UUID, patch: SubscriberPatch, is_current: Callable[[int], bool], at: datetime
) -> None:
    """Change what `patch` names; 412 where `is_current` says that the caller read an older version."""
    async with changing(session, subscriber_id, at, Source.OFFICE) as person:
        if not is_current(person.subscriber.version):
            raise Problem(412, detail="The subscriber has changed since you read it. Read it again.")
        if patch.roles is not None:
            rows = await _role_rows(session, subscriber_id, patch.roles, at)
            await people.replace_roles(session, subscriber_id, rows)
            person.touched = True
        if patch.frequencies is not None:
            await put_frequencies(session, subscriber_id, as_kept(patch.frequencies))
            person.touched = True
        await _change_address(session, person, patch, at)
        _change_row(person, patch, at)


async def _change_address(session: AsyncSession, person: Person, patch: SubscriberPatch, at: datetime) -> None:
    """A new address is a new mailbox: what suppressed the old one no longer holds, and its links end."""
    if patch.address is None:
        return
    address, subscriber = read_address(patch.address), person.subscriber
    try:
        async with session.begin_nested():
            await people.move_address(session, subscriber.id, address)
    except IntegrityError:
        await _refuse_taken(session, address)
    if address.key != subscriber.address_key:
        await suppressions.lift(session, subscriber, BY_MAILBOX, Source.OFFICE, at)
        subscriber.generation += 1
    subscriber.address, subscriber.address_key = address.text, address.key


def _change_row(person: Person, patch: SubscriberPatch, at: datetime) -> None:
    subscriber, given = person.subscriber, patch.model_fields_set
    for name in ("name", "locale"):
        value = getattr(patch, name)
        if value is not None:
            setattr(subscriber, name, str(value))
    for name in ("topics", "municipalities"):
        codes = getattr(patch, name)
        if codes is not None:
            setattr(subscriber, name, frozenset(codes))
    if patch.left_audiences is not None:
        person.left = set(patch.left_audiences)
    if "paused_until" in given:
        subscriber.paused_until = patch.paused_until
    if patch.unsubscribed is not None:
        subscriber.unsubscribed_at = (subscriber.unsubscribed_at or at) if patch.unsubscribed else None


def read_address(text: str) -> Address:
    """The address, or a 422 with the reason."""
    try:
        return addresses.parse(text)
    except InvalidAddress as error:
        raise invalid("/address", "invalid_email", error.message, error.message_sv) from error


async def _refuse_taken(session: AsyncSession, address: Address) -> None:
    holder = await people.subscriber_by_address(session, address.key)
    raise Problem(409, "subscriber_exists", f"The address belongs to subscriber {holder.id if holder else ''}.")


async def _role_rows(
    session: AsyncSession, subscriber_id: UUID, roles: Sequence[RoleIn], at: datetime
) -> list[dict[str, Any]]:
    rows: dict[UUID, dict[str, Any]] = {}
    for index, role in enumerate(roles):
        pointer = f"/roles/{index}"
        _check_fields(role, pointer)
        row = people.role_values(
            subscriber_id,
            role.audience,
            await _place(session, role, pointer),
            municipalities=frozenset(role.municipalities),
            mandate_from=role.mandate_from,
            mandate_until=role.mandate_until,
            began_at=at,
            source=str(Source.OFFICE),
        )
        if row["id"] in rows:
            raise invalid(pointer, "duplicate_role", "The role stands twice.", "Rollen finns två gånger.")
        rows[row["id"]] = row
    return list(rows.values())


def _check_fields(role: RoleIn, pointer: str) -> None:
    if role.municipalities and role.audience in WITHOUT_AREA:
        raise invalid(
            f"{pointer}/municipalities",
            "field_not_for_audience",
            "This audience has no area of its own role.",
            "Den här målgruppen har inga kommuner på rollen.",
        )
    if (role.mandate_from or role.mandate_until) and role.audience not in WITH_MANDATE:
        raise invalid(
            f"{pointer}/mandate_from",
            "field_not_for_audience",
            "Only politicians have a mandate.",
            "Bara politiker har mandatperiod.",
        )
    if role.mandate_from and role.mandate_until and role.mandate_until < role.mandate_from:
        raise invalid(
            f"{pointer}/mandate_until",
            "mandate_ends_before_it_begins",
            "The mandate ends before it begins.",
            "Mandatperioden slutar innan den börjar.",
        )


async def _place(session: AsyncSession, role: RoleIn, pointer: str) -> UUID | None:
    if role.audience is Audience.COLLABORATION_GROUP:
        _refuse_given(role.organisation_id, f"{pointer}/organisation_id")
        if role.group_id is None or await people.group(session, role.group_id) is None:
            raise _unknown(f"{pointer}/group_id", "Name an existing group.", "Ange en grupp som finns.")
        return role.group_id
    _refuse_given(role.group_id, f"{pointer}/group_id")
    kind = ORGANISATION_OF.get(role.audience)
    if kind is None:
        _refuse_given(role.organisation_id, f"{pointer}/organisation_id")
        return None
    found = await people.organisation(session, role.organisation_id) if role.organisation_id else None
    if found is None or found.kind != kind:
        message = f"Name an existing organisation of the kind {kind}."
        raise _unknown(f"{pointer}/organisation_id", message, "Ange en organisation som finns.")
    return found.id


def _refuse_given(value: UUID | None, pointer: str) -> None:
    if value is not None:
        raise invalid(
            pointer,
            "field_not_for_audience",
            "This field is not for this audience.",
            "Fältet hör inte till målgruppen.",
        )


def _unknown(pointer: str, message: str, message_sv: str) -> Problem:
    return invalid(pointer, "unknown_place", message, message_sv)
