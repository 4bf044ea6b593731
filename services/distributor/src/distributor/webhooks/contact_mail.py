"""What the contact of an endpoint is told, in Swedish that one can act on without knowing what a webhook is; and what
the office is told, where no mail reaches the contact.

Each mail says what happened, what the server answered last and what that usually means, what we do now, and where to
try it out. It holds nothing of what was sent.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from distributor.webhooks.client import Why
from distributor.webhooks.links import EndpointLinks
from distributor.webhooks.models import DisabledReason
from shared.contracts.mail import Recipient, RequestContent
from shared.contracts.news import Locale
from shared.ids import derived_id
from shared.web import dates


class Occasion(StrEnum):
    """Why we write."""

    FAILING = "failing"
    DISABLED = "disabled"
    RECOVERED = "recovered"
    CONTACT_LOST = "contact_lost"


STATUS_WORDS: dict[int, str] = {
    400: "Servern förstod inte det vi skickade. Det brukar bero på hur mottagaren läser innehållet eller signaturen.",
    401: (
        "Servern kräver inloggning. Behöver vi skicka med en nyckel, så hör av dig till oss med en som gäller. "
        "Annars måste adressen gå att nå utan lösenord; signaturen visar att det är vi."
    ),
    403: "Servern släpper inte in oss. Det brukar vara en brandvägg eller en spärr framför intranätet.",
    404: "Det finns inget på den adressen. Kontrollera att adressen är rätt skriven och att mottagaren är igång.",
    405: "Adressen tar inte emot POST, som är sättet vi skickar på.",
    410: "Svaret 410 betyder att mottagaren är borttagen och inte vill ha något mer.",
    413: "Servern tycker att det vi skickar är för stort. Tillåt åtminstone 1 MB.",
    415: "Servern tar inte emot innehållstypen application/cloudevents+json.",
    429: "Servern vill ha färre anrop. Vi väntar så länge som den ber om, dock högst ett dygn.",
}
REDIRECTED = (
    "Servern hänvisar till en annan adress. Av säkerhetsskäl följer vi inte med; ange den nya adressen hos oss."
)
REFUSED = "Servern tog inte emot det vi skickade."
BROKEN_THERE = "Något gick fel i er server, eller så är den stängd för underhåll. Felet står i serverns egen logg."

SILENCE_WORDS: dict[str, str] = {
    Why.DENIED: "Adressen leder till ett nät dit vi inte får ansluta.",
    Why.LOOK_UP: "Servernamnet finns inte i DNS. Kontrollera adressen, eller fråga dem som sköter domänen.",
    Why.CONNECT: "Servern svarar inte på anslutning. Den kan vara avstängd, eller så stoppar en brandvägg oss.",
    Why.TLS: "Serverns certifikat godkändes inte. Det kan ha gått ut, gälla fel namn eller sakna mellancertifikat.",
    Why.TIMEOUT: "Servern svarade inte i tid. Svara direkt med 200 och gör arbetet efteråt.",
    Why.BROKEN: "Anslutningen bröts innan svaret var klart.",
}

GOES_ON = (
    "Inget är förlorat. Vi försöker igen av oss själva med allt längre mellanrum, med varje nyhet i drygt tre dygn. "
    "Misslyckas allt i fem dygn slutar vi skicka och meddelar dig."
)
STOPPED = (
    "Vi skickar ingenting mer dit förrän någon hos oss slår på mottagaren igen. Nyheterna finns kvar hos oss, "
    "och det som inte kom fram kan skickas på nytt."
)
ENABLE_AGAIN = (
    "Prova från sidan nedan när felet är rättat. Svara sedan på det här mejlet, så slår vi på mottagaren igen. "
    "Var det meningen att sluta behöver du inte göra något."
)
CATCHES_UP = (
    "Nyheter som väntade skickas nu av sig själva. Saknar ni något som är äldre än tre dygn kan vi skicka det på nytt: "
    "svara på det här mejlet."
)


@dataclass(frozen=True, slots=True)
class Condition:
    """How an endpoint fares, as a mail tells it."""

    endpoint_id: UUID
    generation: int
    name: str
    url: str
    contact_email: str
    failures: int
    failing_since: datetime | None
    last_status: int | None
    last_phase: str
    disabled_reason: str | None


class ContactMail:
    """Finds the words."""

    def __init__(self, links: EndpointLinks, office: str) -> None:
        self._links = links
        self._office = office

    def recipient(self, occasion: Occasion, condition: Condition) -> Recipient:
        """Who reads it."""
        if occasion is Occasion.CONTACT_LOST:
            key, address = derived_id("endpoint office", condition.endpoint_id), self._office
        else:
            key, address = condition.endpoint_id, condition.contact_email
        return Recipient(recipient_id=key, address=address, locale=Locale.SV)

    def words(self, occasion: Occasion, condition: Condition) -> RequestContent:
        """The mail about an endpoint."""
        subject, paragraphs = {
            Occasion.FAILING: _failing,
            Occasion.DISABLED: _disabled,
            Occasion.RECOVERED: _recovered,
            Occasion.CONTACT_LOST: _contact_lost,
        }[occasion](condition)
        return RequestContent(
            subject=subject,
            paragraphs=paragraphs,
            action_label="Prova och se de senaste försöken",
            action_url=self._links.page(condition.endpoint_id, condition.generation),
        )


def fault_words(status: int | None, phase: str) -> str:
    """What the last answer was and usually means; also for the endpoint's page."""
    if status is None:
        return SILENCE_WORDS.get(phase, SILENCE_WORDS[Why.BROKEN])
    return f"Servern svarade {status}. {_meaning(status)}"


