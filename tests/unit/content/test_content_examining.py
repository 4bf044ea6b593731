"""The process that looks through a file: what it may use, and that an honest file needs no more."""

import io
import subprocess
import sys

import pytest
from PIL import Image, ImageCms
from tests.files import jpeg, pdf, png

from content.attachments import examining
from content.attachments.kinds import JPEG, MAX_PIXELS, PDF, PNG

WIDTH = 6_000
STARVED = "from content.attachments import examiner; examiner.MEMORY = 64 << 20; examiner.main()"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_b13_what_wants_too_much_memory_is_refused():
    image = png(Image.new("RGB", (4_000, 4_000)))
    ran = subprocess.run([sys.executable, "-c", STARVED, PNG], input=image, capture_output=True, timeout=60, check=True)
    assert ran.stdout == b'{"refused": "damaged_file"}\n'


def test_what_comes_back_is_what_was_kept():
    found = examining._examine(pdf() + b"\n", PDF)
    assert (found.content, found.width, found.height) == (pdf() + b"\n", None, None)
    found = examining._examine(png(), PNG)
    assert Image.open(io.BytesIO(found.content)).size == (found.width, found.height) == (60, 40)


def upright(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(image, exif=exif, icc_profile=PROFILE)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("make", "mode", "kind"),
    [(upright, "RGB", JPEG), (upright, "CMYK", JPEG), *((png, mode, PNG) for mode in ("RGBA", "P", "I;16", "LA"))],
)
def test_the_largest_image_that_is_taken_fits(make, mode, kind):
    image = make(Image.new(mode, (WIDTH, MAX_PIXELS // WIDTH)))
    found = examining._examine(image, kind)
    assert found.width * found.height == MAX_PIXELS
