"""Forms are UTF-8, as our pages and the API's documents are, whatever a client says of its own.

A `multipart/form-data` body has no charset of its own (RFC 7578, section 5.1.2). Its reader knows one all the same, and
decodes in any codec that Python has: some of them give what is no text, and some take seconds.
"""

from collections.abc import MutableMapping
from typing import Any

from python_multipart.multipart import parse_options_header

MULTIPART = b"multipart/form-data"


def in_utf8(scope: MutableMapping[str, Any]) -> dict[str, Any]:
    """The request, saying nothing of a charset."""
    headers = [(name, _plain(value) if name == b"content-type" else value) for name, value in scope["headers"]]
    return {**scope, "headers": headers}


def _plain(content_type: bytes) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != MULTIPART or b"boundary" not in options:
        return content_type
    boundary = options[b"boundary"].replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return MULTIPART + b'; boundary="' + boundary + b'"'
