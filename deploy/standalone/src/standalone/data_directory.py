"""The directory that holds a standalone Budkavle: databases, bus, caught mail, and the secrets made at the first start.

It belongs to one process at a time. Secrets are written whole or not at all, readable by their owner alone.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEMO = "demo"
"""Where a demo keeps its data, in the data directory."""


class DirectoryInUse(Exception):
    """Another process works in the directory."""


class DataDirectory:
    """Names every file in one place."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def create(self) -> None:
        """Make the directory, readable by its owner alone; it may exist."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def database_file(self, name: str) -> Path:
        """The SQLite file called `name`."""
        return self.path / f"{name}.sqlite3"

    def database_url(self, name: str) -> str:
        """The URL of the SQLite file called `name`."""
        return f"sqlite:///{self.database_file(name)}"

    @property
    def broker_url(self) -> str:
        return f"embedded:{self.path / 'bus.sqlite3'}"

    def secret_keys(self) -> str:
        """The keys that sign links, made at the first start."""
        key, _ = self._keep("secret-keys", secrets.token_hex(32))
        return key

    @property
    def erased_file(self) -> Path:
        """The list of the erased, which a copy of the directory that is put back must not take the place of."""
        return self.path / "erased.txt"

    @property
    def admin_key_file(self) -> Path:
        return self.path / "admin-key"

    def admin_key(self) -> tuple[str, bool]:
        """The administrator's API key, and whether it was made just now."""
        return self._keep(self.admin_key_file.name, f"bk_admin_{secrets.token_urlsafe(32)}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out for the length of the block; raises `DirectoryInUse` when one is in."""
        handle = os.open(self.path / "in-use.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise DirectoryInUse(f"{self.path} is in use by another Budkavle; stop that one first") from error
        try:
            yield
        finally:
            os.close(handle)

    def kept_admin_key(self) -> str | None:
        """The administrator's key, if one was made here."""
        path = self.admin_key_file
        return path.read_text(encoding="ascii").strip() if path.exists() else None

    def _keep(self, name: str, fresh: str) -> tuple[str, bool]:
        path = self.path / name
        if path.exists():
            return path.read_text(encoding="ascii").strip(), False
        draft = self.path / f"{name}.{secrets.token_hex(4)}"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(fresh + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # never over one that another process has just made
        except FileExistsError:
            return path.read_text(encoding="ascii").strip(), False
        finally:
            draft.unlink()
        return fresh, True
