"""`/nyheter/…/filer/…`: an item's files, for as long as the item has them.

The address names the bytes, so what it once gave it always gives. It is asked for anew each time all the same: a file
that is withdrawn with its item, or taken out of it by a correction, is gone at once. No browser takes one for anything
but what it is (nosniff, a policy without any right); a PDF is saved, not opened within the site.
"""

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from content import repository
from content.attachments.file_names import disposition
from content.attachments.kinds import PDF
from content.attachments.repository import parts
from content.fields import ItemFields
from content.models import ItemRevision
from content.snapshots import digits
from content.web.caching import ALWAYS_ASK, is_known, unchanged
from content.web.public import READS, SitePages, withdrawn
from shared.contracts.news import AttachedFile, ItemState
from shared.http import Reading
from shared.problems import Problem
from shared.routes import Router
from shared.web.pages import Reader

NO_RIGHTS = "default-src 'none'; sandbox; frame-ancestors 'none'"

router = Router(include_in_schema=False)


@router.api_route("/nyheter/{slug}/filer/{wanted}/{name}", methods=READS)
async def attached_file(
    request: Request, slug: str, wanted: str, name: str, pages: SitePages, reader: Reader, session: Reading
) -> Response:
    """A file of an item, under whatever name; or what is told of it since the item was withdrawn."""
    found = await repository.by_slug(session, slug)
    if found is None:
        raise Problem(404)
    item, newest = found
    if item.state == ItemState.WITHDRAWN:
        return withdrawn(request, found, pages, reader)
    file = _found(wanted, newest)
    if file is None:
        earlier = await repository.revisions(session, item.id)
        raise Problem(410 if any(_found(wanted, revision) for revision in earlier) else 404)
    return _answer(request, file)


def _found(wanted: str, revision: ItemRevision) -> AttachedFile | None:
    files = ItemFields.model_validate(revision.fields).attachments
    return next((file for file in files if digits(file) == wanted), None)


def _answer(request: Request, file: AttachedFile) -> Response:
    tag = f'"{file.sha256}"'
    headers = {
        "ETag": tag,
        "Cache-Control": ALWAYS_ASK,
        "Content-Length": str(file.size),
        "Content-Disposition": disposition("attachment" if file.type == PDF else "inline", file.name),
        "Content-Security-Policy": NO_RIGHTS,
    }
    if is_known(request, tag):
        return unchanged(headers)
    if request.method == "HEAD":
        return Response(headers=headers, media_type=file.type)
    content = parts(request.app.state.database, file.sha256, file.size)
    return StreamingResponse(content, headers=headers, media_type=file.type)
