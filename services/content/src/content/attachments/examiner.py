"""A process that looks through one uploaded file and does nothing else: `examining` starts it.

    python -m content.attachments.examiner TYPE
    in      the file
    out     a line of JSON: {"width", "height"} and, behind it, the bytes to be kept; or {"refused": a code}

Of an image nothing is kept but what is seen: it is decoded, turned upright, brought into sRGB at eight bits a channel,
and written anew. What stood beside the pixels (the place it was taken, a thumbnail of what was cut away, another file
behind its end) is not in what we hand out. A PDF is kept to the byte, since it may be signed, and therefore refused if
it does anything by itself, holds other files, or cannot be looked into.

Decoders have had, and will have, faults that a file can reach. Here they find an empty environment, and so much memory
and time as an honest file needs.
"""

import json
import re
import resource
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from io import BytesIO
from typing import Any

from PIL import Image, ImageCms, ImageOps
from pypdf import PdfReader
from pypdf.generic import ArrayObject, DictionaryObject, IndirectObject, StreamObject

from content.attachments.kinds import JPEG, MAX_PIXELS, PDF, PNG, Examined, Refused

MEMORY = 320 * 1024 * 1024
"""Twice the largest image, while it is turned or brought into another colour space, and what is read and written. A
container of content has 512 MB for all that is in it."""
CPU_S = 20
JPEG_QUALITY = 90

# We ask for the size ourselves, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

ACTIONS = {
    *("/JavaScript", "/Launch", "/SubmitForm", "/ImportData", "/GoToE", "/Rendition", "/Movie", "/Sound"),
    *("/RichMediaExecute", "/GoTo3DView", "/GoToR", "/Thread"),
}
ANNOTATIONS = {"/FileAttachment", "/RichMedia", "/3D", "/Movie", "/Sound", "/Screen"}
ACTIVE = {"/JS", "/JavaScript", "/EmbeddedFiles", "/EF", "/XFA", "/AA"}
"""What does something when the document is opened or touched, and what hides another file or leads to one: a path to
somebody's server is enough to be told who reads (ISO 32000-2, 7.11.4, 12.5.6, 12.6). Links to pages and to addresses
are no such thing."""
ON_OPENING = ("", "/GoTo")
"""What may happen when it is opened: it is shown from a page on."""
LED_AWAY = re.compile(r"\s*(?!https?:|mailto:|tel:)([a-z][a-z0-9+.-]*:|[\\/]{2})", re.IGNORECASE)
"""The address of a link that leads to a file, a script or another machine's folder."""


def examine(content: bytes, media_type: str) -> Examined:
    """What is kept of a file that says it is of this type; raises Refused."""
    try:
        return LOOKS[media_type](content)
    except Refused:
        raise
    except Exception as error:  # a decoder raises whatever it likes at what it cannot read
        raise Refused("damaged_file") from error


def _jpeg(content: bytes) -> Examined:
    return _image(content, "JPEG", quality=JPEG_QUALITY)


def _png(content: bytes) -> Examined:
    return _image(content, "PNG")


def _image(content: bytes, kind: str, **how: Any) -> Examined:
    with Image.open(BytesIO(content), formats=[kind]) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Refused("too_many_pixels")
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        seen = _as_seen(image)
        seen.info = {}  # or some of it would be written too
        written = BytesIO()
        seen.save(written, kind, **how)
    return Examined(written.getvalue(), seen.width, seen.height)


def _as_seen(image: Image.Image) -> Image.Image:
    """In sRGB, as a browser would show it; a palette or a profile could hold anything at all."""
    mode = "RGBA" if image.has_transparency_data else "RGB"
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):  # sixteen bits of grey, which `convert` would cut instead of scale
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    if image.mode not in (("L", "RGB", "CMYK") if mode == "RGB" else (mode,)):
        image = image.convert(mode)
    if profile:
        with suppress(ImageCms.PyCMSError, OSError):  # one that does not fit the image, which browsers ignore too
            return _converted(image, profile, mode)
    return image if image.mode == mode else image.convert(mode)


def _converted(image: Image.Image, profile: bytes, mode: str) -> Image.Image:
    own = ImageCms.ImageCmsProfile(BytesIO(profile))
    made = ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode=mode)
    assert made is not None
    return made


def _pdf(content: bytes) -> Examined:
    if not content.rstrip().endswith(b"%%EOF") or _is_zip(content):
        raise Refused("hidden_data")
    reader = PdfReader(BytesIO(content), strict=True)
    if reader.is_encrypted:
        raise Refused("encrypted_file")
    table = deepcopy(reader.xref)
    if any(_is_active(found) for found in _dictionaries(reader)):
        raise Refused("active_content")
    if not len(reader.pages) or reader.xref != table:  # it was mended, which another program might do in another way
        raise Refused("damaged_file")
    return Examined(content)


def _is_zip(content: bytes) -> bool:
    """Whether an unpacker takes it: it reads from the end, and does not mind what stands before."""
    try:
        zipfile.ZipFile(BytesIO(content)).close()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return True


def _dictionaries(reader: PdfReader) -> Iterator[DictionaryObject]:
    """Every one in the file, also those that nothing leads to: another program may find a way."""
    numbers = {(number, generation) for generation, table in reader.xref.items() for number in table}
    numbers |= {(number, 0) for number in reader.xref_objStm}
    objects = (reader.get_object(IndirectObject(number, generation, reader)) for number, generation in numbers)
    for found in (reader.trailer, *objects):
        yield from _within(found)


def _within(found: object) -> Iterator[DictionaryObject]:
    waiting = [found]
    while waiting:
        one = waiting.pop()
        if isinstance(one, DictionaryObject):
            yield one
            waiting += dict.values(one)  # as they stand: what they refer to has a turn of its own
        elif isinstance(one, ArrayObject):
            waiting += list.__iter__(one)


def _is_active(found: DictionaryObject) -> bool:
    return (
        not ACTIVE.isdisjoint(found)
        or _name(found, "/S") in ACTIONS
        or _name(found, "/Subtype") in ANNOTATIONS
        or _name(found, "/Type") == "/EmbeddedFile"
        or _does_on_opening(found)
        or _is_elsewhere(found)
        or LED_AWAY.match(_name(found, "/URI")) is not None
    )


def _does_on_opening(found: DictionaryObject) -> bool:
    """An action; a destination is an array, or a name."""
    action = _value(found, "/OpenAction")
    return isinstance(action, DictionaryObject) and _name(action, "/S") not in ON_OPENING


def _is_elsewhere(found: DictionaryObject) -> bool:
    """Whether what it shows lies in another file."""
    return (isinstance(found, StreamObject) and "/F" in found) or (
        _name(found, "/Subtype") == "/Form" and "/Ref" in found
    )


def _name(found: DictionaryObject, key: str) -> str:
    value = _value(found, key)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def _value(found: DictionaryObject, key: str) -> object:
    value = found.get(key)
    return value.get_object() if isinstance(value, IndirectObject) else value  # `get` does not follow it


LOOKS: dict[str, Callable[[bytes], Examined]] = {PDF: _pdf, JPEG: _jpeg, PNG: _png}


def main() -> None:
    """Look through what comes on standard input."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    content = b""
    told: dict[str, Any]
    try:
        found = examine(sys.stdin.buffer.read(), sys.argv[1])
        content, told = found.content, {"width": found.width, "height": found.height}
    except Refused as refusal:
        told = {"refused": str(refusal)}
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\n" + content)


if __name__ == "__main__":
    main()
