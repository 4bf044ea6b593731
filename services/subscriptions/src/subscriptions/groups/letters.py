"""What is said to a contact person, to somebody who is invited, and to members who come and go.

No mail holds an address. A name stands only in what the contact person gets.
"""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import Form
from shared.contracts.news import Locale
from subscriptions.groups.models import GroupAct, GroupChange, GroupContact
from subscriptions.links import Links
from subscriptions.mailing import Addressee, Words, request_mail, said
from subscriptions.models import Group, Subscriber


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


SOMEBODY = _("en person utan namn hos oss")
REGRET = _("Var det inte du, eller blev det fel? Öppna länken, så kan du ändra tillbaka.")
YOUR_PAGE = Words(
    Form.PREFERENCES,
    _("Du är kontaktperson för en samverkansgrupp"),
    (
        _("Du är kontaktperson för {group}. På gruppens sida bjuder du in och tar bort medlemmar."),
        _("Länken gäller så länge du är kontaktperson."),
        _("Namn och adresser visas bara bakom en extra länk, som vi mejlar dig när du ber om den."),
    ),
    _("Öppna gruppens sida"),
)
MEMBERS = Words(
    Form.PREFERENCES,
    _("Länk till gruppens medlemmar"),
    (
        _("Här är länken till medlemmarna i {group}."),
        _("Den gäller i 30 minuter. Skicka den inte vidare."),
        _("Har du inte bett om den kan du bortse från det här mejlet. Ingenting har ändrats."),
    ),
    _("Visa medlemmarna"),
)
INVITATION = Words(
    Form.CONFIRM,
    _("Vill du vara med i en samverkansgrupp?"),
    (
        _("Kontaktpersonen för {group} bjuder in dig. Som medlem får du gruppens nyheter från oss med mejl."),
        _("Svara på sidan bakom knappen inom 30 dagar. Svarar du inte tar vi bort inbjudan och din adress."),
    ),
    _("Se inbjudan"),
)
WELCOME = Words(
    Form.PREFERENCES,
    _("Du är med i en samverkansgrupp"),
    (
        _("Du är nu med i {group} och får gruppens nyheter från oss med mejl."),
        _("På din sida ser du vad du får. Där kan du ändra det, eller sluta."),
    ),
    _("Öppna din sida"),
)
FAREWELL = Words(
    Form.PREFERENCES,
    _("Du är inte längre med i en samverkansgrupp"),
    (
        _("Du har tagits bort ur {group} och får inte längre gruppens nyheter."),
        _("Blev det fel? Öppna länken och säg till, så hör vi med kontaktpersonen."),
    ),
    _("Jag vill vara kvar"),
)
TOLD = {
    GroupAct.INVITED: Words(
        Form.PREFERENCES,
        _("Någon har bjudits in till din samverkansgrupp"),
        (_("En inbjudan till {group} har skickats till {who}."), REGRET),
        _("Ta tillbaka inbjudan"),
    ),
    GroupAct.JOINED: Words(
        Form.PREFERENCES,
        _("Din samverkansgrupp har en ny medlem"),
        (_("Inbjudan till {group} är besvarad med ja av {who}."), REGRET),
        _("Ta bort medlemmen"),
    ),
    GroupAct.REMOVED: Words(
        Form.PREFERENCES,
        _("En medlem har tagits bort ur din samverkansgrupp"),
        (_("Borttagen ur {group}: {who}."), REGRET),
        _("Låt medlemmen vara kvar"),
    ),
    GroupAct.RESTORED: Words(
        Form.PREFERENCES,
        _("En medlem är tillbaka i din samverkansgrupp"),
        (_("Tillbaka i {group}: {who}."), REGRET),
        _("Ta bort medlemmen igen"),
    ),
}
DECLINED = Words(
    Form.PREFERENCES,
    _("En inbjudan till din samverkansgrupp fick ett nej"),
    (_("Inbjudan till {group} är besvarad med nej av {who}."),),
    _("Öppna gruppens sida"),
)
TAKEN_BACK = Words(
    Form.PREFERENCES,
    _("En inbjudan till din samverkansgrupp är tillbakatagen"),
    (_("Inbjudan till {group} som skickades till {who} gäller inte längre. Du kan bjuda in på nytt."),),
    _("Öppna gruppens sida"),
)
WANTS_BACK = Words(
    Form.PREFERENCES,
    _("En borttagen medlem vill vara kvar i din samverkansgrupp"),
    (_("Borttagen ur {group}, men vill vara kvar: {who}. Öppna länken om ni är överens om det."),),
    _("Låt medlemmen vara kvar"),
)


def addressee(links: Links, subscriber: Subscriber) -> Addressee:
    """A subscriber, with the link to their own page."""
    preferences = links.preferences(subscriber.id, subscriber.generation)
    return Addressee(subscriber.id, subscriber.address, Locale(subscriber.locale), preferences)


async def tell_member(
    session: AsyncSession, links: Links, subscriber: Subscriber, words: Words, url: str, group: Group, at: datetime
) -> None:
    await request_mail(session, addressee(links, subscriber), words, url, at, group=group.name)


async def tell_contact(
    session: AsyncSession, links: Links, group: Group, words: Words, change: GroupChange | None, who: str, at: datetime
) -> None:
    """The change's undo link, or the group's page where there is nothing to undo. A group may have no contact."""
    contact = await session.get(GroupContact, group.id)
    subscriber = await session.get(Subscriber, contact.subscriber_id) if contact else None
    if contact is None or subscriber is None:
        return
    url = links.group(group.id, contact.generation)
    if change is not None:
        url = links.undo_group_change(change.id, contact.generation)
    name = who or said(Locale(subscriber.locale), SOMEBODY)
    await request_mail(session, addressee(links, subscriber), words, url, at, group=group.name, who=name)
