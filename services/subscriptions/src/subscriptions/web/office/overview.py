"""`/kansli`: what needs somebody's attention. Each question looks at no more than it shows."""

from fastapi import Request, Response

from shared.contracts.vocabulary import MUNICIPALITIES
from shared.http import Reading
from shared.routes import Router
from shared.web.dates import STOCKHOLM
from shared.web.pages import reader_language
from subscriptions import suppressions
from subscriptions.coverage import covered
from subscriptions.imports import imports
from subscriptions.imports.models import ImportState
from subscriptions.suppressions import BY_MAILBOX
from subscriptions.tasks import tasks
from subscriptions.tasks.tasks import TaskState
from subscriptions.web.office import importing
from subscriptions.web.office import tasks as task_pages
from subscriptions.web.office.door import HOME, SignedIn, now, page
from subscriptions.web.office.wording import OfficeWording

router = Router(include_in_schema=False)

SHOWN = 5
COUNTED = 100
"""Counting goes so far: whoever has more knows that it is many."""
UNSETTLED = (ImportState.CHECKED, *imports.AT_WORK)


@router.api_route(HOME, methods=["GET", "HEAD"])
async def home(request: Request, office: SignedIn, session: Reading) -> Response:
    wording, at = OfficeWording(reader_language(request).locale), now(request)
    waiting = await tasks.listing(session, after=None, limit=COUNTED + 1, state=TaskState.OPEN, kind=None)
    unsettled = await imports.in_state(session, UNSETTLED, limit=SHOWN)
    stopped = await suppressions.standing_for(session, sorted(BY_MAILBOX), after=None, limit=COUNTED + 1)
    areas = await covered(session, list(MUNICIPALITIES), at.astimezone(STOCKHOLM).date())
    return page(
        request,
        office,
        "overview.html",
        tasks=[await task_pages.line_of(session, row, wording) for row in waiting[:SHOWN]],
        tasks_waiting=_counted(len(waiting)),
        imports=[importing.line_of(row, wording) for row in unsettled],
        stopped=_counted(len(stopped)),
        lacking=[area.name for area in areas if area.holes],
    )


def _counted(count: int) -> str:
    return str(count) if count <= COUNTED else f"{COUNTED}+"
