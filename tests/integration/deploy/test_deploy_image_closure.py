"""What the Dockerfile's build stage does, done in an empty directory: the service runs, and carries no other's code."""

import http.client
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.servers.process import ServerProcess
from tests.servers.run import claim_port
from tests.unit.deploy.composed import ROOT, SERVICES
from tests.unit.deploy.dockerfile import copied, stages, syncs


def uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    assert found, "make setup puts uv beside the interpreter"
    return found


def copy_context(build: Path, service: str) -> None:
    """COPY, as Docker does it: a destination that ends in a slash is a directory, a directory's contents are copied."""
    for sources, destination in copied(stages(service)[0]):
        for source in sources:
            target = build / destination
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
                continue
            target = target / Path(source).name if destination.endswith("/") else target
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, target)


def image(tmp_path: Path, service: str) -> Path:
    """The interpreter of the installed environment; the source it was built from is gone."""
    build, environment = tmp_path / "build", tmp_path / "installed"
    build.mkdir()
    copy_context(build, service)
    variables = {
        "UV_PROJECT_ENVIRONMENT": str(environment),
        "UV_PYTHON": sys.executable,
        "UV_PYTHON_DOWNLOADS": "never",
    }
    for arguments in syncs(stages(service)[0]):
        command = [uv(), *arguments, "--quiet"]
        inherited = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
        done = subprocess.run(
            command, cwd=build, env=inherited | variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    shutil.rmtree(build)
    return environment / "bin/python"


def answer(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_from_its_own_closure_alone(tmp_path: Path, service: str) -> None:
    python = image(tmp_path, service)
    others = [name for name in (*SERVICES, "standalone", "pytest") if name != service]
    probe = "import importlib.util, sys; sys.exit(any(importlib.util.find_spec(name) for name in sys.argv[1:]))"
    subprocess.run([python, "-c", probe, *others], check=True, cwd=tmp_path)

    port = claim_port()
    told = {
        "PATH": os.defpath,
        "BUDKAVLE_DATABASE_URL": f"sqlite:///{tmp_path}/{service}.sqlite3",
        "BUDKAVLE_BROKER_URL": f"embedded:{tmp_path}/bus.sqlite3",
        "BUDKAVLE_SECRET_KEYS": "0" * 64,
        "BUDKAVLE_HOST": "127.0.0.1",
        "BUDKAVLE_PORT": str(port),
    }
    subprocess.run([python, "-m", service, "migrate"], check=True, cwd=tmp_path, env=told, capture_output=True)
    server = ServerProcess([python, "-m", service, "serve"], tmp_path / "serve.log", cwd=tmp_path, env=told)
    server.start(lambda: answer(port, "/readyz") == 200, within=60)
    assert answer(port, f"/api/{service}/openapi.json") == 200
    server.end(signal.SIGTERM)
