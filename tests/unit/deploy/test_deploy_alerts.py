"""The alert rules speak of metrics that the services export, with labels that they have."""

import re
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from tests.unit.deploy.composed import ROOT, composed

import content.app
import distributor.app
import subscriptions.app
from shared.messaging.bus import DeadLetter

APPS = (content.app, subscriptions.app, distributor.app)  # importing them registers what they export
OF_PROMETHEUS = {"up": {"job", "instance"}}
NAME = re.compile(r"\b(?:budkavle_\w+|up)\b")
LABELLED = re.compile(r"(?P<name>\w+)\{(?P<matchers>[^}]*)\}")


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((ROOT / "deploy/observability/alerts.yml").read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def exported() -> dict[str, set[str]]:
    """Sample names and their labels."""
    found = dict(OF_PROMETHEUS)
    for collector in REGISTRY._collector_to_names:
        for name in REGISTRY._collector_to_names[collector]:
            found[name] = set(getattr(collector, "_labelnames", ()))
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_names_what_is_exported(rule: dict[str, Any]) -> None:
    known, expression = exported(), re.sub(r'"[^"]*"', '""', rule["expr"])
    named = set(NAME.findall(expression))
    assert named
    assert named <= known.keys()
    for match in LABELLED.finditer(expression):
        assert set(re.findall(r"(\w+)\s*[=!]", match["matchers"])) <= known[match["name"]]
    for group in re.findall(r"by \((\w+)\)", expression):
        assert all(group in known[name] for name in named)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_says_what_is_broken_and_where_to_look(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "look"}
    mentioned = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    kept = set(re.findall(r"by \((\w+)\)", rule["expr"])) or {"instance"}
    assert mentioned <= kept


def test_what_was_given_up_is_counted_under_the_rules_word() -> None:
    (rule,) = [rule for rule in rules() if rule["alert"] == "BudkavleMessagesGivenUp"]
    assert f'outcome="{DeadLetter.__name__.lower()}"' in rule["expr"]


def test_every_container_of_ours_is_scraped() -> None:
    loaded = yaml.safe_load((ROOT / "deploy/observability/prometheus.yml").read_text())
    names = loaded["scrape_configs"][0]["dns_sd_configs"][0]["names"]
    ours = {name for name in composed()["services"] if name.endswith(("-serve", "-work"))}
    assert set(names) == ours
