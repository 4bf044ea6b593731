"""`/prenumerera/personuppgifter`: what we keep of whom, why, how long, what everybody may ask (GDPR article 13)."""

from fastapi import Request, Response

from shared.routes import Router
from subscriptions.consent import Basis

router = Router(include_in_schema=False)

PATH = "/prenumerera/personuppgifter"


@router.api_route(PATH, methods=["GET", "HEAD"])
async def show(request: Request) -> Response:
    settings = request.app.state.settings
    answer: Response = request.app.state.pages.render(
        request,
        "notice.html",
        days={str(basis): settings.kept.of(basis).days for basis in Basis},
        mandate_days=settings.mandate_kept_days,
    )
    return answer
