"""Brings the county into a deployment, by the ways its users have: files for the many, the API for those with choices."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tests.desk import SUBSCRIPTIONS, Desk, Json
from tests.journeys.county import (
    ENDPOINTS,
    MUNICIPALITIES,
    STRONGEST_FIRST,
    Endpoint,
    Gets,
    Item,
    LeftOut,
    Person,
    Role,
)
from tests.journeys.truth import Places, fate
from tests.servers.receiver import HttpReceiver

# As they come out of three spreadsheets: encoding, delimiter, names of the columns.
STYLES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "newsroom": ("utf-8-sig", ";", ("E-post", "Namn", "Språk", "Redaktion", "Bevakar")),
    "politician": ("cp1252", ";", ("Epost", "Namn", "Språk", "Fullmäktige", "Kommun", "Mandat från", "Mandat till")),
    "collaboration_group": ("utf-8", ",", ("email", "name", "locale", "group", "municipality")),
    "agency_official": ("cp1252", ",", ("E-mail", "Name", "Language", "Agency", "Municipality")),
    "public": ("utf-8", ";", ("mejl", "namn", "språk", "kommun")),
}


async def load_people(desk: Desk, people: Sequence[Person], places: Places) -> None:
    """Import the files, then add those with choices of their own one by one."""
    for audience in STRONGEST_FIRST:
        rows = [(person, role) for person in people for role in person.roles if role.audience == audience]
        rows = [(person, role) for person, role in rows if not person.has_choices]
        report = await desk.import_file(audience, _file(audience, rows, places))
        assert not report["errors"]
        assert report["rows"] == len(rows)
    ids = await _place_ids(desk)
    for person in people:
        if person.has_choices:
            await _add(desk, person, ids)


async def refuse_a_second_time(desk: Desk, person: Person) -> None:
    """The same mailbox cannot be added again, however it is spelt."""
    spelt = {"address": person.address.upper(), "roles": [{"audience": "public"}]}
    answer = await desk.api.post(f"{SUBSCRIPTIONS}/subscribers", json=spelt)
    assert (answer.status_code, answer.json()["code"]) == (409, "subscriber_exists")


async def load_endpoints(desk: Desk, receiver: HttpReceiver, endpoints: Iterable[Endpoint]) -> dict[str, str]:
    """Register them; gives each path's secret."""
    secrets = {}
    for endpoint in endpoints:
        created = await desk.add_endpoint(
            {
                "name": f"Intranät {endpoint.path}",
                "url": receiver.url(endpoint.path),
                "audiences": list(endpoint.audiences),
                "municipalities": list(endpoint.municipalities),
                "topics": list(endpoint.topics),
            }
        )
        secrets[endpoint.path] = created["secret"]
        if endpoint.disabled:
            path = f"/api/distributor/v1/endpoints/{created['id']}"
            await desk.call("PATCH", path, json={"state": "disabled"}, headers={"If-Match": "*"})
    return secrets


def expected_endpoints(column: int) -> set[str]:
    """Paths that get the press release (1) or the news (2), by the table."""
    return {row[0].path for row in ENDPOINTS if row[column]}


async def check_preview(desk: Desk, item: Item, people: Sequence[Person], places: Places) -> None:
    """The editor's preview, before anything is sent, says what the oracle says."""
    body = {
        "audiences": sorted(item.audiences),
        "municipalities": sorted(item.municipalities),
        "topics": sorted(item.topics),
    }
    preview = await desk.call("POST", f"{SUBSCRIPTIONS}/audience-preview", json=body)
    assert counts_of(preview["audiences"]) == expected_counts(item, people, places)


def counts_of(rows: Iterable[Json]) -> dict[str, tuple[int, int]]:
    """By audience: planned and left out."""
    return {row["audience"]: (row["planned"], row["excluded"]) for row in rows if row["planned"] or row["excluded"]}


def expected_counts(item: Item, people: Sequence[Person], places: Places) -> dict[str, tuple[int, int]]:
    fates = [fate(person, item, places) for person in people]
    gets = Counter(one.audience for one in fates if isinstance(one, Gets))
    left_out = Counter(one.audience for one in fates if isinstance(one, LeftOut))
    return {audience: (gets[audience], left_out[audience]) for audience in {*gets, *left_out}}


def _file(audience: str, rows: Sequence[tuple[Person, Role]], places: Places) -> bytes:
    encoding, delimiter, columns = STYLES[audience]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(columns)
    for person, role in rows:
        values = [_spelt(person, audience), "Åke Öst", person.locale]
        if audience != "public":
            values.append(role.place)
        values.append("|".join(MUNICIPALITIES[code] for code in _area(person, role, places)))
        if audience == "politician":
            values += [f"{role.since or ''}", f"{role.until or ''}"]
        writer.writerow(values)
    return text.getvalue().encode(encoding)


def _area(person: Person, role: Role, places: Places) -> tuple[str, ...]:
    if role.audience in ("newsroom", "collaboration_group"):
        return places[role.place][1]
    return person.municipalities if role.audience == "public" else role.area


def _spelt(person: Person, audience: str) -> str:
    """Each list spells the same mailbox in its own way."""
    strongest = min((role.audience for role in person.roles), key=STRONGEST_FIRST.index)
    return person.address if audience == strongest else person.address.upper()


async def _place_ids(desk: Desk) -> dict[str, str]:
    found = [
        *await desk.all_pages(f"{SUBSCRIPTIONS}/organisations"),
        *await desk.all_pages(f"{SUBSCRIPTIONS}/groups"),
    ]
    return {place["name"]: place["id"] for place in found}


async def _add(desk: Desk, person: Person, place_ids: Mapping[str, str]) -> None:
    made = await desk.add_subscriber(
        {
            "address": person.address,
            "locale": person.locale,
            "roles": [_role(role, place_ids) for role in person.roles],
            "topics": list(person.topics),
            "municipalities": list(person.municipalities),
            "paused_until": person.paused_until.isoformat() if person.paused_until else None,
        }
    )
    changes: Json = {"left_audiences": list(person.left)} if person.left else {}
    changes |= {"unsubscribed": True} if person.unsubscribed else {}
    if changes:
        await desk.change_subscriber(made["id"], changes)
    if person.erased:
        await desk.call("DELETE", f"{SUBSCRIPTIONS}/subscribers/{made['id']}")


def _role(role: Role, place_ids: Mapping[str, str]) -> Json:
    wanted: Json = {"audience": role.audience, "municipalities": list(role.area)}
    if role.place:
        key = "group_id" if role.audience == "collaboration_group" else "organisation_id"
        wanted[key] = place_ids[role.place]
    if role.since or role.until:
        wanted |= {"mandate_from": str(role.since), "mandate_until": str(role.until)}
    return wanted
