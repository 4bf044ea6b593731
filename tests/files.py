"""Files as editors send them, and as nobody should: made by libraries where they can be made honestly, by hand where not."""

import io
import struct
import zipfile
import zlib
from typing import Any

from PIL import Image
from pypdf import PdfWriter
from pypdf.actions import JavaScript

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
GPS, CAMERA = 0x8825, 0x010F


def picture(width: int = 60, height: int = 40) -> Image.Image:
    """Dark above, light below, so that it shows which way it is turned."""
    image = Image.new("RGB", (width, height), "black")
    image.paste("white", (0, height // 2, width, height))
    return image


def jpeg(image: Image.Image | None = None, **how: Any) -> bytes:
    return _saved(image or picture(), "JPEG", **how)


def png(image: Image.Image | None = None, **how: Any) -> bytes:
    return _saved(image or picture(), "PNG", **how)


def photograph(orientation: int = 1) -> bytes:
    """As a telephone makes it: with its maker, and where it was."""
    exif = Image.Exif()
    exif[CAMERA], exif[0x0112] = "Kamera AB", orientation
    exif.get_ifd(GPS).update({1: "N", 2: (56.0, 39.0, 46.0)})
    return jpeg(exif=exif, comment=b"Hemlig kommentar")


def pdf(pages: int = 1, **metadata: str) -> bytes:
    return written(document(pages, **metadata))


def document(pages: int = 1, **metadata: str) -> PdfWriter:
    writer = PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(width=595, height=842)
    writer.add_metadata({f"/{name}": value for name, value in metadata.items()})
    return writer


def scripted() -> PdfWriter:
    writer = document()
    writer.add_open_action(JavaScript("app.alert(1)"))
    return writer


def written(writer: PdfWriter) -> bytes:
    target = io.BytesIO()
    writer.write(target)
    return target.getvalue()


def archive(name: str = "a.exe", content: bytes = b"MZ\x90\x00") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, content)
    return target.getvalue()


def pixel_bomb(side: int = 60_000) -> bytes:
    """A PNG of some hundred octets that says it has 3,600 million pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1_000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def png_chunks(content: bytes) -> list[bytes]:
    """The chunks' names, by the PNG specification alone; what stands behind the end raises."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    names, at = [], 8
    while at < len(content):
        length, name = struct.unpack(">I4s", content[at : at + 8])
        data = content[at + 8 : at + 8 + length]
        assert content[at + 8 + length : at + 12 + length] == struct.pack(">I", zlib.crc32(name + data))
        names.append(name)
        at += 12 + length
    assert names[-1] == b"IEND"
    return names


def jpeg_markers(content: bytes) -> list[int]:
    """The markers before the scan, by ITU-T T.81 alone; the end of the image is the end of the file."""
    assert content.startswith(b"\xff\xd8")
    assert content.endswith(b"\xff\xd9")
    found, at = [], 2
    while content[at + 1] != 0xDA:
        assert content[at] == 0xFF
        found.append(content[at + 1])
        at += 2 + int.from_bytes(content[at + 2 : at + 4])
    return found


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **how)
    return target.getvalue()
