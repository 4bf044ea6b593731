"""Who is measured beside us, on the same sink: Celery's plain way, and nodemailer's pool where node is at hand."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.load.arrivals import Arrivals
from tests.servers.process import ServerProcess
from tests.servers.rabbitmq import shared_amqp_url
from tests.servers.sink import SinkProcess

LIMIT_S = 600.0
ROOT = Path(__file__).parents[2]
NODEMAILER = "nodemailer@10.6.0"


class PlainWay:
    """Celery's workers, running; `send` is its one publish call."""

    def __init__(self, sink: SinkProcess, sample: Path, directory: Path) -> None:
        self._sink = sink
        self._told = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "PLAIN_WAY_BROKER": shared_amqp_url().partition("?")[0],
            "PLAIN_WAY_NAME": str(os.getpid()),
            "PLAIN_WAY_MAIL": str(sample),
            "PLAIN_WAY_SMTP_PORT": str(sink.port),
        }
        arguments = ["-A", "tests.load.plain_way", "worker", "-P", "prefork", "-c", "2", "-l", "info"]
        command = [sys.executable, "-m", "celery", *arguments]
        self._worker = ServerProcess(command, directory / "celery.log", env=self._told, cwd=ROOT)
        self._worker.start(lambda: b" ready." in self._worker.log.read_bytes(), within=60)

    def send(self, count: int) -> float:
        """Seconds from the call to the last of `count` mails accepted."""
        arrivals = Arrivals(self._sink)
        began = time.time()
        command = [sys.executable, "-m", "tests.load.plain_way", str(count)]
        with subprocess.Popen(command, env=self._told, cwd=ROOT) as sender:
            taken = arrivals.wait(count, within=LIMIT_S).last - began
            assert sender.wait() == 0
        return taken

    def pids(self) -> list[int]:
        return self._worker.family()

    def stop(self) -> None:
        self._worker.kill()


class NodemailerPool:
    """Sends from one call; no broker, no ledger. `at_hand` is false without node, or without a registry to have it from."""

    def __init__(self, sink: SinkProcess, sample: Path, directory: Path) -> None:
        self._sink = sink
        self._sample = sample
        self._directory = directory
        self.at_hand = self._install()

    def _install(self) -> bool:
        if not (shutil.which("node") and shutil.which("npm")):
            return False
        command = [
            "npm",
            "install",
            "--no-save",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(self._directory),
            NODEMAILER,
        ]
        try:
            return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def send(self, count: int) -> float:
        """Seconds from the call, node's start included, to the last of `count` mails accepted."""
        arrivals = Arrivals(self._sink)
        began = time.time()
        script = str(Path(__file__).with_name("nodemailer_pool.mjs"))
        command = ["node", script, str(self._sink.port), str(count), str(self._sample)]
        with subprocess.Popen(command, env={**os.environ, "NODEMAILER_AT": str(self._directory)}) as sender:
            taken = arrivals.wait(count, within=LIMIT_S).last - began
            assert sender.wait() == 0
        return taken
