"""A failed test tells what the services said: import the hook into the conftest of a directory."""

from collections.abc import Generator
from typing import Any

import pytest

from tests.deployments import Deployment

MOST_LINES = 40


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        for deployment in Deployment.standing:
            for name, log in deployment.logs().items():
                report.sections.append((f"log of {name}", "\n".join(log.splitlines()[-MOST_LINES:])))
    return report
