"""Every kind of mail that the three services can send, read out of their sources: a new kind is found without being told."""

import ast
from collections.abc import Iterator
from pathlib import Path

from distributor.webhooks.contact_mail import Condition, ContactMail, Occasion
from distributor.webhooks.links import EndpointLinks
from shared.contracts.mail import Form
from shared.ids import new_id
from shared.tokens import TokenSigner

SERVICES = Path(__file__).parents[2] / "services"
IN_READY_WORDS = {"mailing.py", "contact_mail.py"}
FORMS = frozenset(Form) - {Form.SIGN_IN}
"""What a delivery's form can be. The contract has a word for sign-in links; no service sends any."""


def subjects(endpoint: str) -> set[str]:
    """Of all mails in ready words, in Swedish; those to an intranet's contact name its `endpoint`."""
    makers = {file.name for file, _ in _calls("RequestContent")}
    assert makers == IN_READY_WORDS, "somebody else makes mails, whose subjects have to be found too"
    found = [_text(call.args[1]) for _, call in _calls("Words")]
    assert len(set(found)) == len(found), "two kinds that nobody can tell apart"
    return {*found, *_to_contacts(endpoint)}


def _to_contacts(endpoint: str) -> Iterator[str]:
    links = EndpointLinks("https://nyheter.example", TokenSigner(["k" * 40]))
    words = ContactMail(links, "kansli@forbundet.example").words
    condition = Condition(
        endpoint_id=new_id(),
        generation=1,
        name=endpoint,
        url="https://intranet.example",
        contact_email="webb@intranet.example",
        failures=4,
        failing_since=None,
        last_status=500,
        last_phase="",
        disabled_reason=None,
    )
    return (words(occasion, condition).subject for occasion in Occasion)


def _calls(name: str) -> Iterator[tuple[Path, ast.Call]]:
    for file in SERVICES.glob("*/src/**/*.py"):
        source = file.read_text()
        if f"{name}(" in source:
            nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
            yield from ((file, node) for node in nodes if _name(node.func) == name)


def _name(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def _text(marked: ast.expr) -> str:
    """Of `_("…")`."""
    assert isinstance(marked, ast.Call)
    return str(ast.literal_eval(marked.args[0]))
