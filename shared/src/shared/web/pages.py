"""Renders pages: Swedish first, English second, the same layout in every service, no script.

A service hands over its templates and catalogues and gets `render`. Templates are autoescaped and strict: a name that
nobody gave is an error at once, not a hole in the page. They get frozen presenters, never rows.

The reader's language is `?lang=sv|en` where it was chosen (links made with `href()` carry it on), else what the browser
asks for. Error answers are pages for readers and problem documents for programs; both have the same status.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from babel.numbers import format_decimal
from babel.support import Translations
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shared import correlation
from shared.contracts.news import Locale
from shared.http import SECURITY_HEADERS
from shared.settings import OrganisationSettings
from shared.translations import combined, preferred
from shared.web.dates import BABEL_LOCALES, day, minute
from shared.web.files import file_size, file_type
from shared.web.static import stylesheet_url

HERE = Path(__file__).parent
Handler = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class NavigationLink:
    """One entry of the site's navigation; `label` is Swedish and has an English catalogue entry."""

    path: str
    label: str


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


NAVIGATION: Final = (
    NavigationLink("/", _("Nyheter")),
    NavigationLink("/pressrum", _("Pressrum")),
    NavigationLink("/rapporter", _("Rapporter")),
    NavigationLink("/resultat", _("Resultat")),
    NavigationLink("/prenumerera", _("Prenumerera")),
)

ERROR_TEXTS: Final[Mapping[int, tuple[str, str]]] = {
    404: (_("Sidan finns inte"), _("Adressen kan vara felskriven, eller så har sidan flyttats.")),
    405: (_("Det går inte att göra så här"), _("Gå tillbaka och försök igen från sidan du kom från.")),
    410: (_("Sidan är borttagen"), _("Det som fanns här är borttaget och kommer inte tillbaka.")),
    422: (_("Något i adressen stämmer inte"), _("Kontrollera adressen, eller börja om från startsidan.")),
    503: (_("Tjänsten är tillfälligt ur funktion"), _("Vänta en stund och försök igen.")),
}
CRASH_TEXT: Final = (_("Något gick fel hos oss"), _("Felet är inte ditt. Försök igen om en stund."))


@dataclass(frozen=True, slots=True)
class FormError:
    """What is wrong with one field of a form: the input's id, and the mend in the reader's language."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class ReaderLanguage:
    """The page's language, and whether the reader chose it by a link."""

    locale: Locale
    chosen: bool = False


def reader_language(request: Request) -> ReaderLanguage:
    """`?lang=` if it is a language of ours, else the best of `Accept-Language`, else Swedish."""
    asked = request.query_params.get("lang", "")
    if asked in tuple(Locale):
        return ReaderLanguage(Locale(asked), chosen=True)
    return ReaderLanguage(preferred(request.headers.get("accept-language")))


Reader = Annotated[ReaderLanguage, Depends(reader_language)]


class Pages:
    """One service's pages. `folder` holds its `templates/` and `locale/`."""

    def __init__(self, settings: OrganisationSettings, folder: Path) -> None:
        self._settings = settings
        self._words = {locale: _words(folder, locale) for locale in Locale}
        self._environments = {locale: _environment(folder, locale) for locale in Locale}

    def render(
        self,
        request: Request,
        template: str,
        language: ReaderLanguage | None = None,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **presenters: Any,
    ) -> HTMLResponse:
        """The page as an answer; `presenters` are the template's names."""
        language = language or reader_language(request)
        names = {**self._frame(request, language), **presenters}
        html = self._environments[language.locale].get_template(template).render(names)
        language_headers = {"Content-Language": str(language.locale), "Vary": "Accept-Language"}
        return HTMLResponse(html, status_code=status, headers={**language_headers, **(headers or {})})

    def gettext(self, locale: Locale, text: str) -> str:
        """`text` in `locale`, for words that a presenter makes."""
        return self._words[locale].gettext(text)

    def _frame(self, request: Request, language: ReaderLanguage) -> dict[str, Any]:
        return {
            "organisation": self._settings,
            "navigation": NAVIGATION,
            "path": request.url.path,
            "locale": language.locale,
            "languages": _switch(request),
            "href": partial(href, language),
            "stylesheet": stylesheet_url(),
        }


def href(language: ReaderLanguage, path: str, **query: str) -> str:
    """A link within the site that keeps the language the reader chose."""
    chosen = {"lang": str(language.locale)} if language.chosen else {}
    wanted = {**query, **chosen}
    return f"{path}?{urlencode(wanted)}" if wanted else path


def install_error_pages(app: FastAPI, pages: Pages) -> None:
    """Answer readers' faulty requests with a page; call it after `create_app`."""
    for kind, handler in list(app.exception_handlers.items()):
        app.add_exception_handler(kind, _paged(pages, handler))  # type: ignore[arg-type]


def wants_page(request: Request) -> bool:
    """Whether a person is likely to read the answer: not under `/api/`, and no JSON was asked for."""
    return not request.url.path.startswith("/api/") and "json" not in request.headers.get("accept", "")


def _paged(pages: Pages, handler: Handler) -> Handler:
    async def answer(request: Request, error: Exception) -> Response:
        problem = await handler(request, error)
        if not wants_page(request):
            return problem
        return _error_page(pages, request, problem)

    return answer


def _error_page(pages: Pages, request: Request, problem: Response) -> Response:
    heading, advice = ERROR_TEXTS.get(problem.status_code, CRASH_TEXT)
    kept = {name: value for name, value in problem.headers.items() if name in ("allow", "retry-after")}
    # A crash is answered outside the middleware that adds these.
    headers = {**SECURITY_HEADERS, **kept, "Cache-Control": "no-store"}
    reference = correlation.current().correlation_id if problem.status_code >= 500 else ""
    return pages.render(
        request,
        "error.html",
        status=problem.status_code,
        headers=headers,
        heading=heading,
        advice=advice,
        reference=reference,
    )


@lru_cache
def _environment(folder: Path, locale: Locale) -> Environment:
    """One a process: a template is compiled when an environment first needs it, which takes longer than filling it."""
    environment = Environment(
        loader=FileSystemLoader([folder / "templates", HERE / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.install_gettext_translations(_words(folder, locale), newstyle=True)  # type: ignore[attr-defined]
    environment.filters["day"] = partial(day, locale)
    environment.filters["minute"] = partial(minute, locale)
    environment.filters["number"] = partial(_number, locale)
    environment.filters["file_size"] = partial(file_size, locale)
    environment.filters["file_type"] = file_type
    return environment


def _number(locale: Locale, count: int) -> str:
    """In groups of three, which a line does not break: `200 000`."""
    return format_decimal(count, locale=BABEL_LOCALES[locale])


@lru_cache
def _words(folder: Path, locale: Locale) -> Translations:
    return combined((HERE / "locale", folder / "locale"), locale)


def _switch(request: Request) -> Sequence[tuple[Locale, str, str]]:
    """The languages: code, name in itself, link to this page in it."""
    names = {Locale.SV: "Svenska", Locale.EN: "English"}
    links = {code: request.url.include_query_params(lang=str(code)) for code in names}
    return [(code, name, f"{links[code].path}?{links[code].query}") for code, name in names.items()]
