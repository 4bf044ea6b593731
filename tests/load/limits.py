"""What the machine can do at most, measured in the same run: commits on its disk, RSA signatures on a core."""

import os
import re
import subprocess
import time
from pathlib import Path

import psycopg
from tests.servers.postgres import create_database, drop_database, plain, shared_postgres_url

SECONDS = 2.0


def commits_a_second() -> float:
    """One connection to the benches' PostgreSQL, one row a commit, one after the other."""
    url = create_database(shared_postgres_url())
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute("CREATE TABLE t (i int)")
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            connection.execute("INSERT INTO t VALUES (1)")
            count += 1
    drop_database(url, shared_postgres_url())
    return count / SECONDS


def syncs_a_second(directory: Path) -> float:
    """8 kB appended and synced, as SQLite does with a commit."""
    began, count = time.perf_counter(), 0
    with (directory / "synced").open("wb", buffering=0) as file:
        while time.perf_counter() - began < SECONDS:
            file.write(bytes(8192))
            os.fdatasync(file.fileno())
            count += 1
    return count / SECONDS


def signatures_a_second() -> float:
    """RSA-2048 on one core, by `openssl speed`."""
    command = ["openssl", "speed", "-seconds", "2", "rsa2048"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"rsa\s+2048 bits\s+\S+\s+\S+\s+([\d.]+)", said)
    assert found is not None, said
    return float(found[1])
