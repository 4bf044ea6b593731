"""Prometheus, as an operator runs it: it scrapes the services and judges by the rules of `deploy/observability`, unchanged."""

import json
import shutil
import signal
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.servers.finding import ServerUnavailable, can_install, install
from tests.servers.process import ServerProcess
from tests.servers.run import claim_port, run_directory

RULES = Path(__file__).parents[2] / "deploy/observability/alerts.yml"
CONFIGURATION = """
global: {{ scrape_interval: 5s, evaluation_interval: 5s }}
rule_files: [{rules}]
scrape_configs:
  - job_name: budkavle
    static_configs: [{{ targets: {targets} }}]
"""


class Prometheus:
    """Three times as quick as the example's configuration; the rules' own durations stand."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.port = claim_port()
        self.directory = Path(tempfile.mkdtemp(prefix="prometheus-", dir=run_directory()))
        configuration = self.directory / "prometheus.yml"
        targets = json.dumps([f"127.0.0.1:{port}" for port in ports])
        configuration.write_text(CONFIGURATION.format(rules=RULES, targets=targets))
        options = {
            "config.file": configuration,
            "storage.tsdb.path": self.directory / "data",
            "web.listen-address": f"127.0.0.1:{self.port}",
        }
        command = [_program(), *(f"--{name}={value}" for name, value in options.items())]
        self._server = ServerProcess(command, self.directory / "log", cwd=self.directory)

    def start(self) -> None:
        self._server.start(lambda: bool(self._asked("/-/ready")))

    def remove(self) -> None:
        self._server.end(signal.SIGTERM)
        shutil.rmtree(self.directory, ignore_errors=True)

    def firing(self) -> set[str]:
        """The alarms that sound now."""
        return self._alarms('ALERTS{alertstate="firing"}')

    def fired(self) -> set[str]:
        """Every alarm that has sounded since the start."""
        return self._alarms('max_over_time(ALERTS{alertstate="firing"}[2h])')

    def watched(self) -> int:
        """How many targets answer."""
        return len(self._query("up == 1"))

    def _alarms(self, query: str) -> set[str]:
        return {one["metric"]["alertname"] for one in self._query(query)}

    def _query(self, query: str) -> list[dict[str, Any]]:
        answer = json.loads(self._asked(f"/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def _asked(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            body: bytes = answer.read()
            return body


def _program() -> str:
    if shutil.which("prometheus") is None and can_install():
        install("prometheus")
    if found := shutil.which("prometheus"):
        return found
    raise ServerUnavailable("The tests of alarms need Prometheus (Debian: prometheus).")
