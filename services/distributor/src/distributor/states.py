"""The states of a delivery and the ways between them. "Sent" means that the receiver's server accepted it.

Whatever is not listed cannot happen: every statement that changes a state names the states that it may leave.
"""

from collections.abc import Mapping

from shared.contracts.delivery import DeliveryState
from shared.contracts.mail import Lane

PLANNED, LEASED, SENT, DEFERRED, BOUNCED, FAILED, UNCERTAIN, CANCELLED = DeliveryState

TRANSITIONS: Mapping[DeliveryState, frozenset[DeliveryState]] = {
    # Waiting: taken by a sender, or called off. In a ledger put back from a backup it may have gone: uncertain.
    PLANNED: frozenset({LEASED, CANCELLED, UNCERTAIN}),
    # The receiver asked us to come again, or could not be reached. Retried by hand: planned. After a backup: the same.
    DEFERRED: frozenset({LEASED, CANCELLED, PLANNED, FAILED, UNCERTAIN}),
    # In a sender's hands. Given back untouched when the sender died before it began (planned, deferred, uncertain);
    # called off while not begun.
    LEASED: frozenset({SENT, DEFERRED, BOUNCED, FAILED, UNCERTAIN, PLANNED, CANCELLED}),
    # The receiver may have it. Repeated once (leased), or by hand (planned); a late answer may still settle it, and a
    # bounce proves that it went out, and came back.
    UNCERTAIN: frozenset({LEASED, PLANNED, BOUNCED}),
    # Final, but for a person who knows better.
    BOUNCED: frozenset({PLANNED}),
    FAILED: frozenset({PLANNED}),
    # Mail that went out cannot be called back; it may come back: the server that accepted it reports, hours or days
    # later, that there is no such recipient (RFC 3464).
    SENT: frozenset({BOUNCED}),
    # Final. What was called off is planned anew under a newer revision.
    CANCELLED: frozenset(),
}

MAY_HAVE_IT = (SENT, UNCERTAIN)
"""Who has to be told when the item is corrected or withdrawn."""

APART = (DEFERRED, BOUNCED, FAILED, UNCERTAIN, CANCELLED)
"""Where few deliveries are, and those that somebody asks for: an index has these alone."""

UNSENT = (PLANNED, DEFERRED)

RETRIABLE_BY_HAND = tuple(state for state, ways in TRANSITIONS.items() if PLANNED in ways and state is not LEASED)

LANE_RANK: Mapping[Lane, int] = {lane: rank for rank, lane in enumerate(Lane)}
LANE_OF_RANK = tuple(Lane)


class ImpossibleTransition(Exception):
    """The delivery is in a state that does not lead where it should go."""


def sources_of(target: DeliveryState) -> tuple[DeliveryState, ...]:
    """The states that lead to `target`."""
    return tuple(state for state, ways in TRANSITIONS.items() if target in ways)
