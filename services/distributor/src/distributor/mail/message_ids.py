"""Message-IDs, derived so that every process knows them: a repeat is recognised, and so is a mail that comes to us."""

from collections.abc import Callable
from functools import lru_cache
from uuid import UUID

from shared.ids import derived_hexes


@lru_cache(maxsize=256)
def message_ids(subject_id: UUID, revision: int) -> Callable[[object], str]:
    """From a recipient's id to what stands before the @ in the Message-ID of their mail about this revision."""
    return derived_hexes("message-id", subject_id, revision)
