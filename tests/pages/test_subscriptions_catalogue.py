"""Every Swedish text of the subscriptions' pages and mails has an English one, and none outlives its Swedish."""

from pathlib import Path

from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

import shared.web
import subscriptions

HERE, SHARED = Path(subscriptions.__file__).parent, Path(shared.web.__file__).parent


def known(folder: Path) -> set[str]:
    with (folder / "locale" / "en.po").open("rb") as source:
        return {str(message.id) for message in read_po(source) if message.id and message.string}


def test_the_catalogue_says_what_the_pages_say() -> None:
    methods = [("**.html", "jinja2"), ("**.py", "python")]
    found = extract_from_dir(HERE, methods, keywords={"_": None})
    said = {message for _name, _line, message, _comments, _context in found}
    assert said - known(HERE / "web") - known(SHARED) == set(), "not in English"
    assert known(HERE / "web") - said == set(), "no longer said anywhere"
