"""Writes down what the services say to one another: a JSON Schema per event, an AsyncAPI document, and a table.

    python -m shared.messaging.documents docs

All of it comes from the contracts and the topology, so it cannot be wrong, only old; a test sees to that. A change that
would break a consumer of a version that is already published is refused, with a sentence for each break: give the
event a new version instead.

Sources: https://www.asyncapi.com/docs/reference/specification/v3.0.0 ,
https://github.com/asyncapi/bindings/tree/master/amqp (0.3.0)
"""

import json
import sys
from pathlib import Path
from typing import Any

from shared.contracts import delivery, mail, news
from shared.contracts.envelope import CONTENT_TYPE, Envelope, Event
from shared.messaging.compatibility import breaking_changes
from shared.messaging.topology import QUEUES, Queue, exchange_of, matches

CONTENT, SUBSCRIPTIONS, DISTRIBUTOR = "content", "subscriptions", "distributor"
SAID_BY: dict[type[Event], tuple[str, ...]] = {
    news.NewsPublished: (CONTENT,),
    news.NewsCorrected: (CONTENT,),
    news.NewsWithdrawn: (CONTENT,),
    mail.MailRequested: (SUBSCRIPTIONS, CONTENT),
    mail.FanoutCompleted: (SUBSCRIPTIONS,),
    mail.RecipientStopped: (SUBSCRIPTIONS,),
    mail.RecipientResumed: (SUBSCRIPTIONS,),
    mail.RecipientErased: (SUBSCRIPTIONS,),
    delivery.DeliveryProgress: (DISTRIBUTOR,),
    delivery.DeliveryBounced: (DISTRIBUTOR,),
    delivery.DeliveryComplained: (DISTRIBUTOR,),
}
BASE_URL = "https://budkavle.example/events/"


DESCRIPTION = (
    "What content, subscriptions and distributor say to one another over the broker. Delivery is at least once and in "
    "no promised order; `id` is the same on every repeat."
)
TABLE = """# Events

What the services say to one another, as [CloudEvents](https://cloudevents.io) in JSON. A queue's first word is the
service that drains it. Written by `python -m shared.messaging.documents docs`; the same for programs, as AsyncAPI, is
in [events/asyncapi.json](events/asyncapi.json).

| event | said by | heard by | what it means |
|---|---|---|---|
{rows}

Delivery is at least once and in no promised order: `id` is the same on every repeat, and consumers compare revisions,
sequences or versions. A consumer ignores fields that it does not know and parks a version that it does not know. A
field may be added with a default; whatever else must change becomes a new version of the event.
"""


class Breaks(Exception):
    """The change would break what is published."""


def schema(event: type[Event]) -> dict[str, Any]:
    """JSON Schema (2020-12) of the whole CloudEvent, envelope and data."""
    envelope, data = Envelope.model_json_schema(), event.model_json_schema()
    definitions = data.pop("$defs", {})
    envelope["properties"]["type"] = {"const": event.event_type()}
    envelope["properties"]["data"] = {"$ref": f"#/$defs/{event.__name__}"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{BASE_URL}{event.event_type()}.json",
        **envelope,
        "title": event.event_type(),
        "description": summary(event),
        "$defs": {**definitions, event.__name__: data},
    }


def summary(event: type[Event]) -> str:
    """The first sentence of what the contract says of the event."""
    words = " ".join((event.__doc__ or "").split())
    return words.split(". ")[0].rstrip(".") + "."


def hears(event: type[Event]) -> list[Queue]:
    """The queues that the event reaches; of an event with lanes, one for each."""
    return [
        queue for queue in QUEUES if any(matches(key, address) for key in queue.keys for address in addresses(event))
    ]


def addresses(event: type[Event]) -> list[str]:
    """The routing keys that the event travels under."""
    if event is mail.MailRequested:
        return [f"{event.event_name}.{lane}" for lane in mail.Lane]
    return [event.event_name]


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Budkavle",
            "version": "1.0.0",
            "description": DESCRIPTION,
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {"broker": {"host": "localhost:5672", "protocol": "amqp", "protocolVersion": "0.9.1"}},
        "channels": {_key(event.event_name): _channel(event) for event in SAID_BY},
        "operations": {key: value for event in SAID_BY for key, value in _operations(event)},
        "components": {"messages": {_key(event.event_name): _message(event) for event in SAID_BY}},
    }


def _key(name: str) -> str:
    return name.replace(".", "_")


def _channel(event: type[Event]) -> dict[str, Any]:
    exchange = {"name": exchange_of(event.event_name), "type": "topic", "durable": True, "autoDelete": False}
    channel: dict[str, Any] = {
        "address": event.event_name,
        "messages": {_key(event.event_name): {"$ref": f"#/components/messages/{_key(event.event_name)}"}},
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": "0.3.0"}},
    }
    if event is mail.MailRequested:
        channel["address"] += ".{lane}"
        channel["parameters"] = {"lane": {"enum": [str(lane) for lane in mail.Lane], "description": mail.Lane.__doc__}}
    return channel


def _operations(event: type[Event]) -> list[tuple[str, dict[str, Any]]]:
    name = _key(event.event_name)
    said = [(f"{service}_says_{name}", _operation("send", name, f"said by {service}")) for service in SAID_BY[event]]
    heard = [
        (f"{_key(queue.name)}_hears_{name}", _operation("receive", name, f"heard by {queue.service} ({queue.name})"))
        for queue in hears(event)
    ]
    return said + heard


def _operation(action: str, channel: str, title: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "title": title}


def _message(event: type[Event]) -> dict[str, Any]:
    return {
        "name": event.event_type(),
        "summary": summary(event),
        "contentType": CONTENT_TYPE,
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"./{event.event_type()}.json"},
        },
    }


def table() -> str:
    """`events.md`: who says what, and who hears it."""
    return TABLE.format(rows="\n".join(_row(event) for event in SAID_BY))


def _row(event: type[Event]) -> str:
    name = f"[`{event.event_name}`](events/{event.event_type()}.json) v{event.event_version}"
    heard_by = ", ".join(f"`{queue.name}`" for queue in hears(event))
    return f"| {name} | {', '.join(SAID_BY[event])} | {heard_by} | {summary(event)} |"


def documents() -> dict[str, str]:
    """Every file, by its place below `docs`."""
    schemas = {f"events/{event.event_type()}.json": _json(schema(event)) for event in SAID_BY}
    return {**schemas, "events/asyncapi.json": _json(asyncapi()), "events.md": table()}


def write(folder: Path) -> None:
    """Write them; raises `Breaks` where a published event would change in a way that its consumers notice."""
    breaks = [sentence for event in SAID_BY for sentence in _breaks(folder, event)]
    if breaks:
        raise Breaks("\n".join(breaks))
    for place, text in documents().items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _breaks(folder: Path, event: type[Event]) -> list[str]:
    published = folder / "events" / f"{event.event_type()}.json"
    if not published.exists():
        return []
    found = breaking_changes(json.loads(published.read_text(encoding="utf-8")), schema(event))
    return [f"{event.event_type()}: {sentence}" for sentence in found]


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    try:
        write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
    except Breaks as refusal:
        sys.exit(f"{refusal}\nGive the event a new version instead.")
