"""The page of a look at data, with a contact sheet a class."""

from training.evaluation.diagnose import small_pictures
from training.evaluation.report.page import templates
from training.look import Look


def page(found: Look) -> str:
    """Return the page; the pictures that it shows are read again."""
    shown = {image.sha256: image.path for images in found.sheet.values() for image in images}
    return (
        templates()
        .get_template("look.html.j2")
        .render(found=found, thumbnails=small_pictures(shown), left_out=found.left_out)
    )
