"""What a broker is given at its start (docs/adr/0013): the whole topology, and what each service's user may do in it.

    python -m shared.messaging.definitions deploy/docker/rabbitmq/topology.json

A user may declare nothing, read its own queues, and say only what is its service's to say: whoever has taken one
service cannot forge what another says. What several queues hear it may bind to them, which it does before it says it:
the broker confirms what one of them took. The users themselves, with their passwords, are a secret of the deployment.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shared.messaging.rabbitmq_topology import STRAIGHT, Topology
from shared.messaging.topology import DELIVERY, DISTRIBUTOR_NEWS, MAIL, NEWS, QUEUES, RETRY_DELAYS_S, SUBSCRIPTIONS_NEWS

VHOST = "/"
MAY_SAY = {
    "content": {NEWS: r"^news\.", MAIL: r"^mail\.requested\.transactional$"},
    "subscriptions": {MAIL: r"^(mail\.requested|fanout|recipient)\."},
    "distributor": {DELIVERY: r"^delivery\."},
}
"""By service: the exchanges it may publish to, and the routing keys there."""
MAY_BIND = {"content": {NEWS: (SUBSCRIPTIONS_NEWS, DISTRIBUTOR_NEWS)}}
"""By service: the queues that it may bind to an exchange, by no other key than it may say there."""


def definitions() -> dict[str, Any]:
    """The document, as RabbitMQ loads it."""
    topology = Topology(None, QUEUES)
    parts = topology.parts()
    exchanges = dict.fromkeys((*topology.exchanges(), *(name for part in parts for name in part.exchanges)))
    return {
        "vhosts": [{"name": VHOST}],
        "exchanges": [
            {"name": name, "vhost": VHOST, "type": "topic", "durable": True, "auto_delete": False, "arguments": {}}
            for name in exchanges
        ],
        "queues": [
            {
                "name": part.queue,
                "vhost": VHOST,
                "durable": True,
                "auto_delete": False,
                "arguments": dict(part.arguments),
            }
            for part in parts
        ],
        "bindings": [
            {
                "source": exchange,
                "vhost": VHOST,
                "destination": part.queue,
                "destination_type": "queue",
                "routing_key": key,
                "arguments": {},
            }
            for part in parts
            for exchange, key in part.bindings
        ],
        "permissions": [_permissions(service) for service in MAY_SAY],
        "topic_permissions": [
            {"user": service, "vhost": VHOST, "exchange": exchange, "write": keys, "read": _bindable(service, exchange)}
            for service in MAY_SAY
            for exchange, keys in _sayable(service).items()
        ],
    }


def _permissions(service: str) -> dict[str, str]:
    bound = MAY_BIND.get(service, {})
    written = [*_sayable(service), *(queue.name for queues in bound.values() for queue in queues)]
    read = "|".join([rf"{service}\.", *(f"{exchange}$" for exchange in bound)])
    return {"user": service, "vhost": VHOST, "configure": "^$", "write": f"^({_any(written)})$", "read": f"^({read})"}


def _any(names: Iterable[str]) -> str:
    return "|".join(name.replace(".", r"\.") for name in names)


def _bindable(service: str, exchange: str) -> str:
    """The keys by which it may bind a queue to `exchange`."""
    return MAY_SAY[service][exchange] if exchange in MAY_BIND.get(service, {}) else "^$"


def _sayable(service: str) -> dict[str, str]:
    """Its own events, and to its own queues what it puts back or replays."""
    own = rf"^{service}\."
    back = {f"retry.{delay}s": own for delay in RETRY_DELAYS_S}
    return {**MAY_SAY[service], **back, STRAIGHT: own}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(definitions(), indent=1) + "\n", encoding="utf-8")
