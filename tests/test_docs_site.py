"""The documentation as a site: built strictly, looked at in a browser, asking no other host."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parent.parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
PHONE, WIDE = 390, 1280


def _built(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", out]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = _built(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_is_in_the_site(site: Path) -> None:
    sources = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    assert len(sources) > 80
    for source in sources:
        path = source.relative_to(ROOT).as_posix().removeprefix("docs/")
        page = {"README.md": "index.html"}.get(Path(path).name, f"{Path(path).stem}.html")
        assert (site / Path(path).with_name(page)).exists(), path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gone](nowhere.md)", "nowhere.md leads nowhere"),
        ("[gone](faq.md#no-such-anchor)", "there is no such anchor"),
    ],
)
def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    """In a site of two pages; the settings are the site's own."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/faq.md").write_text(f"# Questions\n\n{text}\n")
    (tmp_path / "README.md").write_text("# edgecv\n")
    settings, _, _ = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")
    nav = "\nnav: [{first: index.md}, {questions: faq.md}]\n"
    (tmp_path / "mkdocs.yml").write_text(settings + nav)
    done = _built(tmp_path / "mkdocs.yml", tmp_path / "out")
    assert done.returncode != 0
    assert said in done.stdout + done.stderr


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as p:
        started = p.chromium.launch(executable_path=path, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """The site over http, from this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("width", [PHONE, WIDE])
@pytest.mark.parametrize("by", ["http", "file"])
def test_pages_open_and_search_finds(
    site: Path, served: str, browser: Any, width: int, by: str
) -> None:
    start = served if by == "http" else site.as_uri()
    tab = browser.new_page(viewport={"width": width, "height": 800})
    asked: list[str] = []
    said: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    try:
        for page in ("index.html", "start/images.html", "reference/cli.html"):
            tab.goto(f"{start}/{page}")
            assert tab.locator("h1").first.inner_text().strip()
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), page
        tab.goto(f"{start}/index.html")
        if width == PHONE:
            tab.locator("label[for='__search']").first.click()
        else:
            tab.locator("input[name='query']").click()
        tab.locator("input[name='query']").press_sequentially("letterbox")
        result = tab.locator(".md-search-result__item a").first
        result.wait_for(timeout=20_000)
        assert "letterbox" in tab.locator(".md-search-result__list").inner_text().lower()
    finally:
        tab.close()
    assert said == []
    assert [url for url in asked if not url.startswith((start, "data:", "blob:", "about:"))] == []
