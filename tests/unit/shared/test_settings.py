"""Settings that are wrong stop the start with one line and exit status 78; they never show a secret."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = {
    "BUDKAVLE_DATABASE_URL": "postgresql://user:hunter2@db/content",
    "BUDKAVLE_BROKER_URL": "amqp://guest:hunter2@broker/",
    "BUDKAVLE_SECRET_KEYS": f"{'a' * 32}, {'b' * 32}",
    "BUDKAVLE_ADMIN_KEY": "hunter2",
}
PROGRAM = """
from shared.settings import Settings, load
settings = load(Settings)
print(settings.database_url, len(settings.secret_keys), settings.public_url)
print(repr(settings.admin_key), settings.secret_keys)
"""


def start(**changes: str | None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in {**os.environ, **GOOD, **changes}.items() if value is not None}
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)


def test_good_settings_are_read() -> None:
    started = start(BUDKAVLE_PUBLIC_URL="https://nyheter.kalmar.example/")
    assert (started.returncode, started.stderr) == (0, "")
    first, second = started.stdout.splitlines()
    assert first == "postgresql://user:hunter2@db/content 2 https://nyheter.kalmar.example"
    assert "hunter2" not in second and "aaaa" not in second


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DATABASE_URL", None, "is missing"),
        ("DATABASE_URL", "", "is not a database URL"),
        ("DATABASE_URL", "mysql://user:hunter2@db/x", "must begin with postgresql:// or sqlite:///"),
        ("DATABASE_URL", "hunter2", "is not a database URL"),
        ("BROKER_URL", None, "is missing"),
        ("BROKER_URL", "http://hunter2", "must begin with amqp://, amqps:// or embedded:"),
        ("SECRET_KEYS", None, "is missing"),
        ("SECRET_KEYS", "", "needs at least one key"),
        ("SECRET_KEYS", "hunter2", "at least 32 characters"),
        ("SECRET_KEYS", f"{'a' * 32},hunter2", "at least 32 characters"),
        ("PUBLIC_URL", "nyheter.kalmar.example", "must begin with https://"),
        ("PORT", "eighty", "integer"),
        ("PORT", "65536", "65535"),
        ("LOG_FORMAT", "xml", "json|console"),
    ],
)
def test_b40_a_wrong_value_stops_the_start_with_one_line_that_names_it(name: str, value: str | None, says: str) -> None:
    stopped = start(**{f"BUDKAVLE_{name}": value})
    assert stopped.returncode == 78
    (line,) = stopped.stderr.splitlines()
    assert line.startswith(f"budkavle cannot start: BUDKAVLE_{name}: ") and says in line
    assert "hunter2" not in line + stopped.stdout


def test_b40_several_faults_are_told_at_once() -> None:
    stopped = start(BUDKAVLE_DATABASE_URL=None, BUDKAVLE_PORT="x")
    (line,) = stopped.stderr.splitlines()
    assert "BUDKAVLE_DATABASE_URL" in line and "BUDKAVLE_PORT" in line


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "budkavle_database_url").write_text("sqlite:///from-a-file.sqlite3\n")
    started = start(BUDKAVLE_DATABASE_URL=None, BUDKAVLE_SECRETS_DIR=str(tmp_path))
    assert started.stdout.startswith("sqlite:///from-a-file.sqlite3 "), started.stderr
