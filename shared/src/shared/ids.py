"""Identifiers: UUIDv7 where an id is drawn (rows sort by time), UUIDv5 where a replay must hit the same row, UUIDv8
where it must and there are millions of rows.
"""

from collections.abc import Callable
from hashlib import sha1
from uuid import UUID, uuid5

from uuid_utils.compat import uuid7

NAMESPACE = UUID("6f2c0c64-3a0b-5d5e-9a53-6f1f4b8f7a10")
"""Namespace of all derived ids. Changing it would make every replay a stranger."""

VARIANT = {f"{digit:x}": f"{8 | digit & 3:x}" for digit in range(16)}


def new_id() -> UUID:
    """A fresh id that sorts by time (RFC 9562, version 7)."""
    return uuid7()


def derived_hexes(*parts: object) -> Callable[[object], str]:
    """The 32 digits of what `derived_id` gives for `parts` and one more, for many that differ in that one."""
    begun = sha1(NAMESPACE.bytes + "".join(f"{part}\x1f" for part in parts).encode(), usedforsecurity=False)

    def derived(last: object) -> str:
        hashed = begun.copy()
        hashed.update(str(last).encode())
        digits = hashed.hexdigest()  # RFC 9562, section 5.5: version 5, and the variant's two bits
        return f"{digits[:12]}5{digits[13:16]}{VARIANT[digits[16]]}{digits[17:32]}"

    return derived


def derived_beside(parent: UUID, *parts: object) -> Callable[[object], UUID]:
    """Ids for the many rows of one parent, from `parts` and one more: the same for the same, for ever.

    They begin as the parent's does, with its millisecond where it is a version 7, and are hashes from there on (RFC
    9562, version 8). So a parent's rows lie side by side in an index, new ones at its end, however many there are.
    """
    hexes, begin = derived_hexes(parent, *parts), parent.hex[:12]
    return lambda last: UUID(int=int(f"{begin}8{hexes(last)[13:]}", 16))


def derived_id(*parts: object) -> UUID:
    """The same id for the same parts, for ever (RFC 9562, version 5)."""
    return uuid5(NAMESPACE, "\x1f".join(str(part) for part in parts))
