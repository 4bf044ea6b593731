"""The reverse proxy, run for real: whose path is whose, what stays inside, what is believed, what is logged."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.deploy.proxy import PLAIN, Proxy

import content.app
import distributor.app
import subscriptions.app

PATHS = {"content": content.app.PATHS, "subscriptions": subscriptions.app.PATHS, "distributor": distributor.app.PATHS}
TABLE = [(path, service) for service, paths in PATHS.items() for path in paths]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(tmp_path_factory.mktemp("proxy")) as running:
        yield running


def get(proxy: Proxy, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    connection.putrequest("GET", path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    answer = response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
    connection.close()
    return answer


@pytest.mark.parametrize(("prefix", "service"), TABLE)
def test_every_path_of_a_service_reaches_it(proxy: Proxy, prefix: str, service: str) -> None:
    """Each service says itself which paths are its own; the proxy's table must agree."""
    for path in (prefix, f"{prefix.rstrip('/')}/vidare/%C3%A5?q=1"):
        status, body, _ = get(proxy, path)
        told = json.loads(body)
        assert (status, told["name"], told["path"]) == (200, service, path)


@pytest.mark.parametrize("path", ["/prenumerationer", "/intranatet", "/api/subscriptionsx/v1", "/apidistributor"])
def test_a_longer_word_is_another_path(proxy: Proxy, path: str) -> None:
    assert json.loads(get(proxy, path)[1])["name"] == "content"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/%6detrics", "/./metrics", "//metrics"])
def test_b41_what_is_for_operations_stays_inside(proxy: Proxy, path: str) -> None:
    assert get(proxy, path)[0] == 404


def test_b18_what_a_client_claims_of_itself_is_not_passed_on(proxy: Proxy) -> None:
    body = get(proxy, "/", X_Forwarded_For="203.0.113.9", X_Forwarded_Proto="https", X_Forwarded_Host="evil.example")[1]
    headers = {name.lower(): value for name, value in json.loads(body)["headers"].items()}
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == f"127.0.0.1:{proxy.port}"


def test_the_services_own_security_headers_pass_and_the_site_asks_for_https(proxy: Proxy) -> None:
    headers = get(proxy, "/")[2]
    assert headers["content-security-policy"] == "default-src 'none'"
    assert headers["strict-transport-security"] == "max-age=31536000"
    assert "server" not in {name for name, value in headers.items() if "caddy" in value.lower()}


@pytest.mark.parametrize(
    "path", ["/api", "/api/content/v1/items", "/%61pi/subscriptions/v1/tasks", "//api/x", "/./api/x"]
)
def test_by_plain_http_the_api_is_refused_and_leads_nowhere(proxy: Proxy, path: str) -> None:
    status, body, headers = get(proxy, path, Host=f"{PLAIN}:{proxy.port}", Authorization="Bearer bk_a_b")
    assert (status, headers["content-type"]) == (403, "application/problem+json")
    assert (json.loads(body)["status"], json.loads(body)["code"]) == (403, "https_required")
    assert "location" not in headers


def test_by_plain_http_a_page_leads_to_the_sites_own_name(proxy: Proxy) -> None:
    status, _, headers = get(proxy, "/nyheter/a%C3%A5?q=1", Host=f"{PLAIN}:{proxy.port}")
    assert (status, headers["location"]) == (308, f"http://127.0.0.1:{proxy.port}/nyheter/a%C3%A5?q=1")


def test_a_service_that_is_away_takes_nobody_with_it_and_no_token_is_logged(tmp_path: Path) -> None:
    with Proxy(tmp_path) as proxy:
        proxy.upstreams["subscriptions"].stop()
        status, body, headers = get(proxy, "/avregistrera/hemlig-nyckel", Authorization="Bearer hemlig-api")
        assert status == 502
        assert "Försök igen" in body.decode()
        assert headers["retry-after"] == "30"
        assert headers["content-type"].startswith("text/html")
        assert json.loads(get(proxy, "/nyheter/en-nyhet")[1])["name"] == "content"
        log = proxy.log.read_text()
    assert "hemlig" not in log
