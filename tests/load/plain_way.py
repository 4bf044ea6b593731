"""What one would write first: a Celery task a mail, `EmailMessage` and `smtplib`, on the same broker and into the same sink.

Each worker keeps its connection to the mail server, as one would after the first complaint about speed.

    celery -A tests.load.plain_way worker -P prefork -c 2       the workers
    python -m tests.load.plain_way COUNT                        the one publish call: a task for each recipient

No ledger, no preferences, no personal links, no retry: it is measured doing less.
"""

import json
import os
import smtplib
import sys
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

from celery import Celery

app = Celery("plain_way", broker=os.environ["PLAIN_WAY_BROKER"])
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True
# Beside the queues of ours that share the broker.
app.conf.task_default_queue = f"plain-way-{os.environ['PLAIN_WAY_NAME']}"

texts: dict[str, str] = {}
kept: list[smtplib.SMTP] = []


@app.task(name="send")  # type: ignore[untyped-decorator]  # the publisher runs this module as __main__, which would be another name
def send(recipient: str) -> None:
    if not texts:
        texts.update(json.loads(Path(os.environ["PLAIN_WAY_MAIL"]).read_text()))
    message = EmailMessage()
    message["From"] = texts["from"]
    message["To"] = recipient
    message["Subject"] = texts["subject"]
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="forbundet.example")
    message.set_content(texts["text"])
    message.add_alternative(texts["html"], subtype="html")
    try:
        _server().send_message(message)
    except smtplib.SMTPServerDisconnected:
        kept.clear()
        _server().send_message(message)


def _server() -> smtplib.SMTP:
    if not kept:
        kept.append(smtplib.SMTP("127.0.0.1", int(os.environ["PLAIN_WAY_SMTP_PORT"])))
    return kept[0]


def publish(count: int) -> None:
    for number in range(count):
        send.delay(f"plain.{number:06}@lasare.example")


if __name__ == "__main__":
    publish(int(sys.argv[1]))
