"""Ids that a replay meets again, and where their rows come to lie."""

from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from shared.ids import derived_beside, derived_hexes, derived_id, new_id

PARTS = st.lists(st.one_of(st.text(), st.integers(), st.uuids()), min_size=1, max_size=4)


@given(PARTS, st.text())
def test_digits_for_many_are_those_of_each(parts: list[object], last: str) -> None:
    assert UUID(derived_hexes(*parts)(last)) == derived_id(*parts, last)


@given(st.uuids(), PARTS, st.uuids())
def test_what_is_derived_beside_a_parent_begins_as_it_does_and_is_the_same_for_ever(
    parent: UUID, parts: list[object], last: UUID
) -> None:
    key = derived_beside(parent, *parts)(last)
    assert key == derived_beside(parent, *parts)(last)
    assert (key.version, key.variant, key.hex[:12]) == (8, RFC_4122, parent.hex[:12])


def test_an_id_of_a_ledger_stays_what_it_is() -> None:
    """Another one would have everybody's mail sent again by whatever is replayed after an update."""
    parent, person = UUID("01939f00-0000-7000-8000-000000000001"), UUID("01939f00-0000-7000-8000-000000000002")
    key = derived_beside(parent, "delivery", 1, "mail")(person)
    assert key == UUID("01939f00-0000-8c34-b2a9-e49e672ea0e2")


def test_another_parent_revision_or_person_has_another_id() -> None:
    parent = new_id()
    sibling = UUID(int=parent.int ^ 1)  # of the same millisecond
    keys = [
        derived_beside(one, "delivery", revision, "mail")(person)
        for one in (parent, sibling)
        for revision in (1, 2)
        for person in range(100)
    ]
    assert len(set(keys)) == len(keys)


def test_rows_of_a_later_parent_lie_behind_those_of_an_earlier() -> None:
    earlier, later = UUID("01939f00-0000-7000-8000-000000000001"), UUID("01939f00-0001-7000-8000-000000000001")
    before = [derived_beside(earlier, "delivery")(person) for person in range(100)]
    behind = [derived_beside(later, "delivery")(person) for person in range(100)]
    assert max(before) < min(behind)
