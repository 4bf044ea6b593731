"""docker-compose.yml: what can be shown without an engine. No image is built and no container started here."""

import re

import compose_spec
import pytest
import yaml
from pydantic_settings import BaseSettings
from tests.unit.deploy.composed import GIVEN, ROOT, SERVICES, Refused, composed, interpolated, variables

from content.settings import ContentSettings
from distributor.settings import DistributorSettings
from standalone.settings import StandaloneSettings
from subscriptions.settings import SubscriptionsSettings

OF_THE_DEPLOYMENT = {"SITE_ADDRESS", "EDGE_SUBNET", "IMAGE_TAG"}
OUTSIDE_THE_SETTINGS = {"BUDKAVLE_SECRETS_DIR"}  # where the settings' secrets lie: read before them
LEFT_ALONE = {  # the image's own: its address, its name (drawn), its form of logs; and what is for tests
    "BUDKAVLE_HOST",
    "BUDKAVLE_PORT",
    "BUDKAVLE_INSTANCE",
    "BUDKAVLE_LOG_FORMAT",
    "BUDKAVLE_RETRY_SCALE",
    "BUDKAVLE_WEBHOOK_ALLOW_LOOPBACK",
}
FILES_THAT_SETTINGS_NAME = {"dkim.pem"}  # BUDKAVLE_DKIM_KEYS=selector=/run/secrets/dkim.pem
SETTINGS: dict[str, type[BaseSettings]] = {
    "content": ContentSettings,
    "subscriptions": SubscriptionsSettings,
    "distributor": DistributorSettings,
}
OURS = [f"{service}-{part}" for service in SERVICES for part in ("migrate", "serve", "work")]


def names_of(*kinds: type[BaseSettings]) -> set[str]:
    return {f"BUDKAVLE_{field.upper()}" for kind in kinds for field in kind.model_fields}


def test_compose_accepts_the_file() -> None:
    """By the Compose specification: known keys, well-formed values, and no network, volume or secret that is not there."""
    parsed = compose_spec.PyCompose.from_yaml(yaml.safe_dump(composed()))
    parsed.validate()
    assert set(parsed.service_names()) == {*OURS, "operator", "proxy", "postgres", "rabbitmq"}


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_nothing_starts_without_what_only_the_operator_knows(missing: str) -> None:
    with pytest.raises(Refused, match=missing):
        interpolated({name: value for name, value in GIVEN.items() if name != missing})


def test_every_variable_is_a_setting() -> None:
    known = names_of(*SETTINGS.values()) | OF_THE_DEPLOYMENT
    assert variables() <= known
    example = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"(?m)^#?([A-Z][A-Z_]*)=", example))
    assert named <= known
    assert variables() <= named, "what may be set stands in .env.example"
    assert not named & {"BUDKAVLE_SECRET_KEYS", "BUDKAVLE_ADMIN_KEY", "BUDKAVLE_SMTP_URL"}, "secrets are files"


def test_every_setting_has_its_place() -> None:
    """A file of Compose's secrets, a line of the file itself, or one of .env.example; but for what tests alone set."""
    file, example = ((ROOT / name).read_text() for name in ("docker-compose.yml", ".env.example"))
    placed = {f"BUDKAVLE_{name.upper()}" for name in re.findall(r"target: budkavle_(\w+)", file)}
    placed |= set(re.findall(r"BUDKAVLE_[A-Z_]+", file + example))
    assert names_of(*SETTINGS.values()) - placed == LEFT_ALONE


def test_the_example_gives_no_value_that_must_be_chosen() -> None:
    example = (ROOT / ".env.example").read_text()
    for name in GIVEN:
        assert re.search(rf"(?m)^{name}=$", example)


@pytest.mark.parametrize("name", OURS)
def test_what_a_container_is_told_is_what_its_service_reads(name: str) -> None:
    service = name.partition("-")[0]
    container = composed()["services"][name]
    known = names_of(SETTINGS[service]) | OUTSIDE_THE_SETTINGS
    assert set(container["environment"]) <= known
    secrets = {secret["target"] for secret in container["secrets"]}
    assert {secret.upper() for secret in secrets - FILES_THAT_SETTINGS_NAME} <= known
    assert {"budkavle_database_url", "budkavle_broker_url", "budkavle_secret_keys"} <= secrets
    login = f"{service}_migration_url" if name.endswith("migrate") else f"{service}_database_url"
    for way, source in (("database_url", login), ("broker_url", f"{service}_broker_url")):
        own = [secret["source"] for secret in container["secrets"] if secret["target"] == f"budkavle_{way}"]
        assert own == [source]


@pytest.mark.parametrize("name", OURS)
def test_a_container_runs_one_command_of_its_own_service(name: str) -> None:
    service, _, command = name.partition("-")
    container = composed()["services"][name]
    assert container["command"] == [service, command]
    assert container["build"]["args"] == {"SERVICE": service}


