"""Pictures of a report's first screen: docs/report-wide.png, docs/report-phone.png.

    python scripts/report_pictures.py runs/quickstart/report.html

It wants Chromium on the PATH. Colours are few, so that the files are small.
"""

from __future__ import annotations

import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parents[1] / "docs"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZES = {"wide": (1280, 1215, 1), "phone": (390, 844, 2)}  # width, height, pixels of one


def main() -> int:
    report = Path(sys.argv[1]).resolve()
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, NAMES))),
            args=["--no-sandbox", "--disable-gpu"],
        )
        for name, (width, height, scale) in SIZES.items():
            size = {"width": width, "height": height}
            page = browser.new_page(viewport=size, device_scale_factor=scale)
            page.goto(report.as_uri())
            image = Image.open(BytesIO(page.screenshot()))
            path = DOCS / f"report-{name}.png"
            image.convert("RGB").quantize(128).save(path, optimize=True)
            print(f"{path}  {path.stat().st_size:,} bytes")
        browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
