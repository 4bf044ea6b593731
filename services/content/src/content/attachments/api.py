"""The editors' API of an item's files. It parses and calls; `examining` judges a file, `attaching` decides."""

from hashlib import sha256
from typing import Annotated
from uuid import UUID

from fastapi import Depends, File, Form, Path, Request, Response, UploadFile
from pydantic import AfterValidator, BaseModel, Field

from content.attachments import attaching
from content.attachments.examining import MAX_FILE_BYTES, examined
from content.attachments.file_names import neutral
from content.attachments.kinds import PDF
from content.preconditions import OptionalMatch, etag
from content.publishing import Act
from content.wording import MAX_LINE, one_line, visible
from shared.contracts.news import AttachedFile
from shared.http import Writing
from shared.keys import Principal, Writer
from shared.plain_text import EMPTY, SEEN_LINE, TRIMMED, said
from shared.problems import FieldError, Problem, documented, field_error
from shared.routes import Router
from shared.uploads import alone, bounded


def _nothing_or_visible(text: str) -> str:
    return visible(text) if text else text


Words = Annotated[
    str,
    Field(max_length=MAX_LINE),
    said(f"{EMPTY}|{SEEN_LINE}"),
    TRIMMED,
    AfterValidator(one_line),
    AfterValidator(_nothing_or_visible),
]


router = Router(
    prefix="/api/content/v1/items/{item_id}/attachments",
    tags=["attachments"],
    route_class=bounded(MAX_FILE_BYTES),
    responses=documented(401, 403, 404, 409, 412, 422, 503),
)


class Description(BaseModel):
    """What an editor says about a file."""

    title: str
    alt: str
    byline: str
    rights: str

    def missing(self, media_type: str) -> list[FieldError]:
        """Whoever does not see an image is told what it shows, and newsrooms must name who made it."""
        needed = () if media_type == PDF else ("alt", "byline")
        return [field_error({"loc": ("body", name), "type": "missing"}) for name in needed if not getattr(self, name)]


async def _described(
    title: Annotated[
        Words,
        Form(description="what it is called where it is shown; an image's caption", examples=["Verksamhetsplan 2027"]),
    ] = "",
    alt: Annotated[
        Words,
        Form(
            description="what an image shows, for those who do not see it; an image needs it",
            examples=["Fyra personer vid ett bord"],
        ),
    ] = "",
    byline: Annotated[Words, Form(description="who made it; an image needs it", examples=["Åsa Öst"])] = "",
    rights: Annotated[Words, Form(description="what it may be used for", examples=["Fri att använda"])] = "",
) -> Description:
    return Description(title=title, alt=alt, byline=byline, rights=rights)


@router.post(
    "",
    status_code=201,
    responses=documented(400, 413),
    dependencies=[alone("file", *Description.model_fields)],
)
async def attach_file(
    request: Request,
    response: Response,
    item_id: UUID,
    caller: Writer,
    expected: OptionalMatch,
    file: Annotated[UploadFile, File(description="a PDF, JPEG or PNG of at most 10 MB")],
    described: Annotated[Description, Depends(_described)],
) -> AttachedFile:
    """Attach a file to the working copy. An image is written anew, upright, in sRGB and without what the camera noted;
    a PDF is kept as it is. Sending the same file again changes the words about it, so no Idempotency-Key is needed.
    """
    media_type, found = await examined(file.file)
    if faults := described.missing(media_type):
        raise Problem(422, errors=faults)
    attached = AttachedFile(
        sha256=sha256(found.content).hexdigest(),
        name=neutral(file.filename or "", media_type),
        type=media_type,
        size=len(found.content),
        width=found.width,
        height=found.height,
        **described.model_dump(),
    )
    act = _act(request, caller, expected)
    async with request.app.state.database.transaction() as session:  # not while the file is looked through
        item = await attaching.attach(session, item_id, attached, found.content, act)
        response.headers["ETag"] = etag(item)
    response.headers["Location"] = f"/api/content/v1/items/{item_id}"
    return attached


@router.delete("/{sha256}", status_code=204)
async def detach_file(
    request: Request,
    response: Response,
    item_id: UUID,
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
    caller: Writer,
    expected: OptionalMatch,
    session: Writing,
) -> None:
    """Take a file out of the working copy. A published item keeps showing it until it is corrected."""
    item = await attaching.detach(session, item_id, sha256, _act(request, caller, expected))
    response.headers["ETag"] = etag(item)


def _act(request: Request, caller: Principal, expected: frozenset[int] | None) -> Act:
    return Act(caller.key_id, request.app.state.clock.now(), request.app.state.settings.public_url, expected)
