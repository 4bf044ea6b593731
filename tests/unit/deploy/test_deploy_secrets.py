"""make-secrets: strong, never overwritten, and readable by the settings as files."""

import base64
import hashlib
import json
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.unit.deploy.composed import ROOT, SERVICES, composed

from distributor.settings import DistributorSettings
from shared.settings import MIN_SECRET_LENGTH, load


def make(folder: Path) -> str:
    script = ROOT / "deploy/docker/make-secrets"
    return subprocess.run([sys.executable, script, folder], check=True, capture_output=True, text=True).stdout


def test_two_starts_share_no_secret(tmp_path: Path) -> None:
    for name in ("first", "second"):
        make(tmp_path / name)
    one, other = ({path.name: path.read_text() for path in (tmp_path / name).iterdir()} for name in ("first", "second"))
    assert one.keys() == other.keys()
    assert {name for name in one if not one[name].strip()} == {"bounce_mailbox_url", "dkim_key"}  # not in use
    assert not [name for name in one if one[name].strip() and one[name] == other[name]]
    assert len(one["secret_keys"].strip()) >= 2 * MIN_SECRET_LENGTH


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path / "secrets")
    before = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    make(tmp_path / "secrets")
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == before


def test_the_mail_relay_is_not_invented(tmp_path: Path) -> None:
    assert "smtp_url" in make(tmp_path / "secrets")
    made = {path.name for path in (tmp_path / "secrets").iterdir()}
    wanted = {Path(secret["file"]).name for secret in composed()["secrets"].values()}
    assert wanted - made == {"smtp_url"}


def test_the_directory_is_its_owners_alone_and_the_files_are_read_by_the_containers_user(tmp_path: Path) -> None:
    make(tmp_path / "secrets")
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o444}


def test_the_passwords_are_the_same_on_both_sides(tmp_path: Path) -> None:
    make(tmp_path)
    for service in SERVICES:
        password = (tmp_path / f"{service}_database_password").read_text().strip()
        url = (tmp_path / f"{service}_database_url").read_text().strip()
        assert url == f"postgresql://{service}:{password}@postgres:5432/{service}"
        password = (tmp_path / f"{service}_owner_password").read_text().strip()
        url = (tmp_path / f"{service}_migration_url").read_text().strip()
        assert url == f"postgresql://{service}_owner:{password}@postgres:5432/{service}"
    users = json.loads((tmp_path / "rabbitmq_users.json").read_text())["users"]
    assert [user["name"] for user in users] == list(SERVICES)
    for user in users:
        broker = urlsplit((tmp_path / f"{user['name']}_broker_url").read_text().strip())
        assert (broker.username, broker.hostname, broker.query) == (user["name"], "rabbitmq", "topology=given")
        salted = base64.b64decode(user["password_hash"])
        assert salted[4:] == hashlib.sha256(salted[:4] + (broker.password or "").encode()).digest()


def test_a_service_reads_its_secrets_as_compose_hands_them_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, mounted = tmp_path / "secrets", tmp_path / "run"
    make(made)
    (made / "smtp_url").write_text("smtp://mail.forbundet.example:587?starttls=required\n")
    mounted.mkdir()
    files = composed()["secrets"]
    for secret in composed()["services"]["distributor-work"]["secrets"]:
        content = (made / Path(files[secret["source"]]["file"]).name).read_text()
        (mounted / secret["target"]).write_text(content)
    monkeypatch.setenv("BUDKAVLE_SECRETS_DIR", str(mounted))
    settings = load(DistributorSettings)
    assert settings.database_url == (made / "distributor_database_url").read_text().strip()
    assert settings.secret_keys[0].get_secret_value() == (made / "secret_keys").read_text().strip()
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == (made / "admin_key").read_text().strip()
    assert settings.smtp_url.get_secret_value() == "smtp://mail.forbundet.example:587?starttls=required"
