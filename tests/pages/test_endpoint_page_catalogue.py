"""Every Swedish text of the distributor's pages has an English one, and none outlives its Swedish."""

from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

import distributor.readers
import distributor.webhooks
import shared.web

SHARED = Path(shared.web.__file__).parent
PAGES = [Path(part.__file__).parent for part in (distributor.webhooks, distributor.readers)]


def known(folder: Path) -> set[str]:
    with (folder / "locale" / "en.po").open("rb") as source:
        return {str(message.id) for message in read_po(source) if message.id and message.string}


@pytest.mark.parametrize("here", PAGES, ids=lambda here: here.name)
def test_the_catalogue_says_what_the_page_says(here: Path) -> None:
    methods = [("**.html", "jinja2"), ("**.py", "python")]
    found = extract_from_dir(here, methods, keywords={"_": None})
    said = {message for _name, _line, message, _comments, _context in found}
    assert said - known(here) - known(SHARED) == set(), "not in English"
    assert known(here) - said == set(), "no longer said anywhere"
