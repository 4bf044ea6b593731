"""The list of the erased: a file outside the databases that says who was erased, by id alone and one a line.

A backup brings erased people back; this file, which no backup holds and none is put back over, says who they are. It
is only ever added to, each time through to the disk. A line that a crash has torn is none; the next one begins anew.
Several processes may write: a line goes in by one write at the file's end.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

PAGE = 500
LONGEST_LINE = 200


@dataclass(frozen=True, slots=True)
class ErasedFile:
    """The file; it need not be there yet. Everything here blocks."""

    path: Path

    def exists(self) -> bool:
        return self.path.exists()

    def add(self, erased: Iterable[tuple[UUID, datetime]]) -> None:
        """Write ids with the instants of their erasure; they are on disk when this returns."""
        lines = "".join(f"{at.isoformat()} {recipient_id}\n" for recipient_id, at in erased)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            told = lines if self._is_whole(handle) else f"\n{lines}"
            if os.write(handle, told.encode()) < len(told):
                raise OSError("the list of the erased took a part of a line only")
            os.fsync(handle)
        finally:
            os.close(handle)
        self._keep_name()

    def last(self) -> UUID | None:
        """The newest id; none where the file is empty or not there."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - 2 * LONGEST_LINE, 0))
                lines = file.read().splitlines()
        except FileNotFoundError:
            return None
        return next((found for found in map(_id_in, reversed(lines)) if found is not None), None)

    def pages(self) -> Iterator[list[UUID]]:
        """All ids, some hundred at a time."""
        page: list[UUID] = []
        try:
            with self.path.open("rb") as file:
                for line in file:
                    found = _id_in(line)
                    page += [] if found is None else [found]
                    if len(page) == PAGE:
                        yield page
                        page = []
        except FileNotFoundError:
            return
        yield page

    def _is_whole(self, handle: int) -> bool:
        size = os.fstat(handle).st_size
        return not size or os.pread(handle, 1, size - 1) == b"\n"

    def _keep_name(self) -> None:
        """A new file's name is in its directory, which is on disk only when it is told so."""
        handle = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _id_in(line: bytes) -> UUID | None:
    """The id of a whole line; none of a torn one, whose rest may look like another's."""
    _, _, told = line.strip().rpartition(b" ")
    try:
        return UUID(told.decode("ascii")) if len(told) == len(str(UUID(int=0))) else None
    except ValueError:
        return None
