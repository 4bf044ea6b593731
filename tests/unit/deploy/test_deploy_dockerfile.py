"""The image of a service: made of its own member and shared, not root, ended and asked after properly."""

import json
import re
import tomllib

import pytest
from tests.unit.deploy.composed import ROOT, SERVICES
from tests.unit.deploy.dockerfile import copied, stages, syncs

from shared.settings import Settings


@pytest.mark.parametrize("service", SERVICES)
def test_only_shared_and_the_service_itself_are_copied(service: str) -> None:
    build, final = stages(service)
    sources = {source for group, _ in copied(build) for source in group}
    allowed = ("pyproject.toml", "uv.lock", "shared/", f"services/{service}/")
    assert all(source.startswith(allowed) for source in sources), sources
    assert all((ROOT / source).exists() for source in sources)
    assert copied(final) == []


@pytest.mark.parametrize("service", SERVICES)
def test_the_closure_in_the_lock_holds_no_other_service(service: str) -> None:
    packages = {package["name"]: package for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    closure: set[str] = set()
    ahead = [f"budkavle-{service}"]
    while ahead:
        name = ahead.pop()
        if name not in closure:
            closure.add(name)
            ahead += [dependency["name"] for dependency in packages[name].get("dependencies", ())]
    assert {name for name in closure if name.startswith("budkavle-")} == {f"budkavle-{service}", "budkavle-shared"}
    assert not closure & {"pytest", "celery", "typer", "budkavle-standalone"}


def test_the_lock_decides_and_nothing_of_the_workshop_is_installed() -> None:
    for command in syncs(stages("content")[0]):
        assert {"--frozen", "--no-dev", "--no-editable"} <= set(command)


@pytest.mark.parametrize("file", ["service.Dockerfile", "operator.Dockerfile"])
def test_the_builder_is_the_uv_that_make_uses(file: str) -> None:
    pinned = re.search(r"(?m)^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text())
    assert pinned is not None
    assert f"uv=={pinned[1]}" in (ROOT / "deploy/docker" / file).read_text()


def test_both_stages_have_the_interpreter_that_the_packages_were_built_for() -> None:
    images = [stage[0].rest.split()[0] for stage in stages("content")]
    assert len(set(images)) == 1
    assert re.fullmatch(r"python:3\.11-slim-\w+", images[0])


def test_the_container_is_not_root_ends_on_sigterm_and_needs_no_shell() -> None:
    final = {step.word: step.rest for step in stages("content")[1]}
    assert final["USER"] == "10001:10001"
    assert final["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(final["ENTRYPOINT"]) == ["python", "-m"]
    assert "RUN" not in final
    check = json.loads(final["HEALTHCHECK"].partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "healthcheck", "exec")
    assert str(Settings.model_fields["port"].default) in check[2]


def test_the_builder_is_sent_no_secret_and_no_history() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {line for line in lines if line.startswith("!")} == {
        "!pyproject.toml",
        "!uv.lock",
        "!shared/pyproject.toml",
        "!shared/src",
        "!services/*/pyproject.toml",
        "!services/*/src",
        "!deploy/standalone/pyproject.toml",
        "!deploy/standalone/src",
    }
