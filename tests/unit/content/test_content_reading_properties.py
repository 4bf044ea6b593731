"""Files and preconditions that nobody would send in good faith: refused, or kept as what they say they are."""

import io

from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from PIL import Image
from tests.files import jpeg, pdf, png

from content.attachments.examiner import examine
from content.attachments.examining import COMPLAINTS
from content.attachments.kinds import JPEG, PDF, PNG, Refused
from content.preconditions import _expected

WHOLE = {PNG: png(), JPEG: jpeg(), PDF: pdf()}


@st.composite
def bent(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file with some bytes changed, cut, doubled or added."""
    kind = draw(st.sampled_from(sorted(WHOLE)))
    content = bytearray(WHOLE[kind])
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        size = draw(st.integers(0, 12))
        content[at : at + size] = draw(st.binary(max_size=12) | st.just(bytes(content[at : at + size]) * 2))
    return kind, bytes(content)


@trials(max_examples=60, deadline=None)
@given(bent())
def test_b13_a_bent_file_is_refused_or_kept_as_one_that_others_can_read(file: tuple[str, bytes]) -> None:
    kind, content = file
    try:
        found = examine(content, kind)
    except Refused as refused:
        assert str(refused) in COMPLAINTS
        return
    if kind == PDF:
        assert found.content == content
        return
    with Image.open(io.BytesIO(found.content)) as image:
        image.load()
        assert (image.format, image.size) == (kind.removeprefix("image/").upper(), (found.width, found.height))


@trials(max_examples=100, deadline=None)
@given(
    st.frozensets(st.integers(0, 10**8), max_size=4),
    st.text(max_size=40)
    | st.lists(st.sampled_from(['"', "W/", "7", ",", " ", "*", "\\", "٣", "-"]), max_size=12).map("".join),
)
def test_b12_if_match_names_whole_versions_or_none(versions: frozenset[int], typed: str) -> None:
    assert _expected(", ".join(f'"{version}"' for version in versions)) == versions
    taken = _expected(typed)
    assert taken is None if typed.strip() == "*" else taken is not None
    assert all(f'"{version}"' in typed.replace('"0', '"') or f'{version}"' in typed for version in taken or ())
