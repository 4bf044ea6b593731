"""Every Swedish text of the endpoints' page has an English one, and none outlives its Swedish."""

from pathlib import Path

from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

import distributor.webhooks
import shared.web

HERE, SHARED = Path(distributor.webhooks.__file__).parent, Path(shared.web.__file__).parent


def known(folder: Path) -> set[str]:
    with (folder / "locale" / "en.po").open("rb") as source:
        return {str(message.id) for message in read_po(source) if message.id and message.string}


def test_the_catalogue_says_what_the_page_says() -> None:
    methods = [("**.html", "jinja2"), ("**.py", "python")]
    found = extract_from_dir(HERE, methods, keywords={"_": None})
    said = {message for _name, _line, message, _comments, _context in found}
    assert said - known(HERE) - known(SHARED) == set(), "not in English"
    assert known(HERE) - said == set(), "no longer said anywhere"
