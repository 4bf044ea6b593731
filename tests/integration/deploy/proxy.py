"""Caddy with the deployment's own Caddyfile, as a private process in front of upstreams that say who they are."""

import json
import os
import shutil
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.finding import ServerUnavailable, can_install, install
from tests.servers.process import ServerProcess
from tests.servers.run import claim_port
from tests.unit.deploy.composed import ROOT, SERVICES

PLAIN = "plain.example"
"""What the tests call by plain http; the port alone leads to no other block."""


def caddy() -> str:
    """The proxy's program; installed where that is possible."""
    if shutil.which("caddy") is None and can_install():
        install("caddy")
    found = shutil.which("caddy")
    if found is None:
        raise ServerUnavailable("The proxy's tests need Caddy: install caddy (make test as root on Debian does).")
    return found


class Upstream:
    """Answers every request with its name and the request's path and headers."""

    def __init__(self, name: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"name": name, "path": self.path, "headers": dict(self.headers)}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Security-Policy", "default-src 'none'")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Nothing on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Proxy:
    """The whole origin. `with Proxy(directory) as proxy`."""

    def __init__(self, directory: Path) -> None:
        self.port = claim_port()
        self.upstreams = {name: Upstream(name) for name in SERVICES}
        self.log = directory / "caddy.log"
        environment = {
            "PATH": os.defpath,
            "HOME": str(directory),
            "XDG_DATA_HOME": str(directory),
            "XDG_CONFIG_HOME": str(directory),
            "SITE_ADDRESS": f"http://127.0.0.1:{self.port}",
            "PLAIN_ADDRESS": f"http://{PLAIN}:{self.port}",
            **{f"{name.upper()}_UPSTREAM": upstream.address for name, upstream in self.upstreams.items()},
        }
        command = [caddy(), "run", "--adapter", "caddyfile", "--config", str(ROOT / "deploy/docker/proxy/Caddyfile")]
        self._process = ServerProcess(command, self.log, env=environment, cwd=directory)

    def __enter__(self) -> Self:
        self._process.start(lambda: b"serving initial configuration" in self.log.read_bytes(), within=20)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.end(signal.SIGTERM)
        for upstream in self.upstreams.values():
            upstream.stop()
