"""Settings that are wrong stop the start with one line and exit status 78; they never show a secret."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from content.settings import ContentSettings
from distributor.settings import DistributorSettings
from shared.settings import Settings, _misspelt
from standalone.settings import StandaloneSettings
from subscriptions.settings import SubscriptionsSettings

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
        ("BROKER_URL", "amqp://user:hunter2@[", "check its host and port"),
        ("BROKER_URL", "amqp://broker:hunter2", "check its host and port"),
        ("PUBLIC_URL", "https://[", "check its host and port"),
        ("PUBLIC_URL", "https://", "check its host and port"),
        ("PUBLIC_URL", "https://a b.example", "the site's address alone"),
        ("PUBLIC_URL", "https://a.example/?hunter2", "the site's address alone"),
        ("PUBLIC_URL", "https://hunter2@a.example", "the site's address alone"),
        ("SECRET_KEYS", None, "is missing"),
        ("SECRET_KEYS", "", "needs at least one key"),
        ("SECRET_KEYS", "hunter2", "at least 32 characters"),
        ("SECRET_KEYS", f"{'a' * 32},hunter2", "at least 32 characters"),
        ("PUBLIC_URL", "nyheter.kalmar.example", "must begin with https://"),
        ("PUBLIC_URL", "http://nyheter.kalmar.example", "must begin with https://"),
        ("PORT", "-1", "greater than or equal to 0"),
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


@pytest.mark.parametrize(("name", "meant"), [("SECRET_KEY", "SECRET_KEYS"), ("DATABSE_URL", "DATABASE_URL")])
def test_b40_a_name_that_nobody_reads_stops_the_start(name: str, meant: str) -> None:
    stopped = start(**{f"BUDKAVLE_{name}": "hunter2"})
    assert stopped.returncode == 78
    assert stopped.stderr == (
        f"budkavle cannot start: BUDKAVLE_{name}: there is no such setting; did you mean BUDKAVLE_{meant}?\n"
    )


def test_one_environment_serves_all_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of one service passes for a slip in another's."""
    kinds = (ContentSettings, SubscriptionsSettings, DistributorSettings, StandaloneSettings)
    for name in {name for kind in kinds for name in kind.model_fields}:
        monkeypatch.setenv(f"BUDKAVLE_{name.upper()}", "x")
    assert [list(_misspelt(kind)) for kind in kinds] == [[], [], [], []]


@pytest.mark.parametrize("kind", [ContentSettings, SubscriptionsSettings, DistributorSettings, StandaloneSettings])
def test_b40_no_limit_can_be_negative(kind: type[Settings]) -> None:
    given = {
        "database_url": "sqlite:///x",
        "broker_url": "embedded:x",
        "secret_keys": "k" * 32,
        "sender": "a@b.example",
    }
    numbers = [name for name, field in kind.model_fields.items() if field.annotation in (int, float)]
    assert numbers
    for name in numbers:
        with pytest.raises(ValidationError) as refused:
            kind(**{key: value for key, value in given.items() if key in kind.model_fields}, **{name: -1})
        assert {detail["loc"][0] for detail in refused.value.errors()} == {name}, name


@pytest.mark.parametrize(
    "url", ["http://localhost:8080", "http://127.0.0.1", "http://subscriptions-serve:8080", "http://10.0.0.7"]
)
def test_without_encryption_it_runs_within_a_network_of_ones_own(url: str) -> None:
    assert start(BUDKAVLE_PUBLIC_URL=url).returncode == 0


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "budkavle_database_url").write_text("sqlite:///from-a-file.sqlite3\n")
    started = start(BUDKAVLE_DATABASE_URL=None, BUDKAVLE_SECRETS_DIR=str(tmp_path))
    assert started.stdout.startswith("sqlite:///from-a-file.sqlite3 "), started.stderr
