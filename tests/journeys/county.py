"""The people, the endpoints and the items of the journey: plain data.

`TABLE` is the truth, written by hand: each near miss with what becomes of it. `everybody()` adds a county around it, in
regular patterns, until there are 2,000 recipients. Nothing here knows the product; addresses are invented.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

KALMAR, NYBRO, TORSAS, VASTERVIK, EMMABODA, OSKARSHAMN, MONSTERAS = (
    *("0880", "0881", "0834", "0883"),
    *("0862", "0882", "0861"),
)
MUNICIPALITIES = {
    "0821": "Högsby",
    TORSAS: "Torsås",
    "0840": "Mörbylånga",
    "0860": "Hultsfred",
    MONSTERAS: "Mönsterås",
    EMMABODA: "Emmaboda",
    KALMAR: "Kalmar",
    NYBRO: "Nybro",
    OSKARSHAMN: "Oskarshamn",
    VASTERVIK: "Västervik",
    "0884": "Vimmerby",
    "0885": "Borgholm",
}
CODES = tuple(MUNICIPALITIES)
STRONGEST_FIRST = ("newsroom", "politician", "collaboration_group", "agency_official", "public")
TODAY = datetime.now(UTC).date()
IN_FORCE = (TODAY - timedelta(days=700), TODAY + timedelta(days=700))
RECIPIENTS = 2_000


@dataclass(frozen=True)
class Role:
    """`area` is the politician's or the official's own; a newsroom's and a group's is that of its place."""

    audience: str
    place: str = ""
    area: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None


@dataclass(frozen=True)
class Person:
    address: str
    roles: tuple[Role, ...]
    locale: str = "sv"
    topics: tuple[str, ...] = ()
    municipalities: tuple[str, ...] = ()
    paused_until: datetime | None = None
    left: tuple[str, ...] = ()
    unsubscribed: bool = False
    erased: bool = False
    envelope: str = ""  # how the address stands on the envelope, where that is another spelling

    @property
    def mailbox(self) -> str:
        return self.envelope or self.address

    @property
    def has_choices(self) -> bool:
        """Made through the API; everybody else comes from a file."""
        return bool(self.topics or self.paused_until or self.left or self.unsubscribed or self.erased)


@dataclass(frozen=True)
class Item:
    fields: dict[str, object]
    audiences: frozenset[str]
    municipalities: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Gets:
    """One mail: under this audience, in this form, in a frame of this language."""

    audience: str
    form: str
    locale: str = "sv"


@dataclass(frozen=True)
class LeftOut:
    audience: str
    reason: str


Fate = Gets | LeftOut | None  # None: not in the audience, nowhere in the ledger

BODY_MARK = "Hela texten med alla siffror står att läsa här"
LEAD = "Fler unga vuxna går från sjukskrivning till arbete."

RELEASE = Item(
    {
        "kind": "press_release",
        "title": "Två av tre i arbete efter rehabilitering – ”det lönar sig” säger kommunerna",
        "lead": LEAD,
        "body": f"## Bakgrund\n\n{BODY_MARK}, **utan** bilaga.\n\n- Kalmar: 61 %\n- Nybro: 58 %\n\n.\n\nEn rad med bara en punkt ovan.",
        "contacts": [
            {
                "name": "Åsa Öberg",
                "role": "förbundschef",
                "phone": "0480-123 45",
                "email": "asa.oberg@forbundet.example",
            }
        ],
        "images": [
            {
                "url": "https://bilder.forbundet.example/1.jpg",
                "alt": "Två personer i en verkstad",
                "credit": "Foto: I. Ek",
            }
        ],
        "links": [{"label": "Rapporten i sin helhet", "url": "https://forbundet.example/rapport"}],
        "audiences": list(STRONGEST_FIRST),
        "municipalities": [KALMAR, NYBRO],
        "topics": ["rehabilitation"],
    },
    frozenset(STRONGEST_FIRST),
    frozenset({KALMAR, NYBRO}),
    frozenset({"rehabilitation"}),
)
NEWS = Item(
    {
        "kind": "news",
        "title": "A new meeting place opens in Västervik",
        "lead": "Doors open on Monday.",
        "body": f"{BODY_MARK}. Everybody is welcome.",
        "language": "en",
        "audiences": ["politician", "public"],
        "municipalities": [VASTERVIK],
    },
    frozenset({"politician", "public"}),
    frozenset({VASTERVIK}),
)

PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "Kalmarposten": ("newsroom", ()),
    "Radio Kalmar": ("newsroom", (KALMAR,)),
    "Västerviks Nyheter": ("newsroom", (VASTERVIK,)),
    "Glasrikets Blad": ("newsroom", (NYBRO, EMMABODA)),
    "Regionfullmäktige": ("council", ()),
    "Förbundsstyrelsen": ("council", ()),
    "Samverkansgrupp Kalmar": ("group", (KALMAR,)),
    "Samverkansgrupp Oskarshamn": ("group", (OSKARSHAMN,)),
    "Arbetsförmedlingen": ("agency", ()),
}
AWAY = datetime(2099, 5, 12, tzinfo=UTC)
LONG_AGO = datetime(2021, 5, 12, tzinfo=UTC)


def _newsroom(place: str) -> Role:
    return Role("newsroom", place)


def _politician(*area: str, since: date | None = IN_FORCE[0], until: date | None = IN_FORCE[1]) -> Role:
    return Role("politician", "Förbundsstyrelsen" if not area else "Regionfullmäktige", area, since, until)


def _group(municipality: str) -> Role:
    return Role("collaboration_group", f"Samverkansgrupp {MUNICIPALITIES[municipality]}")


def _official(*area: str) -> Role:
    return Role("agency_official", "Arbetsförmedlingen", area)


PUBLIC = Role("public")
ENDED = _politician(KALMAR, until=TODAY - timedelta(days=1))
TO_COME = _politician(KALMAR, since=TODAY + timedelta(days=3))

# Who they are, what the press release (all audiences; Kalmar and Nybro; rehabilitation) brings them, and what the news
# (politicians and the public; Västervik; all topics) does.
TABLE: tuple[tuple[Person, Fate, Fate], ...] = (
    (Person("hela.lanet@posten.example", (_newsroom("Kalmarposten"),)), Gets("newsroom", "press"), None),
    (Person("kalmar@radio.example", (_newsroom("Radio Kalmar"),)), Gets("newsroom", "press"), None),
    (Person("grannkommun@vnyheter.example", (_newsroom("Västerviks Nyheter"),)), None, None),
    (Person("en.av.tva@glasblad.example", (_newsroom("Glasrikets Blad"),)), Gets("newsroom", "press"), None),
    (Person("desk@radio.example", (_newsroom("Radio Kalmar"),), "en"), Gets("newsroom", "press", "en"), None),
    (
        Person("semester@radio.example", (_newsroom("Radio Kalmar"),), paused_until=AWAY),
        LeftOut("newsroom", "paused"),
        None,
    ),
    (
        Person("annat.amne@posten.example", (_newsroom("Kalmarposten"),), topics=("young_adults",)),
        LeftOut("newsroom", "topic_choice"),
        None,
    ),
    (
        Person("ratt.amne@posten.example", (_newsroom("Kalmarposten"),), topics=("rehabilitation", "results")),
        Gets("newsroom", "press"),
        None,
    ),
    (Person("sitter@kalmar.example", (_politician(KALMAR),)), Gets("politician", "news"), None),
    (Person("avgick.igar@kalmar.example", (ENDED,)), None, None),
    (Person("tilltrader.snart@kalmar.example", (TO_COME,)), None, None),
    (Person("granne@torsas.example", (_politician(TORSAS),)), None, None),
    (Person("sitter@vastervik.example", (_politician(VASTERVIK),)), None, Gets("politician", "news")),
    (
        Person("hela.lanet@region.example", (_politician(),)),
        Gets("politician", "news"),
        Gets("politician", "news"),
    ),
    (
        Person("bytte.kommun@region.example", (replace(ENDED, place="Förbundsstyrelsen"), _politician(VASTERVIK))),
        None,
        Gets("politician", "news"),
    ),
    (Person("bada@region.example", (_politician(KALMAR, NYBRO),)), Gets("politician", "news"), None),
    (
        Person("pausad@kalmar.example", (_politician(KALMAR),), paused_until=AWAY, topics=("young_adults",)),
        LeftOut("politician", "paused"),
        None,
    ),
    (
        Person("har.lamnat@kalmar.example", (_politician(KALMAR),), left=("politician",)),
        LeftOut("politician", "unsubscribed"),
        None,
    ),
    (
        Person("lamnat.men.medborgare@kalmar.example", (_politician(KALMAR), PUBLIC), left=("politician",)),
        Gets("public", "news"),
        Gets("public", "news"),
    ),
    (
        Person("i.tre@kalmar.example", (_newsroom("Kalmarposten"), _politician(KALMAR), PUBLIC)),
        Gets("newsroom", "press"),
        Gets("public", "news"),
    ),
    (
        Person("i.tre.andra@nybro.example", (_politician(NYBRO), _group(KALMAR), _official(NYBRO)), "en"),
        Gets("politician", "news", "en"),
        None,
    ),
    (Person("i.gruppen@kalmar.example", (_group(KALMAR),)), Gets("collaboration_group", "news"), None),
    (Person("i.annan.grupp@oskarshamn.example", (_group(OSKARSHAMN),)), None, None),
    (
        Person("ur.gruppen@kalmar.example", (_group(KALMAR), _official(KALMAR)), left=("collaboration_group",)),
        Gets("agency_official", "news"),
        None,
    ),
    (
        Person(
            "ur.allt@kalmar.example", (_group(KALMAR), _official()), left=("collaboration_group", "agency_official")
        ),
        LeftOut("collaboration_group", "unsubscribed"),
        None,
    ),
    (Person("handlaggare@af.example", (_official(KALMAR),)), Gets("agency_official", "news"), None),
    (Person("handlaggare.norr@af.example", (_official(MONSTERAS),)), None, None),
    (Person("hela.lanet@af.example", (_official(),)), Gets("agency_official", "news"), None),
    (
        Person("avregistrerad@af.example", (_official(), PUBLIC), unsubscribed=True),
        LeftOut("agency_official", "unsubscribed"),
        LeftOut("public", "unsubscribed"),
    ),
    (Person("medborgare@folk.example", (PUBLIC,)), Gets("public", "news"), Gets("public", "news")),
    (
        Person("vill.vastervik@folk.example", (PUBLIC,), municipalities=(VASTERVIK,)),
        LeftOut("public", "municipality_choice"),
        Gets("public", "news"),
    ),
    (
        Person("vill.kalmar@folk.example", (PUBLIC,), municipalities=(KALMAR, TORSAS)),
        Gets("public", "news"),
        LeftOut("public", "municipality_choice"),
    ),
    (
        Person("vill.annat.amne@folk.example", (PUBLIC,), topics=("mental_health",)),
        LeftOut("public", "topic_choice"),
        Gets("public", "news"),
    ),
    (Person("reader@folk.example", (PUBLIC,), "en"), Gets("public", "news", "en"), Gets("public", "news", "en")),
    (
        Person("ater@folk.example", (PUBLIC,), paused_until=LONG_AGO),
        Gets("public", "news"),
        Gets("public", "news"),
    ),
    (
        Person("har.slutat@folk.example", (PUBLIC,), left=("public",)),
        LeftOut("public", "unsubscribed"),
        LeftOut("public", "unsubscribed"),
    ),
    (
        Person("val.foljer.med@folk.example", (PUBLIC, _politician(KALMAR)), topics=("young_adults",)),
        LeftOut("politician", "topic_choice"),
        Gets("public", "news"),
    ),
    (Person("raderad@folk.example", (PUBLIC,), erased=True), None, None),
    (
        Person("info@vällevik.example", (PUBLIC,), envelope="info@xn--vllevik-5wa.example"),
        Gets("public", "news"),
        Gets("public", "news"),
    ),
    (
        Person("sven.o'brien+nyheter@folk.example", (PUBLIC,)),
        Gets("public", "news"),
        Gets("public", "news"),
    ),
)


def everybody() -> list[Person]:
    """The table's people and, around them, a county in patterns; all addresses differ."""
    people = {person.address: person for person, _, _ in TABLE}
    for person in (*_newsrooms(), *_politicians(), *_members(), *_officials()):
        people[person.address] = person
    number = 0
    while len(people) < RECIPIENTS:
        chosen = (CODES[number % 12],) if number % 3 == 0 else ()
        person = Person(f"folk{number}@folk.example", (PUBLIC,), _language(number), municipalities=chosen)
        people[person.address] = person
        number += 1
    return list(people.values())


