"""Who hears what: every exchange, queue and binding of the system, in one place.

News flows on `news`, mails to send and what stops them on `mail`, outcomes on `delivery`. Each queue belongs to one
service and is drained by its replicas together. Undeliverable messages go to the service's dead letters (a table);
`<queue>.dead` is the broker's own backstop for what kills its consumer again and again.
"""

from dataclasses import dataclass

NEWS, MAIL, DELIVERY = "news", "mail", "delivery"
EXCHANGES = (NEWS, MAIL, DELIVERY)

EXCHANGE_BY_PREFIX = {
    "news": NEWS,
    "mail": MAIL,
    "fanout": MAIL,
    "recipient": MAIL,
    "delivery": DELIVERY,
}


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue and the routing keys that reach it (`*` is one word, `#` any number)."""

    name: str
    exchange: str
    keys: tuple[str, ...]

    @property
    def service(self) -> str:
        return self.name.partition(".")[0]

    @property
    def dead(self) -> str:
        return f"{self.name}.dead"


CONTENT_PROGRESS = Queue("content.progress", DELIVERY, ("delivery.progress",))
CONTENT_FANOUTS = Queue("content.fanouts", MAIL, ("fanout.completed",))
SUBSCRIPTIONS_NEWS = Queue("subscriptions.news", NEWS, ("news.*",))
SUBSCRIPTIONS_OUTCOMES = Queue("subscriptions.outcomes", DELIVERY, ("delivery.bounced", "delivery.complained"))
DISTRIBUTOR_NEWS = Queue("distributor.news", NEWS, ("news.*",))
DISTRIBUTOR_RECIPIENTS = Queue("distributor.recipients", MAIL, ("recipient.*",))
# One queue a lane, so that a press release passes a digest under way.
DISTRIBUTOR_TRANSACTIONAL = Queue("distributor.mail.transactional", MAIL, ("mail.requested.transactional",))
DISTRIBUTOR_PRESS = Queue("distributor.mail.press", MAIL, ("mail.requested.press",))
DISTRIBUTOR_NEWS_MAIL = Queue("distributor.mail.news", MAIL, ("mail.requested.news",))
DISTRIBUTOR_DIGEST = Queue("distributor.mail.digest", MAIL, ("mail.requested.digest",))

DISTRIBUTOR_MAIL_LANES = (
    DISTRIBUTOR_TRANSACTIONAL,
    DISTRIBUTOR_PRESS,
    DISTRIBUTOR_NEWS_MAIL,
    DISTRIBUTOR_DIGEST,
)
QUEUES = (
    CONTENT_PROGRESS,
    CONTENT_FANOUTS,
    SUBSCRIPTIONS_NEWS,
    SUBSCRIPTIONS_OUTCOMES,
    DISTRIBUTOR_NEWS,
    DISTRIBUTOR_RECIPIENTS,
    *DISTRIBUTOR_MAIL_LANES,
)

BULK = ("mail.requested.news", "mail.requested.digest")
"""What comes in thousands and is large: it travels a few at a time, and whatever else waits goes first."""

RETRY_DELAYS_S = (1, 5, 15, 60)
"""Waits between the tries of one message: five tries in under two minutes, then a dead letter. RabbitMQ has a waiting
queue for each (`retry.5s`), because messages of different waits in one queue would hold each other up."""

BROKER_DELIVERY_LIMIT = 20
"""Redeliveries after which the broker itself gives a message up: a backstop, for messages that kill their consumer."""


def exchange_of(event_name: str) -> str:
    """The exchange that an event is published on."""
    return EXCHANGE_BY_PREFIX[event_name.partition(".")[0]]


def matches(pattern: str, key: str) -> bool:
    """Whether a routing key fits a topic pattern (AMQP 0-9-1, topic exchange)."""
    return _words_match(pattern.split("."), key.split("."))


def _words_match(pattern: list[str], key: list[str]) -> bool:
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(_words_match(pattern[1:], key[skip:]) for skip in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and _words_match(pattern[1:], key[1:])
