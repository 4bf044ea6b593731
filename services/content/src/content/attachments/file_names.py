"""Names of files: harmless in a folder, in a header and in an address, whatever they were called when they came.

A name is only ever told, to whoever saves the file; nothing is stored under it.
"""

import re
import unicodedata
from urllib.parse import quote

from content.slugs import slug_of

MAX_OCTETS = 200
"""File systems take 255, and the extension is still to come."""
EXTENSIONS = {"application/pdf": ".pdf", "image/jpeg": ".jpg", "image/png": ".png"}
UNTITLED = "fil"

SAME_TYPE = re.compile(r"\.(pdf|jpe?g|jfif|png)$", re.IGNORECASE)
NOT_IN_NAMES = re.compile(r'[<>:"|?*%.]+')
"""What Windows refuses; what begins an escape in an address; dots, of which one is left: that of the extension."""
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
"""Devices on Windows, whatever the extension."""


def neutral(name: str, media_type: str) -> str:
    """The last part of `name`, visible and in NFC, with the extension of what the file was found to be."""
    last = re.split(r"[/\\]", name)[-1]
    visible = "".join(character for character in last if unicodedata.category(character) not in INVISIBLE)
    stem = NOT_IN_NAMES.sub("-", SAME_TYPE.sub("", unicodedata.normalize("NFC", visible)))
    stem = " ".join(stem.split()).strip("-~ ").encode()[:MAX_OCTETS].decode(errors="ignore").rstrip()
    if not stem or RESERVED.fullmatch(stem):
        stem = "-".join(part for part in (UNTITLED, stem) if part)
    return stem + EXTENSIONS[media_type]


def in_address(name: str) -> str:
    """The same in a-z, digits and hyphens: an address that a mail can break nowhere, and anybody can type."""
    stem, _, extension = name.rpartition(".")
    return f"{slug_of(stem) or UNTITLED}.{extension}"


def disposition(kind: str, name: str) -> str:
    """Content-Disposition (RFC 6266): the name in ASCII for old programs, and as it is (RFC 8187)."""
    return f"{kind}; filename=\"{in_address(name)}\"; filename*=UTF-8''{quote(name, safe='')}"
