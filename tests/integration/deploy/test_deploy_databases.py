"""The first start's script, run on a real server: a database and a role per service, closed to the others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from tests.servers.postgres import PrivatePostgres, plain, postgres_binaries
from tests.unit.deploy.composed import ROOT, SERVICES


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


def test_each_service_owns_its_database_and_opens_no_other(first_start: tuple[PrivatePostgres, Path]) -> None:
    server, _ = first_start
    for service in SERVICES:
        with psycopg.connect(host="127.0.0.1", port=server.port, user=service, dbname=service) as connection:
            connection.execute("CREATE TABLE shown (id int)")
        for other in (*SERVICES, "postgres"):
            if other != service:
                with pytest.raises(psycopg.OperationalError, match="permission denied"):
                    psycopg.connect(host="127.0.0.1", port=server.port, user=service, dbname=other)


def test_the_roles_have_the_passwords_of_the_files_and_no_power(first_start: tuple[PrivatePostgres, Path]) -> None:
    """The test's server asks for no password; it is told to."""
    server, secrets = first_start
    with psycopg.connect(plain(server.url)) as connection:
        for service in SERVICES:
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
