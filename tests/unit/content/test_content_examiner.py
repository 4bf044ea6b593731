"""What is kept of a file that was looked through, read by the formats' own rules."""

import io
import zipfile

import pytest
from PIL import Image, ImageCms
from pypdf.annotations import Link
from pypdf.generic import DictionaryObject, NameObject, StreamObject, TextStringObject
from tests.files import (
    EICAR,
    archive,
    document,
    jpeg,
    jpeg_markers,
    pdf,
    photograph,
    picture,
    pixel_bomb,
    png,
    png_chunks,
    scripted,
    written,
)

from content.attachments.examiner import examine
from content.attachments.kinds import JPEG, PDF, PNG, Refused

SEEN_ALONE = {0xE0, 0xDB, 0xC0, 0xC4}
"""JFIF's own head, quantisation, frame, codes: what a picture needs."""


def opened(content):
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def refused(content, media_type):
    with pytest.raises(Refused) as refusal:
        examine(content, media_type)
    return str(refusal.value)


def test_a_photograph_keeps_its_pixels_and_nothing_that_the_camera_noted():
    found = examine(photograph(), JPEG)
    assert set(jpeg_markers(found.content)) == SEEN_ALONE
    assert b"Kamera" not in found.content and b"Hemlig" not in found.content and b"Exif" not in found.content
    assert (found.width, found.height) == opened(found.content).size == (60, 40)


def test_it_stands_upright():
    found = examine(photograph(orientation=6), JPEG)
    assert (found.width, found.height) == opened(found.content).size == (40, 60)
    assert opened(found.content).convert("L").getpixel((35, 30)) < 50, "what was above is at the right"
    assert opened(found.content).convert("L").getpixel((5, 30)) > 200


def test_the_same_file_gives_the_same_bytes():
    assert examine(photograph(), JPEG) == examine(photograph(), JPEG)
    once = examine(png(), PNG).content
    assert examine(once, PNG).content == once


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_png_of_any_mode_is_seen_as_before(mode):
    image = picture().convert(mode)
    found = examine(png(image), PNG)
    assert set(png_chunks(found.content)) == {b"IHDR", b"IDAT", b"IEND"}
    assert opened(found.content).convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


def test_what_was_transparent_is():
    image = picture().convert("P")
    found = examine(png(image, transparency=image.getpixel((0, 0))), PNG)
    assert opened(found.content).mode == "RGBA"
    assert opened(found.content).getextrema()[3] == (0, 255)


def test_sixteen_bits_of_grey_are_scaled_not_cut():
    grey = Image.new("I;16", (8, 8), 0x8000)
    pixel = opened(examine(png(grey), PNG).content).convert("L").getpixel((0, 0))
    assert pixel in (127, 128, 129)


def test_ink_becomes_light():
    found = examine(jpeg(Image.new("CMYK", (8, 8), (255, 0, 0, 0))), JPEG)
    red, green, blue = opened(found.content).getpixel((4, 4))
    assert red < 60 and green > 150 and blue > 150


