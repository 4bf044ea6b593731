"""What is refused of a request before anybody looks at it: framing that two readers read differently, an encoding that
could unfold without end, an answer that nobody here can give.
"""

from collections.abc import Mapping, Sequence

from starlette.types import Scope

from shared.problems import Problem

OFFERED = ("application/json", "application/problem+json", "text/csv")
"""What the APIs answer with."""


def refusal(scope: Scope) -> Problem | None:
    """Why the request is not let in; `None` where it is."""
    headers = _gathered(scope)
    if _is_ambiguous(headers):
        return Problem(400, "ambiguous_framing", "Send one Host, and either Content-Length or Transfer-Encoding.")
    if any(value.strip().lower() not in ("", "identity") for value in headers.get("content-encoding", ())):
        return Problem(415, detail="Send the body as it is, not compressed.", headers={"Accept-Encoding": "identity"})
    accept = ",".join(headers.get("accept", ()))
    if scope["path"].startswith("/api/") and not _is_offered(accept):
        return Problem(406, detail=f"Accept one of {', '.join(OFFERED)}.")
    return None


def _gathered(scope: Scope) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _is_ambiguous(headers: Mapping[str, Sequence[str]]) -> bool:
    """RFC 9112, sections 3.2 and 6.1: what a proxy in front could read as two requests, or as another site's."""
    lengths = len(headers.get("content-length", ()))
    return len(headers.get("host", ())) > 1 or lengths > 1 or (lengths > 0 and "transfer-encoding" in headers)


def _is_offered(accept: str) -> bool:
    """Whether one of its ranges takes something that we offer (RFC 9110, section 12.5.1); none at all takes all."""
    ranges = [part for part in (text.strip().lower() for text in accept.split(",")) if part]
    return not ranges or any(_takes(wanted) for wanted in ranges)


def _takes(wanted: str) -> bool:
    kind, *parameters = (part.strip() for part in wanted.split(";"))
    if any(parameter.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for parameter in parameters):
        return False
    main = kind.removesuffix("/*")
    return kind == "*/*" or any(
        offer == kind or (kind.endswith("/*") and offer.startswith(f"{main}/")) for offer in OFFERED
    )
