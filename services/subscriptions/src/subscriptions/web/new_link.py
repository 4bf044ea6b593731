"""`/prenumeration`: mails a new link to whoever's link has ended. The answer is the same for every address."""

from fastapi import Request, Response

from shared.contracts.news import Locale
from shared.routes import Router
from shared.web.origins import refuse_cross_site
from shared.web.pages import FormError, reader_language
from shared.web.visits import PRIVATE
from subscriptions import addresses, linking
from subscriptions.addresses import InvalidAddress
from subscriptions.limits import TooOften
from subscriptions.web.limiting import count_asks, pausing, refusal
from subscriptions.web.posting import read_form, text

router = Router(include_in_schema=False)


@router.api_route("/prenumeration", methods=["GET", "HEAD"])
async def ask(request: Request) -> Response:
    return _page(request)


@router.post("/prenumeration")
async def send(request: Request) -> Response:
    refuse_cross_site(request)
    typed = text(await read_form(request), "email")
    try:
        address = addresses.parse(typed)
    except InvalidAddress as error:
        message = error.message_sv if reader_language(request).locale is Locale.SV else error.message
        return _page(request, typed, [FormError("email", message)], status=422)
    state = request.app.state
    now = state.clock.now()
    try:
        async with state.database.transaction() as session:
            await count_asks(session, request, address, now)
            await linking.mail_link(session, state.links, address, now)
    except TooOften as error:
        return pausing(request, error, _page(request, typed, [refusal(request, error)], status=429))
    return _page(request, is_sent=True)


def _page(
    request: Request,
    typed: str = "",
    errors: list[FormError] | None = None,
    *,
    is_sent: bool = False,
    status: int = 200,
) -> Response:
    answer: Response = request.app.state.pages.render(
        request,
        "new_link.html",
        status=status,
        headers=PRIVATE,
        typed=typed,
        errors=errors or [],
        is_sent=is_sent,
    )
    return answer
