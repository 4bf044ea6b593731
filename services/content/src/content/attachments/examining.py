"""Has an uploaded file looked through, in a process of its own (docs/adr/0018), and says why it is not taken.

What a file is is told by its bytes, never by its name or by whoever sends it. One file is looked through at a time:
each may need as much memory as the rest of the service.
"""

import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import BinaryIO

import structlog

from content.attachments.kinds import JPEG, MAX_PIXELS, PDF, PNG, Examined, Refused
from shared.problems import RETRY_AFTER_S, Problem, invalid
from shared.uploads import too_large

log = structlog.get_logger()

MAX_FILE_BYTES = 10_000_000
EXAMINER = "content.attachments.examiner"
PATIENCE_S = 30.0
BEGINNINGS = {b"%PDF-": PDF, b"\xff\xd8\xff": JPEG, b"\x89PNG\r\n\x1a\n": PNG}

COMPLAINTS = {
    "empty_file": ("The file is empty. Send it again.", "Filen är tom. Skicka den igen."),
    "unknown_file_type": (
        "Only PDF, JPEG and PNG are taken, whatever the file's name is. Save it as one of them.",
        "Bara PDF, JPEG och PNG går att bifoga, vad filen än heter. Spara den som någon av dem.",
    ),
    "damaged_file": (
        "The file cannot be read to its end. Open it, and save it anew.",
        "Filen går inte att läsa till slutet. Öppna den och spara den på nytt.",
    ),
    "too_many_pixels": (
        f"The image has more than {MAX_PIXELS // 1_000_000} million pixels. Make it smaller.",
        f"Bilden har mer än {MAX_PIXELS // 1_000_000} miljoner bildpunkter. Gör den mindre.",
    ),
    "hidden_data": (
        "There is something behind the document's end, or another file in it. Save it anew as PDF.",
        "Det ligger något efter dokumentets slut, eller en annan fil i det. Spara det på nytt som PDF.",
    ),
    "active_content": (
        (
            "The PDF holds scripts, forms that send, sound, film or other files, or leads to files. "
            "Print it to a new PDF without them."
        ),
        (
            "PDF-filen innehåller skript, formulär som skickar, ljud, film eller andra filer, eller leder till filer. "
            "Skriv ut den till en ny PDF."
        ),
    ),
    "encrypted_file": (
        "The PDF is locked. Save it without a password and without restrictions.",
        "PDF-filen är låst. Spara den utan lösenord och utan begränsningar.",
    ),
}

_one_at_a_time = ThreadPoolExecutor(1, thread_name_prefix="examining")


async def examined(source: BinaryIO) -> tuple[str, Examined]:
    """The file's type, and what is kept of it; a Problem that names the mend where it is not taken."""
    loop, context = asyncio.get_running_loop(), copy_context()
    try:
        return await loop.run_in_executor(_one_at_a_time, context.run, _look_at, source)
    except Refused as refusal:
        code = str(refusal)
        log.info("file_refused", code=code)
        raise invalid("/file", code, *COMPLAINTS[code]) from refusal


def _look_at(source: BinaryIO) -> tuple[str, Examined]:
    content = source.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise too_large(MAX_FILE_BYTES)
    media_type = _type_of(content)
    return media_type, _examine(content, media_type)


def _type_of(content: bytes) -> str:
    for beginning, media_type in BEGINNINGS.items():
        if content.startswith(beginning):
            return media_type
    raise Refused("unknown_file_type" if content else "empty_file")


def _examine(content: bytes, media_type: str) -> Examined:
    command = [sys.executable, "-I", "-m", EXAMINER, media_type]
    try:
        ran = subprocess.run(  # noqa: S603 - our own program; of the file, only one of three types is told
            command, input=content, capture_output=True, env={}, timeout=PATIENCE_S, check=True
        )
    except subprocess.SubprocessError as error:
        log.warning("file_examination_failed", error=type(error).__name__, code=getattr(error, "returncode", None))
        raise Refused("damaged_file") from error
    except OSError as error:  # no memory for a process, or none left
        log.warning("file_examination_failed", error=type(error).__name__, code=error.errno)
        raise Problem(503, headers={"Retry-After": RETRY_AFTER_S}) from error
    line, _, kept = ran.stdout.partition(b"\n")
    told = json.loads(line)
    if "refused" in told:
        raise Refused(told["refused"])
    return Examined(kept, told["width"], told["height"])