def places() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Every organisation and group: its kind and its area."""
    return {
        **PLACES,
        **{f"Redaktion {number}": ("newsroom", _coverage(number)) for number in range(20)},
        **{f"Kommunfullmäktige {name}": ("council", ()) for name in MUNICIPALITIES.values()},
        **{f"Samverkansgrupp {name}": ("group", (code,)) for code, name in MUNICIPALITIES.items()},
        **dict.fromkeys(AGENCIES, ("agency", ())),
    }


AGENCIES = ("Arbetsförmedlingen", "Försäkringskassan", "Region Kalmar län", "Kommunens socialtjänst")


def _coverage(number: int) -> tuple[str, ...]:
    if number < 12:
        return (CODES[number],)
    return () if number < 16 else (CODES[number - 16], CODES[number - 9])


def _newsrooms() -> Iterator[Person]:
    for number in range(80):
        yield Person(
            f"desk{number}@tidning.example", (Role("newsroom", f"Redaktion {number % 20}"),), _language(number)
        )


def _politicians() -> Iterator[Person]:
    for number in range(450):
        code = CODES[number % 12]
        until = TODAY - timedelta(days=1) if number % 10 == 7 else IN_FORCE[1]
        mandate = Role("politician", f"Kommunfullmäktige {MUNICIPALITIES[code]}", (code,), IN_FORCE[0], until)
        also = (Role("collaboration_group", f"Samverkansgrupp {MUNICIPALITIES[code]}"), PUBLIC) if number < 60 else ()
        yield Person(f"ledamot{number}@fullmaktige.example", (mandate, *also), _language(number))


def _members() -> Iterator[Person]:
    for number in range(300):
        name = MUNICIPALITIES[CODES[number % 12]]
        also = (PUBLIC,) if number % 5 == 0 else ()
        role = Role("collaboration_group", f"Samverkansgrupp {name}")
        yield Person(f"grupp{number}@samverkan.example", (role, *also), _language(number))


def _officials() -> Iterator[Person]:
    for number in range(450):
        area = () if number % 9 == 0 else (CODES[number % 12],)
        role = Role("agency_official", AGENCIES[number % 4], area)
        yield Person(f"tjansteperson{number}@myndighet.example", (role,), _language(number))


def _language(number: int) -> str:
    return "en" if number % 25 == 3 else "sv"


@dataclass(frozen=True)
class Endpoint:
    path: str
    audiences: tuple[str, ...] = ("agency_official",)
    municipalities: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    disabled: bool = False


# (endpoint, gets the press release, gets the news)
ENDPOINTS: tuple[tuple[Endpoint, bool, bool], ...] = (
    *((Endpoint(f"/{code}", municipalities=(code,)), code in (KALMAR, NYBRO), False) for code in CODES),
    (Endpoint("/lanet"), True, False),
    (Endpoint("/alla", audiences=STRONGEST_FIRST), True, True),
    (Endpoint("/politik", audiences=("politician",)), True, True),
    (Endpoint("/allmanhet-vastervik", audiences=("public",), municipalities=(VASTERVIK,)), False, True),
    (Endpoint("/rehab", topics=("rehabilitation",)), True, False),
    (Endpoint("/unga", topics=("young_adults",)), False, False),
    (Endpoint("/redaktioner-torsas", audiences=("newsroom",), municipalities=(TORSAS,)), False, False),
    (Endpoint("/avstangd", audiences=STRONGEST_FIRST, disabled=True), False, False),
)
