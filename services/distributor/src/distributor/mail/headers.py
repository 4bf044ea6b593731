"""Header fields as bytes: folded, encoded (RFC 2047), and never more than the one field that was asked for.

Every value is cleaned of control characters first, so that no title or name can begin a field of its own. What is not
plain ASCII, or could be mistaken for an encoded word, goes through the standard library's UTF-8 encoder.
"""

import unicodedata
from email.header import Header
from email.utils import quote

LINE_LENGTH = 76
"""RFC 2047 allows 76 octets to a line with an encoded word."""

SPECIALS = frozenset('()<>@,:;.[]"\\')


def clean(text: str) -> str:
    """One line without control characters or stray surrogates; runs of white space become one space."""
    visible = "".join(" " if unicodedata.category(letter) in {"Cc", "Zl", "Zp", "Cs"} else letter for letter in text)
    return " ".join(visible.split())


def unstructured(name: str, value: str) -> bytes:
    """A field of free text, such as Subject."""
    text = clean(value)
    if text.isascii() and "=?" not in text and len(name) + 2 + len(text) <= LINE_LENGTH:
        return f"{name}: {text}\r\n".encode()
    return field(name, _encoded(name, text))


def mailbox(name: str, display_name: str, address: str) -> bytes:
    """A field with one mailbox. `address` is ready for the wire."""
    return field(name, f"{phrase(name, display_name)} <{address}>".lstrip())


def list_id(display_name: str, identifier: str) -> bytes:
    """RFC 2919: a phrase and a name in the domain of the list's owner."""
    return field("List-Id", f"{phrase('List-Id', display_name)}\n <{identifier}>")


def phrase(name: str, text: str) -> str:
    """`text` as a phrase (RFC 5322): plain, quoted or encoded words."""
    text = clean(text)
    if not text.isascii() or "=?" in text or len(name) + len(text) > LINE_LENGTH - 6:
        return _encoded(name, text)
    return f'"{quote(text)}"' if SPECIALS & set(text) else text


def field(name: str, folded: str) -> bytes:
    """A field whose value is already safe; its folds are line feeds followed by white space."""
    return f"{name}: {folded}\r\n".replace("\r\n", "\n").replace("\n", "\r\n").encode()


def _encoded(name: str, text: str) -> str:
    return Header(text, "utf-8", maxlinelen=LINE_LENGTH, header_name=name).encode(linesep="\n")