def _meaning(status: int) -> str:
    if status in STATUS_WORDS:
        return STATUS_WORDS[status]
    if status >= 500:
        return BROKEN_THERE
    return REDIRECTED if 300 <= status < 400 else REFUSED


def _failing(of: Condition) -> tuple[str, tuple[str, ...]]:
    return f"{of.name} tar inte emot våra nyheter", (
        f"Våra senaste {of.failures} försök att lämna nyheter till {of.name} misslyckades{_since(of)}.",
        f"Adressen är {of.url}",
        fault_words(of.last_status, of.last_phase),
        GOES_ON,
        "När du har rättat felet kan du skicka ett prov från sidan nedan. Då ser du direkt vad servern svarar.",
    )


def _disabled(of: Condition) -> tuple[str, tuple[str, ...]]:
    why = (
        "Servern svarade 410, som betyder att mottagaren är borttagen och inte vill ha något mer."
        if of.disabled_reason == DisabledReason.GONE
        else f"Alla försök har misslyckats{_since(of)}. {fault_words(of.last_status, of.last_phase)}"
    )
    return f"Vi har slutat skicka nyheter till {of.name}", (
        why,
        f"Adressen är {of.url}",
        STOPPED,
        ENABLE_AGAIN,
    )


def _recovered(of: Condition) -> tuple[str, tuple[str, ...]]:
    return f"{of.name} tar emot våra nyheter igen", (
        f"Vi når {of.name} igen, på {of.url}",
        CATCHES_UP,
    )


def _contact_lost(of: Condition) -> tuple[str, tuple[str, ...]]:
    return f"Kontaktadressen för {of.name} fungerar inte", (
        f"Vi har skrivit till {of.contact_email} om mottagaren {of.name}, och mejlet gick inte att leverera.",
        f"Mottagarens adress är {of.url}",
        "Ta reda på vem som sköter mottagaren nu och ändra kontaktadressen. Då får den personen veta hur det går.",
    )


def _since(of: Condition) -> str:
    return f" sedan den {dates.minute(Locale.SV, of.failing_since)}" if of.failing_since else ""
