"""Makes text of a file as it comes out of a spreadsheet: which encoding, which separator, or why it is no CSV at all.

The file is read through once in pieces before its first line is used, so that a byte that cannot be read on the last
line is told before anything is done; no more than a piece of it is in memory.
"""

import codecs
import io
from typing import BinaryIO

MAX_BYTES = 20_000_000
PIECE = 256_000
DELIMITERS = ";,\t"
SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
DELIMITER_NAMES = {",": ("commas", "komma"), ";": ("semicolons", "semikolon"), "\t": ("tabs", "tabb")}


class Unreadable(Exception):
    """The file as a whole cannot be read: code, message, message in Swedish."""


def opened(source: BinaryIO) -> io.TextIOWrapper:
    """The file's text, from its beginning; `Unreadable` where it is none. The caller detaches it from `source`."""
    encoding = _encoding(source)
    source.seek(0)
    return io.TextIOWrapper(source, encoding, newline="")


def delimiter_of(text: io.TextIOWrapper) -> str:
    """What stands between the values of the first line; the text is at its beginning again."""
    header = text.readline()
    text.seek(0)
    return max(DELIMITERS, key=header.count)


def too_large() -> Unreadable:
    limit = MAX_BYTES // 1_000_000
    return Unreadable(
        "file_too_large",
        f"The file is larger than {limit} MB. Divide it into several.",
        f"Filen är större än {limit} MB. Dela upp den i flera.",
    )


def _encoding(source: BinaryIO) -> str:
    source.seek(0)
    _check_beginning(source.read(8))
    source.seek(0)
    utf_8, windows = codecs.getincrementaldecoder("utf-8")(), codecs.getincrementaldecoder("cp1252")()
    is_utf_8, size, fault = True, 0, None
    while piece := source.read(PIECE):
        size += len(piece)
        if size > MAX_BYTES:
            raise too_large()
        if b"\0" in piece:
            raise _no_text()
        is_utf_8 = is_utf_8 and _decodes(utf_8, piece)
        fault = fault or (size if not _decodes(windows, piece) else None)
    if is_utf_8 and _decodes(utf_8, b"", final=True):
        return "utf-8-sig"
    if fault is not None:
        raise _unreadable_byte(source)
    return "cp1252"


def _check_beginning(first: bytes) -> None:
    if first.startswith(SPREADSHEETS):
        message = "This is a spreadsheet, not CSV. Save it as CSV (semicolon or comma) and send that file."
        raise Unreadable("not_csv", message, "Det här är en Excelfil. Spara den som CSV i Excel och skicka den filen.")
    if first.startswith(UTF_16):
        raise _no_text()


def _decodes(decoder: codecs.IncrementalDecoder, piece: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(piece, final)
    except UnicodeDecodeError:
        return False
    return True


def _no_text() -> Unreadable:
    message = "The file is not text in UTF-8 or Windows-1252. Save it as CSV UTF-8."
    return Unreadable("wrong_encoding", message, "Filen har fel teckenkodning. Spara den som CSV UTF-8.")


def _unreadable_byte(source: BinaryIO) -> Unreadable:
    """Where the first byte stands that Windows-1252 does not have; it is there."""
    source.seek(0)
    line = 1
    while piece := source.read(PIECE):
        try:
            piece.decode("cp1252")
        except UnicodeDecodeError as error:
            line += piece.count(b"\n", 0, error.start)
            break
        line += piece.count(b"\n")
    message = f"A byte on line {line} is neither UTF-8 nor Windows-1252. Save the file as CSV UTF-8."
    message_sv = f"Rad {line} har ett tecken som inte går att läsa. Spara filen som CSV UTF-8."
    return Unreadable("wrong_encoding", message, message_sv)
