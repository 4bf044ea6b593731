"""Words that several services must spell alike: municipalities and topics.

Municipalities carry the four-digit codes of Statistics Sweden (SCB, "Kommuner i kodnummerordning"); these are Kalmar
county's twelve. Topics are ours.
"""

from typing import Final, NamedTuple

MUNICIPALITIES: Final[dict[str, str]] = {
    "0821": "Högsby",
    "0834": "Torsås",
    "0840": "Mörbylånga",
    "0860": "Hultsfred",
    "0861": "Mönsterås",
    "0862": "Emmaboda",
    "0880": "Kalmar",
    "0881": "Nybro",
    "0882": "Oskarshamn",
    "0883": "Västervik",
    "0884": "Vimmerby",
    "0885": "Borgholm",
}


class Topic(NamedTuple):
    """A topic's name in both locales."""

    sv: str
    en: str


TOPICS: Final[dict[str, Topic]] = {
    "rehabilitation": Topic("Arbetsinriktad rehabilitering", "Work-oriented rehabilitation"),
    "young_adults": Topic("Unga vuxna", "Young adults"),
    "mental_health": Topic("Psykisk hälsa", "Mental health"),
    "results": Topic("Resultat och statistik", "Results and statistics"),
    "organisation": Topic("Förbundet och styrelsen", "The association and its board"),
}
