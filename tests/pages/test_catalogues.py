"""Every Swedish text of the pages has an English one, and no English text outlives its Swedish."""

from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

import content.web
import shared.web

SHARED, CONTENT = (Path(module.__file__).parent for module in (shared.web, content.web))
METHODS = [("**.html", "jinja2"), ("**.py", "python")]


def said(folder):
    found = extract_from_dir(folder, METHODS, keywords={"_": None, "gettext": None})
    return {message for _name, _line, message, _comments, _context in found}


def known(folder):
    with (folder / "locale" / "en.po").open("rb") as source:
        return {message.id: message.string for message in read_po(source) if message.id}


@pytest.mark.parametrize("folder", [SHARED, CONTENT], ids=["shared", "content"])
def test_the_catalogue_says_what_the_pages_say(folder):
    assert len(said(folder)) > 10
    everywhere = known(SHARED) | known(folder)
    assert {message for message in said(folder) if not everywhere.get(message)} == set()
    assert set(known(folder)) - said(folder) == set(), "no longer said anywhere"
