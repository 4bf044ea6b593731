"""Three RabbitMQ nodes that form one cluster, on loopback: any of them may be killed, or parted from the others.

They are parted as Erlang nodes are: each side holds a cookie for the other that the other does not accept, so that no
connection between them stands or comes about, while clients reach both. A node in the minority pauses (`pause_minority`, as
`deploy/` would have it): it closes its clients' connections and takes none until it sees the others again.
"""

import secrets
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.servers.rabbitmq import Epmd, PrivateRabbitMQ, speaks_amqp
from tests.servers.run import claim_port, run_directory

SIZE = 3


class RabbitMQCluster:
    """`nodes` are the members; each has its own `url`."""

    def __init__(self) -> None:
        self._epmd = Epmd(claim_port(), Path(tempfile.mkdtemp(prefix="epmd-", dir=run_directory())) / "log")
        self._cookie = secrets.token_hex(10).upper()
        self.nodes = [PrivateRabbitMQ(epmd_port=self._epmd.port) for _ in range(SIZE)]
        for node in self.nodes:
            self._make_member(node)

    def _make_member(self, node: PrivateRabbitMQ) -> None:
        cookie = node.directory / ".erlang.cookie"
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)
        with (node.directory / "rabbitmq.conf").open("a") as conf:
            conf.write("cluster_partition_handling = pause_minority\n")
            conf.write("cluster_formation.peer_discovery_backend = classic_config\n")
            for number, member in enumerate(self.nodes, start=1):
                conf.write(f"cluster_formation.classic_config.nodes.{number} = {member.node}\n")

    def start(self) -> None:
        """The first makes the cluster, the others join it."""
        self._epmd.start()
        for node in self.nodes:
            node.start()

    def remove(self) -> None:
        for node in self.nodes:
            node.remove()
        self._epmd.kill()

    def leader(self) -> PrivateRabbitMQ:
        """The node that leads most queues; asked of any that answers."""
        alive = next(node for node in self.nodes if speaks_amqp("127.0.0.1", node.port))
        led = alive.control("list_queues", "--no-table-headers", "leader").split()
        return max(self.nodes, key=lambda node: led.count(node.node))

    def part(self, apart: PrivateRabbitMQ) -> None:
        """The node sees none of the others, nor they it."""
        self._between(apart, "erlang:set_cookie('{other}', apart), erlang:disconnect_node('{other}').")

    def join(self, apart: PrivateRabbitMQ) -> None:
        self._between(apart, f"erlang:set_cookie('{{other}}', '{self._cookie}').")

    def _between(self, apart: PrivateRabbitMQ, expression: str) -> None:
        others = [node for node in self.nodes if node is not apart]
        pairs = [(here, there) for node in others for here, there in ((node, apart), (apart, node))]
        with ThreadPoolExecutor(len(pairs)) as pool:
            for _ in pool.map(lambda pair: pair[0].control("eval", expression.format(other=pair[1].node)), pairs):
                pass
