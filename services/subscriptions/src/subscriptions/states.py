"""Whether mail flows to a subscriber, as a value and as a question to the database."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, or_

from subscriptions.models import Subscriber


class SubscriberState(StrEnum):
    """Whether mail flows, by the most final thing that stops it."""

    ACTIVE = "active"
    PAUSED = "paused"
    UNSUBSCRIBED = "unsubscribed"
    SUPPRESSED = "suppressed"


def state_of(row: Subscriber, at: datetime) -> SubscriberState:
    if row.suppressed_at is not None:
        return SubscriberState.SUPPRESSED
    if row.unsubscribed_at is not None:
        return SubscriberState.UNSUBSCRIBED
    paused = row.paused_until is not None and row.paused_until > at
    return SubscriberState.PAUSED if paused else SubscriberState.ACTIVE


def in_state(state: SubscriberState, at: datetime) -> ColumnElement[bool]:
    """The same as a condition."""
    suppressed, unsubscribed = Subscriber.suppressed_at.is_not(None), Subscriber.unsubscribed_at.is_not(None)
    paused = Subscriber.paused_until > at
    if state is SubscriberState.SUPPRESSED:
        return suppressed
    if state is SubscriberState.UNSUBSCRIBED:
        return and_(unsubscribed, ~suppressed)
    flowing = and_(~suppressed, ~unsubscribed)
    if state is SubscriberState.PAUSED:
        return and_(flowing, paused)
    return and_(flowing, or_(Subscriber.paused_until.is_(None), ~paused))