@pytest.mark.parametrize("name", OURS)
def test_a_container_can_do_little_but_its_work(name: str) -> None:
    container = composed()["services"][name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["tmpfs"] == ["/tmp"]
    assert "ports" not in container
    own = {"subscriptions-work": ["./deploy/docker/erased/list:/erased"]}
    assert container.get("volumes", []) == own.get(name, [])
    assert "memory" in container["deploy"]["resources"]["limits"]


@pytest.mark.parametrize("service", SERVICES)
def test_the_database_is_migrated_before_anything_uses_it(service: str) -> None:
    services = composed()["services"]
    for part in ("serve", "work"):
        needs = services[f"{service}-{part}"]["depends_on"]
        assert needs[f"{service}-migrate"] == {"condition": "service_completed_successfully"}
    migration = services[f"{service}-migrate"]
    assert migration["restart"] == "no"
    assert migration["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_only_the_proxy_is_reached_from_outside_and_only_by_its_networks() -> None:
    services = composed()["services"]
    assert [name for name, container in services.items() if "ports" in container] == ["proxy"]
    assert services["proxy"]["networks"] == ["edge"]
    on_edge = {name for name, container in services.items() if "edge" in container["networks"]}
    assert on_edge == {"proxy", "operator", *(f"{service}-serve" for service in SERVICES)}
    assert composed()["networks"]["inner"] == {"internal": True}
    assert [name for name, container in services.items() if "outside" in container["networks"]] == ["distributor-work"]


def test_the_proxy_is_believed_and_nobody_else() -> None:
    told = composed({**GIVEN, "EDGE_SUBNET": "10.99.0.0/24"})
    assert told["networks"]["edge"]["ipam"]["config"] == [{"subnet": "10.99.0.0/24"}]
    for name in OURS:
        assert told["services"][name]["environment"]["BUDKAVLE_TRUSTED_PROXIES"] == "10.99.0.0/24"


def test_the_operators_command_line_reaches_every_database_and_runs_only_when_asked() -> None:
    operator = composed()["services"]["operator"]
    assert operator["profiles"] == ["operator"]
    told = {secret["target"].upper() for secret in operator["secrets"]}
    assert told <= names_of(StandaloneSettings)
    assert {f"BUDKAVLE_{service.upper()}_DATABASE_URL" for service in SERVICES} <= told


def test_the_list_of_the_erased_is_one_file_for_who_writes_it_and_who_asks_it() -> None:
    services = composed()["services"]
    for name in ("subscriptions-work", "operator"):
        assert services[name]["environment"]["BUDKAVLE_ERASED_FILE"] == "/erased/erased.txt"
        assert "./deploy/docker/erased/list:/erased" in services[name]["volumes"]


def test_every_secret_is_made_or_asked_for() -> None:
    files = {secret["file"].removeprefix("deploy/docker/secrets/") for secret in composed()["secrets"].values()}
    script = (ROOT / "deploy/docker/make-secrets").read_text()
    for name in files:
        service = name.partition("_")[0]
        assert name in script or name.replace(service, "{service}") in script


def test_every_mounted_file_is_there() -> None:
    for container in composed()["services"].values():
        for volume in container.get("volumes", ()):
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (ROOT / source).exists(), source


def test_the_demo_is_not_needed_to_know_the_settings() -> None:
    """What standalone alone is told has no place in the deployment of three."""
    alone = names_of(StandaloneSettings) - names_of(*SETTINGS.values())
    assert not alone & variables()


@pytest.mark.parametrize("name", ["serve", "work"])
def test_bounces_and_signing_can_be_chosen_without_touching_the_file(name: str) -> None:
    """In .env, and in files that are made empty: then neither is on."""
    container = composed()["services"][f"distributor-{name}"]
    secrets = {secret["target"] for secret in container["secrets"]}
    assert {"budkavle_bounce_mailbox_url", "dkim.pem"} <= secrets
    example, guide = (ROOT / ".env.example").read_text(), (ROOT / "deploy/README.md").read_text()
    for setting in ("BUDKAVLE_BOUNCE_ADDRESS", "BUDKAVLE_BOUNCE_LISTEN", "BUDKAVLE_DKIM_KEYS"):
        assert re.search(rf"(?m)^#{setting}=", example)
        assert setting in guide
    assert "=/run/secrets/dkim.pem" in example


def test_the_operator_can_import_a_file_of_the_host() -> None:
    operator = composed()["services"]["operator"]
    assert "./deploy/docker/import:/import:ro" in operator["volumes"]
    assert operator["environment"]["BUDKAVLE_PUBLIC_URL"] == "http://subscriptions-serve:8080"
    assert "operator import /import/" in (ROOT / "deploy/README.md").read_text()


@pytest.mark.parametrize(
    ("given", "site", "plain"),
    [({}, GIVEN["BUDKAVLE_PUBLIC_URL"], "http://"), ({"SITE_ADDRESS": ":80"}, ":80", "http://plain.invalid")],
)
def test_the_proxy_knows_plain_http_as_such_where_it_ends_tls(given: dict[str, str], site: str, plain: str) -> None:
    """Where another server does, all that comes to port 80 is the site's."""
    environment = composed(GIVEN | given)["services"]["proxy"]["environment"]
    assert (environment["SITE_ADDRESS"], environment["PLAIN_ADDRESS"]) == (site, plain)
