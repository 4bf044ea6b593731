"""What an editor is told of links that are taken and may still surprise: an open line, and a name in foreign letters.

Some sites have no other line, and some have such names: so they are no faults. But a name in letters that look like
ours can be somebody else's, and whoever publishes it lends it our own.
"""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from content.fields import ItemFields
from shared.problems import FAULTS_NAMED, FieldError, pointer_to

IN_PROSE = re.compile(r"https?://[^\s<>()\[\]\"'`|*]{1,2000}", re.IGNORECASE)
PUNYCODE = "xn--"
USUAL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.:åäöéüæøà")
"""In names of Swedish and neighbouring sites; a colon in an address of IPv6."""


def link_warnings(fields: ItemFields) -> list[FieldError]:
    """Each by its field, the same once, and no more than of faults."""
    found = {(pointer, code): told for pointer, url in _links(fields) for code, told in _about(url)}
    named = list(found.items())[:FAULTS_NAMED]
    return [
        FieldError(pointer=at, code=code, message=told, message_sv=told_sv) for (at, code), (told, told_sv) in named
    ]


def _links(fields: ItemFields) -> Iterator[tuple[str, str]]:
    for name in ("links", "images"):
        for index, one in enumerate(getattr(fields, name)):
            yield pointer_to(name, index, "url"), one.url
    for name in ("original_url", "lead", "body", "popular_version"):
        for url in IN_PROSE.findall(getattr(fields, name)):
            yield pointer_to(name), url


def _about(url: str) -> Iterator[tuple[str, tuple[str, str]]]:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:  # no address, whatever it looks like in a text
        return
    if parts.scheme == "http":
        told = "The link is not encrypted. Write https:// if the site has it."
        yield "unencrypted_link", (told, "Länken är inte krypterad. Skriv https:// om webbplatsen har det.")
    if not set(_shown(host)) <= USUAL:
        told = f"The name {host} has letters that can look like others. Check that it is the site you mean."
        told_sv = f"Namnet {host} har bokstäver som kan likna andra. Kontrollera att det är rätt webbplats."
        yield "foreign_letters", (told, told_sv)


def _shown(host: str) -> str:
    """The name as a browser may show it; as it stands where that cannot be told."""
    try:
        labels = [_label(label) for label in host.split(".")]
    except UnicodeError:
        return PUNYCODE + "?"
    return ".".join(labels)


def _label(label: str) -> str:
    return label.removeprefix(PUNYCODE).encode().decode("punycode") if label.startswith(PUNYCODE) else label
