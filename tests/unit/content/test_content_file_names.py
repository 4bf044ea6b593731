"""Names of files, whatever they were when they came."""

import unicodedata
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from content.attachments.file_names import disposition, in_address, neutral
from content.attachments.kinds import JPEG, PDF, PNG


@pytest.mark.parametrize(
    ("sent", "kind", "kept"),
    [
        ("årsredovisning 2026.pdf", PDF, "årsredovisning 2026.pdf"),
        ("../../etc/passwd", PDF, "passwd.pdf"),
        ("..\\..\\x.pdf", PDF, "x.pdf"),
        ("C:\\Användare\\bild.JPEG", JPEG, "bild.jpg"),
        ("faktura.pdf.exe", PDF, "faktura-pdf-exe.pdf"),
        ("rapport\u202efdp.exe", PDF, "rapportfdp-exe.pdf"),
        ("a\x00b\r\nc\x7f.png", PNG, "abc.png"),
        ("A\u030angstro\u0308m.png", PNG, "Ångström.png"),
        ("CON", PDF, "fil-CON.pdf"),
        ("nul.png", PNG, "fil-nul.png"),
        ("com1.pdf", PDF, "fil-com1.pdf"),
        (".htaccess", PDF, "htaccess.pdf"),
        ("   ", PDF, "fil.pdf"),
        ("", JPEG, "fil.jpg"),
        ("....", PNG, "fil.png"),
        ('<img src="x" onerror=alert(1)>.png', PNG, "img src=-x- onerror=alert(1).png"),
        ("100%25.pdf", PDF, "100-25.pdf"),
        ("å" * 300 + ".pdf", PDF, "å" * 100 + ".pdf"),
    ],
)
def test_b13_a_name_is_neutralised(sent, kind, kept):
    assert neutral(sent, kind) == kept


@given(st.text(max_size=300))
def test_b13_no_name_leads_anywhere_or_hides_anything(sent):
    name = neutral(sent, PDF)
    assert name.endswith(".pdf") and name.count(".") == 1 and len(name.encode()) <= 210
    assert not set(name) & set('/\\:*?"<>|%\0\r\n')
    assert not name.startswith((".", "-", " "))
    assert all(unicodedata.category(character) not in ("Cc", "Cf", "Cs") for character in name)
    assert neutral(name, PDF) == name
    assert in_address(name).isascii()
    assert in_address(name).replace("-", "").replace(".", "").isalnum()


@given(st.text(max_size=100))
def test_the_header_says_the_name_to_another_reader(sent):
    name = neutral(sent, PNG)
    header = disposition("inline", name)
    assert header.isascii() and header.isprintable()
    read = EmailMessage()
    read["Content-Disposition"] = header.replace(f'filename="{in_address(name)}"; ', "")
    assert read.get_filename() == name
    assert read.get_content_disposition() == "inline"
