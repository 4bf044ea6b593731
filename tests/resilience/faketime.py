"""A wrong clock for one process: libfaketime, which Debian packages."""

from pathlib import Path

from tests.servers.finding import ServerUnavailable, can_install, install

LIBRARY = "usr/lib/*/faketime/libfaketimeMT.so.1"
WRONG_CLOCK = {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
"""Beside LD_PRELOAD and FAKETIME: only the time of day is wrong, waits last as long as they should."""


def faketime_library() -> str:
    """Its path; installs it where that is possible."""
    if not _found() and can_install():
        install("faketime")
    if not _found():
        raise ServerUnavailable("The tests of wrong clocks need libfaketime (Debian: faketime).")
    return str(_found()[0])


def _found() -> list[Path]:
    return sorted(Path("/").glob(LIBRARY))
