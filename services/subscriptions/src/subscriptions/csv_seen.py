"""What stood on which line of a file first, kept beside memory: a file of any length is checked in the same memory.

The keys are hashes, so that no address lies in the file that this makes; the system removes it with its owner.
"""

import sqlite3
from hashlib import blake2b
from types import TracebackType
from typing import Self

CACHE_KIB = 4_000


class Seen:
    """One reading's memory; a context, used by one thread at a time."""

    def __init__(self) -> None:
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KIB}"):
            self._rows.execute(f"PRAGMA {pragma}")
        self._rows.execute("BEGIN")  # one transaction that never ends: each row its own would cost as much again
        self._rows.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, line INTEGER, said BLOB) WITHOUT ROWID")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._rows.close()

    def first(self, line: int, *key: object, said: object = None) -> tuple[int, bool]:
        """The line on which `key` stood first (this one, where it is new), and whether it said the same."""
        hashed, words = _hash(key), _hash(said)
        if self._rows.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (hashed, line, words)).rowcount:
            return line, True
        found = self._rows.execute("SELECT line, said FROM seen WHERE key = ?", (hashed,)).fetchone()
        return int(found[0]), bool(found[1] == words)


def _hash(said: object) -> bytes:
    return blake2b(repr(said).encode(), digest_size=16).digest()
