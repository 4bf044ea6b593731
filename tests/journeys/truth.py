"""Who should get an item: written from the specification, apart from the product, and asked of everybody in the county.

An item is for audiences, in municipalities and on topics; naming none means all, on either side. Somebody is in its
audience by a role whose mandate covers the day and whose area meets the item's. A person counts once, under the strongest
such audience that they have not left (under the strongest, where all are left), and may be left out by a choice.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from tests.journeys.county import STRONGEST_FIRST, TODAY, Fate, Gets, Item, LeftOut, Person, Role

Places = Mapping[str, tuple[str, tuple[str, ...]]]


def fate(person: Person, item: Item, places: Places) -> Fate:
    """What becomes of one person."""
    if person.erased:
        return None
    audiences = {role.audience for role in person.roles if _matches(role, item, places)}
    if not audiences:
        return None
    staying = audiences - set(person.left)
    counted = min(staying or audiences, key=STRONGEST_FIRST.index)
    reason = _choice(person, item, stays=bool(staying))
    if reason:
        return LeftOut(counted, reason)
    return Gets(counted, "press" if counted == "newsroom" else "news", person.locale)


def _matches(role: Role, item: Item, places: Places) -> bool:
    if role.audience not in item.audiences:
        return False
    if (role.since and role.since > TODAY) or (role.until and role.until < TODAY):
        return False
    belongs_to_place = role.audience in ("newsroom", "collaboration_group")
    return _meet(places[role.place][1] if belongs_to_place else role.area, item.municipalities)


def _choice(person: Person, item: Item, *, stays: bool) -> str:
    if person.unsubscribed or not stays:
        return "unsubscribed"
    if person.paused_until and person.paused_until > datetime.now(UTC):
        return "paused"
    if not _meet(person.topics, item.topics):
        return "topic_choice"
    if not _meet(person.municipalities, item.municipalities):
        return "municipality_choice"
    return ""


def _meet(some: Iterable[str], others: Iterable[str]) -> bool:
    return not set(some) or not set(others) or bool(set(some) & set(others))