def test_colours_are_brought_into_the_one_space_that_everybody_has():
    """A profile of another space: the pixels change, and the profile is gone."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    same, strange = examine(png(image, icc_profile=own), PNG), examine(png(image, icc_profile=b"no profile"), PNG)
    assert opened(same.content).getpixel((0, 0)) == (200, 100, 50)
    assert same.content == strange.content
    assert b"iCCP" not in examine(png(image, icc_profile=lab), PNG).content


@pytest.mark.parametrize(
    "hidden",
    [archive(), b"%PDF-1.7\n%%EOF", b"<script>alert(1)</script>", EICAR, pdf(), b"\0" * 100_000],
    ids=["zip", "pdf", "html", "eicar", "whole pdf", "zeros"],
)
@pytest.mark.parametrize(("make", "kind"), [(jpeg, JPEG), (png, PNG)])
def test_b13_what_is_hidden_behind_an_image_is_not_kept(make, kind, hidden):
    found = examine(make() + hidden, kind)
    assert found == examine(make(), kind)
    assert not zipfile.is_zipfile(io.BytesIO(found.content))


def test_b13_what_is_hidden_beside_the_pixels_is_not_kept():
    profile = b"\0" * 128 + archive()
    comment = b"%PDF-1.7 <script>alert(1)</script>" + EICAR
    for found in (
        examine(jpeg(comment=comment, icc_profile=profile), JPEG),
        examine(png(icc_profile=profile), PNG),
        examine(png(picture().convert("P"), icc_profile=profile), PNG),
    ):
        assert b"PDF" not in found.content and b"script" not in found.content and b"EICAR" not in found.content
        assert not zipfile.is_zipfile(io.BytesIO(found.content))


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (jpeg()[:-200], JPEG, "damaged_file"),
        (jpeg()[:20], JPEG, "damaged_file"),
        (png()[:60], PNG, "damaged_file"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, PNG, "damaged_file"),
        (png(), JPEG, "damaged_file"),
        (pixel_bomb(), PNG, "too_many_pixels"),
        (b"%PDF-1.7\n", PDF, "hidden_data"),
        (b"%PDF-1.7\n%%EOF", PDF, "damaged_file"),
        (pdf()[: len(pdf()) // 2] + b"\n%%EOF", PDF, "damaged_file"),
        (pdf() + archive(), PDF, "hidden_data"),
        (pdf() + archive() + b"\n%%EOF", PDF, "hidden_data"),
        (pdf() + b"<script>alert(1)</script>", PDF, "hidden_data"),
        (pdf(pages=0), PDF, "damaged_file"),
    ],
)
def test_b13_what_cannot_be_read_to_its_end_or_is_more_than_it_says_is_refused(content, kind, code):
    assert refused(content, kind) == code


def test_a_pdf_is_kept_to_the_byte():
    content = pdf(pages=3, Title="Årsredovisning")
    assert examine(content, PDF).content == content
    assert examine(content + b"\r\n", PDF).content == content + b"\r\n"


def with_a_file():
    writer = document()
    writer.add_attachment("a.exe", b"MZ")
    return writer


def doing(**entry):
    """A document with one more dictionary that nothing leads to."""
    writer = document()
    names = {NameObject(f"/{name}"): NameObject(f"/{value}") for name, value in entry.items()}
    writer._add_object(DictionaryObject(names))
    return writer


def acting(kind, **more):
    named = {NameObject(f"/{name}"): TextStringObject(value) for name, value in more.items()}
    return DictionaryObject({NameObject("/S"): NameObject(f"/{kind}"), **named})


def opening(kind="Launch", key="/OpenAction", **more):
    """A document that does so when it is opened."""
    writer = document()
    writer._root_object[NameObject(key)] = acting(kind, **more)
    return writer


def linking(kind, **more):
    """A document with a link that does so when it is followed."""
    writer = document()
    writer._add_object(acting(kind, **more))
    return writer


def elsewhere(**entry):
    """A document with a picture that lies in another file."""
    writer = document()
    stream = StreamObject()
    stream.update({NameObject(f"/{name}"): value for name, value in entry.items()})
    writer._add_object(stream)
    return writer


@pytest.mark.parametrize(
    "writer",
    [
        scripted(),
        with_a_file(),
        opening(F="cmd.exe"),
        opening("URI", URI="https://a.example/"),
        opening("Named", N="Print"),
        opening("URI", key="/AA", URI="https://a.example/"),
        linking("GoToR", F=r"\\evil.example\a.pdf"),
        linking("URI", URI="javascript:app.alert(1)"),
        linking("URI", URI=" FILE:///c:/a.exe"),
        linking("URI", URI=r"\\evil.example\a"),
        elsewhere(F=TextStringObject(r"\\evil.example\a")),
        elsewhere(Subtype=NameObject("/Form"), Ref=DictionaryObject()),
        doing(S="JavaScript"),
        doing(S="SubmitForm"),
        doing(S="ImportData"),
        doing(Subtype="RichMedia"),
        doing(Subtype="FileAttachment"),
        doing(Type="EmbeddedFile"),
        doing(XFA="x"),
    ],
)
def test_b13_a_pdf_that_does_something_by_itself_is_refused(writer):
    assert refused(written(writer), PDF) == "active_content"


@pytest.mark.parametrize(
    "writer",
    [
        opening("GoTo"),
        *(linking("URI", URI=address) for address in ("https://a.example/", "mailto:a@a.example", "#sida2", "bilaga")),
    ],
)
def test_a_pdf_may_open_at_a_page_and_link_to_addresses(writer):
    content = written(writer)
    assert examine(content, PDF).content == content


def test_b13_so_is_one_that_says_it_by_another_object():
    writer = document()
    name = writer._add_object(NameObject("/Launch"))
    writer._add_object(DictionaryObject({NameObject("/S"): name}))
    assert refused(written(writer), PDF) == "active_content"


def test_b13_a_pdf_whose_table_is_wrong_is_not_mended():
    """What stands at the place that the table names is another object: programs guess, each in its own way."""
    content = pdf()
    place = content.index(b"1 0 obj")
    assert refused(content[:place] + b"9 0 obj" + content[place + 7 :], PDF) == "damaged_file"
    moved = content.replace(b"%010d 00000 n" % place, b"%010d 00000 n" % (place + 1))
    assert moved != content
    assert refused(moved, PDF) == "damaged_file"


def test_b13_so_is_one_that_writes_its_names_another_way():
    assert refused(written(doing(S="JavaScript")).replace(b"/JavaScript", b"/J#61vaScript"), PDF) in (
        "active_content",
        "damaged_file",  # the table of places may not fit any more
    )


def test_b13_a_locked_pdf_is_refused():
    writer = document()
    writer.encrypt("", "owner", algorithm="RC4-128")
    assert refused(written(writer), PDF) == "encrypted_file"


def test_a_pdf_with_links_and_bookmarks_is_welcome():
    writer = document(pages=2)
    writer.add_outline_item(title="Inledning", page_number=0)
    writer.add_annotation(page_number=0, annotation=Link(rect=(0, 0, 90, 90), url="https://a.example/Web/JavaScript"))
    content = written(writer)
    assert examine(content, PDF).content == content
