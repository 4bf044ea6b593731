"""The first start's script, run on a real server: a database and two roles per service, closed to the others."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from tests.servers.postgres import PrivatePostgres, plain, postgres_binaries
from tests.unit.deploy.composed import ROOT, SERVICES

from shared import migrations


@pytest.fixture
def first_start(private_postgres: PrivatePostgres, tmp_path: Path) -> tuple[PrivatePostgres, Path]:
    """The server after its first start, and the secrets it was started with."""
    subprocess.run([sys.executable, ROOT / "deploy/docker/make-secrets", tmp_path], check=True, capture_output=True)
    # In the image the script speaks to the server's socket; here to a port, and the superuser has another name.
    tools = os.pathsep.join([str(postgres_binaries()), os.environ.get("PATH", os.defpath)])
    assert shutil.which("psql", path=tools)
    told = {"PATH": tools, "PGHOST": "127.0.0.1", "PGPORT": str(private_postgres.port)}
    told |= {"POSTGRES_USER": "budkavle", "BUDKAVLE_SECRETS_DIR": str(tmp_path)}
    script = ROOT / "deploy/docker/postgres/10-databases.sh"
    done = subprocess.run([script], env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return private_postgres, tmp_path


@pytest.fixture
def migrated(first_start: tuple[PrivatePostgres, Path]) -> PrivatePostgres:
    """By each service's own command, as its owner."""
    server, _ = first_start
    for service in SERVICES:
        spec = find_spec(service)
        assert spec is not None
        assert spec.origin is not None
        address = f"postgresql://{service}_owner@127.0.0.1:{server.port}/{service}"
        migrations.upgrade(Path(spec.origin).parent / "migrations", address)
    return server


def connected(server: PrivatePostgres, user: str, database: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(host="127.0.0.1", port=server.port, user=user, dbname=database, autocommit=True)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_uses_what_another_role_has_made_and_changes_no_table(
    migrated: PrivatePostgres, service: str
) -> None:
    """Nor can it open another's database, in its own name or in its owner's."""
    with connected(migrated, service, service) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        tables = [str(row[0]) for row in found]
        assert "outbox" in tables
        for table in tables:
            granted = "SELECT bool_and(has_table_privilege(%s, p)) FROM unnest(%s::text[]) p"
            row = connection.execute(granted, [table, ["SELECT", "INSERT", "UPDATE", "DELETE"]]).fetchone()
            assert row == (True,), table
            for change in (f"ALTER TABLE {table} ADD x int", f"DROP TABLE {table}", f"TRUNCATE {table}"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(change.encode())
        for change in ("CREATE TABLE mine (id int)", f"SET ROLE {service}_owner", "CREATE ROLE another"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(change.encode())
    for other in (*SERVICES, "postgres"):
        for user in (service, f"{service}_owner"):
            if other != service:
                with pytest.raises(psycopg.OperationalError, match="permission denied"):
                    connected(migrated, user, other)


def test_the_roles_have_the_passwords_of_the_files_and_no_power(first_start: tuple[PrivatePostgres, Path]) -> None:
    """The test's server asks for no password; it is told to."""
    server, secrets = first_start
    with psycopg.connect(plain(server.url)) as connection:
        for service in (*SERVICES, *(f"{service}_owner" for service in SERVICES)):
            row = connection.execute(
                "SELECT rolpassword, rolsuper, rolcreatedb, rolcreaterole FROM pg_authid WHERE rolname = %s", [service]
            ).fetchone()
            assert row is not None
            assert row[0].startswith("SCRAM-SHA-256$")
            assert row[1:] == (False, False, False)
    password = (secrets / "content_database_password").read_text().strip()
    with psycopg.connect(plain(server.url), autocommit=True) as connection:
        hba = connection.execute("SHOW hba_file").fetchone()
        assert hba is not None
        Path(hba[0]).write_text("host all budkavle 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        connection.execute("SELECT pg_reload_conf()")
    address = {"host": "127.0.0.1", "port": server.port, "user": "content", "dbname": "content"}
    psycopg.connect(**address, password=password).close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**address, password=password[:-1])
