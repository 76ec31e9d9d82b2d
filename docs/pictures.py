"""Makes the pictures of the gallery from finished runs.

    python docs/pictures.py FOLDER

FOLDER has the runs of `docs/gallery.md`, trained by the commands there, in `runs`, and
the pages of `compare`. Needs Chromium, and Pillow of the extra `demo`.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT, COLORS = 900, 1400, 256
PICTURES = {
    "modalities": ("runs/hetero_fusion_net/report.html", ("Modalities",)),
    "streams": ("runs/hetero_fusion_net/report.html", ("Streams and loss terms",)),
    "curves": ("runs/hetero_fusion_net/report.html", ("Learning curves",)),
    "confusion": ("runs/hetero_fusion_net/report.html", ("Confusion matrix",)),
    "gradients": ("runs/hetero_fusion_net/gradients.html", ("Gradient norm",)),
    "gradients_mea": ("runs/mea_gradients/report.html", ("Gradients during training",)),
    "gradients_mcl_mcf": (
        "runs/mcl_mcf_gradients/report.html",
        ("Gradients during training",),
    ),
    "comparison": ("comparison.html", ("Scores and differences",)),
}
"""Name of a picture -> page, and headings of the sections that it shows."""


def only(page: str, headings: tuple[str, ...]) -> str:
    """Returns a page with some of its sections.

    Raises:
        ValueError: The page has no such section.
    """
    shown = []

    def keep(section: re.Match[str]) -> str:
        heading = re.search(r"<h2>(.*?)</h2>", section[0], re.DOTALL)
        if heading is None or heading[1].strip() not in headings:
            return ""
        shown.append(heading[1].strip())
        return section[0]

    page = re.sub(r"<section>.*?</section>", keep, page, flags=re.DOTALL)
    if missing := set(headings) - set(shown):
        raise ValueError(f"The page has no section {', '.join(sorted(missing))}.")
    page = re.sub(r"<header>.*?</header>", "", page, flags=re.DOTALL)
    page = re.sub(r"<details.*?</details>", "", page, flags=re.DOTALL)
    return re.sub(r'<p class="warning">.*?</p>', "", page, flags=re.DOTALL)


def take(page: Path, headings: tuple[str, ...], picture: Path) -> None:
    """Writes a picture of some sections of a page, without empty borders."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    with tempfile.TemporaryDirectory() as folder:
        copy, shot = Path(folder, "page.html"), Path(folder, "shot.png")
        copy.write_text(only(page.read_text("utf-8"), headings), "utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        size = f"--window-size={WIDTH},{HEIGHT}"
        command = [browser, *options, size, f"--screenshot={shot}", copy.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        image = Image.open(shot).convert("RGB")
    border = Image.new("RGB", image.size, image.getpixel((0, 0)))
    left, top, right, bottom = ImageChops.difference(image, border).getbbox()
    image = image.crop((max(left - 8, 0), max(top - 8, 0), right + 8, bottom + 8))
    image.quantize(COLORS).save(picture, optimize=True)


def main(folder: str) -> None:
    """Makes all pictures."""
    for name, (page, headings) in PICTURES.items():
        take(Path(folder, page), headings, IMAGES / f"{name}.png")
        print(f"docs/images/{name}.png: {(IMAGES / f'{name}.png').stat().st_size} B")


if __name__ == "__main__":
    main(*sys.argv[1:])
