"""The report in a real browser: on a phone and a wide screen, dark, on paper, by keyboard alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.predicting.bundles import detector, segmenter
from tests.report.test_seen import boxed, levels, run_folder, striped

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
if CHROMIUM is None:
    pytest.skip("there is no Chromium here", allow_module_level=True)

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PHONE, WIDE = 390, 1280
FOCUSABLE = "a[href], summary, button, input, [tabindex='0']"


@dataclass
class Opened:
    """A page in a tab, and everything that went on in it."""

    tab: Any
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def ask(self, script: str) -> Any:
        return self.tab.evaluate(script)

    def count(self, selector: str) -> int:
        return int(self.tab.locator(selector).count())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        # A fresh profile, which goes when the browser goes.
        started = p.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Opened]]:
    """opened(path, width, scheme) -> Opened"""
    tabs = []

    def make(path: Path, width: int = WIDE, scheme: str = "light") -> Opened:
        tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        tabs.append(tab)
        one = Opened(tab)
        tab.on("request", lambda r: one.asked.append(r.url))
        tab.on("console", lambda m: one.said.append(f"{m.type}: {m.text}"))
        tab.on("pageerror", lambda e: one.said.append(str(e)))
        tab.on("dialog", lambda d: (one.said.append(f"dialog: {d.message}"), d.dismiss()))
        tab.goto(path.as_uri())
        return one

    yield make
    for tab in tabs:
        tab.close()


@pytest.mark.parametrize("width", [PHONE, WIDE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_complaint_and_no_network(page, opened: Callable, width: int, scheme: str) -> None:
    one = opened(page.path, width, scheme)
    assert one.said == []
    assert [u for u in one.asked if not u.startswith(("file:", "data:"))] == []
    assert len([u for u in one.asked if u.startswith("file:")]) == 1


@pytest.mark.parametrize("width", [320, PHONE, WIDE])
def test_the_page_does_not_scroll_sideways(page, opened: Callable, width: int) -> None:
    one = opened(page.path, width)
    one.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert one.ask("document.documentElement.scrollWidth") <= width
    wide = one.ask(
        """[...document.querySelectorAll('table, svg, pre, figure')].filter(e =>
        e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1
        && !e.closest('.scroll, .flow, pre')).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert wide == []


def test_what_scrolls_can_be_reached(page, opened: Callable) -> None:
    one = opened(page.path, PHONE)
    lost = one.ask(
        """[...document.querySelectorAll('*')].filter(e => e.checkVisibility()
        && /auto|scroll/.test(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1
        && e.tabIndex < 0).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert lost == []


@pytest.mark.parametrize("width", [PHONE, WIDE])
def test_tab_reaches_everything_and_shows_where_it_is(page, opened: Callable, width: int) -> None:
    one = opened(page.path, width)
    wanted = one.ask(
        f"""[...document.querySelectorAll("{FOCUSABLE}")].filter(e => e.checkVisibility())
        .map((e, i) => e.dataset.n = String(i))"""
    )
    assert len(wanted) > 15
    reached = []
    for _ in wanted:
        one.tab.keyboard.press("Tab")
        found = one.ask(
            """(() => { const e = document.activeElement, s = getComputedStyle(e);
            return [e.dataset.n, s.outlineStyle, parseFloat(s.outlineWidth)]; })()"""
        )
        reached.append(found[0])
        assert found[1] != "none", found
        assert found[2] >= 2, found
    assert reached == wanted


def test_the_first_tab_skips_to_the_results(page, opened: Callable) -> None:
    one = opened(page.path)
    one.tab.keyboard.press("Tab")
    assert one.ask("document.activeElement.className") == "skip"
    assert one.ask("document.activeElement.getBoundingClientRect().left") >= 0
    one.tab.keyboard.press("Enter")
    assert one.ask("document.activeElement.id") == "main"


def test_enter_opens_what_is_closed(page, opened: Callable) -> None:
    one = opened(page.path)
    closed = one.tab.locator("details:not([open]) > summary").first
    one.ask("document.querySelector('details:not([open])').id = 'closed'")
    closed.focus()
    one.tab.keyboard.press("Enter")
    assert one.ask("document.getElementById('closed').open") is True


def test_every_picture_has_a_text(page, opened: Callable) -> None:
    one = opened(page.path)
    mute = one.ask(
        """[...document.querySelectorAll('img, svg, [role=img]')].filter(e =>
        e.getAttribute('aria-hidden') !== 'true' && !(e.getAttribute('alt')
        || (e.getAttribute('role') === 'img' && e.getAttribute('aria-label'))))
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert mute == []
    assert one.count("svg[role=img]") > 8
    tree = one.tab.locator("body").aria_snapshot()
    assert 'img "cpu: top-1 against time' in tree
    assert 'heading "Results" [level=2]' in tree
    assert re.search(r"region .From the network to the compiled file", tree)


def test_the_pictures_are_drawn(page, opened: Callable) -> None:
    """Pixels are embedded, found by their reference, and no policy blocks them."""
    one = opened(page.path)
    broken = one.ask(
        """Promise.all([...document.querySelectorAll('image')].map(e => { const i = new Image();
        i.src = e.getAttribute('href'); return i.decode().then(() => 0, () => 1); }))"""
    )
    assert len(broken) > 3
    assert sum(broken) == 0
    unknown = one.ask(
        """[...document.querySelectorAll('use')].filter(u =>
        !document.querySelector(u.getAttribute('href'))).length"""
    )
    assert unknown == 0


def luminance(colour: str) -> float:
    """WCAG's relative luminance of "rgb(r, g, b)"."""
    channels = [float(v) / 255 for v in re.findall(r"[\d.]+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


COLOURS = """(() => {
  const ground = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
  const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll('*')].filter(e => e.checkVisibility() && own(e))
    .map(e => { const s = getComputedStyle(e);
      const svg = e instanceof SVGElement;
      if (svg && s.stroke !== 'none') return null;  // the rim behind a name
      return [e.textContent.trim().slice(0, 30), svg ? s.fill : s.color,
              ground(svg ? e.closest('svg').parentElement : e)]; }).filter(Boolean);
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(page, opened: Callable, scheme: str) -> None:
    one = opened(page.path, WIDE, scheme)
    body = one.ask("getComputedStyle(document.body).backgroundColor")
    assert (luminance(body) < 0.1) == (scheme == "dark")
    found = one.ask(COLOURS)
    assert len(found) > 200
    faint = [(t, a, b) for t, a, b in found if contrast(a, b) < 4.5]
    assert faint == []


def test_charts_take_the_colours_of_the_scheme(page, opened: Callable) -> None:
    fills = [
        opened(page.path, WIDE, scheme).ask(
            "getComputedStyle(document.querySelector('.card svg text')).fill"
        )
        for scheme in ("light", "dark")
    ]
    assert fills[0] != fills[1]


def test_a_phone_reads_a_list_instead_of_the_graph(page, opened: Callable) -> None:
    phone, wide = opened(page.path, PHONE), opened(page.path, WIDE)
    assert not phone.tab.locator(".flow").is_visible()
    assert wide.tab.locator(".flow").is_visible()
    for one in (phone, wide):
        assert one.tab.locator("#stages-caption").is_visible()
    smallest = phone.ask(
        """Math.min(...[...document.querySelectorAll('svg text')].filter(e => e.checkVisibility())
        .map(e => { const s = e.closest('svg'), b = s.getBoundingClientRect().width;
        return parseFloat(getComputedStyle(e).fontSize) * b / s.viewBox.baseVal.width; }))"""
    )
    assert smallest >= 9


COLUMN = """([id, column]) => [...document.getElementById(id).closest('table')
  .querySelectorAll('tbody tr')].map(r => r.cells[column].textContent.trim())"""


def column(one: Opened, table: str, index: int) -> list[str]:
    return [str(v) for v in one.tab.evaluate(COLUMN, [table, index])]


@pytest.mark.parametrize("width", [PHONE, WIDE])
def test_a_click_on_a_head_sorts_and_a_third_undoes_it(page, opened: Callable, width: int) -> None:
    one = opened(page.path, width)
    table = one.tab.locator("table:has(#results-caption)")
    written = column(one, "results-caption", 0)
    sizes = [row["engine_bytes"] for t in page.data["targets"] for row in t["rows"]]
    heads = table.locator("thead th")
    size = [h.strip() for h in heads.all_inner_texts()].index("size")
    shown = """i => [...document.querySelector('table:has(#results-caption)').tBodies]
      .flatMap(b => [...b.rows]).map(r => r.cells[i].dataset.v ?? null).map(v => v && Number(v))"""
    head = heads.nth(size)
    button = head.locator("button")
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    known, unknown = sorted(s for s in sizes if s), [None] * sum(not s for s in sizes)
    assert one.tab.evaluate(shown, size) == [*known, *unknown]
    button.focus()
    one.tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert one.tab.evaluate(shown, size) == [*reversed(known), *unknown]
    button.click()
    assert head.get_attribute("aria-sort") is None
    assert column(one, "results-caption", 0) == written
    heads.nth(0).locator("button").click()
    assert column(one, "results-caption", 0) == sorted(written)
    heads.nth(2).locator("button").click()
    assert table.locator("[aria-sort]").count() == 1
    assert one.said == []
    assert all(u.startswith(("file:", "data:")) for u in one.asked)


def test_negative_numbers_and_units_sort_by_value(page, opened: Callable) -> None:
    one = opened(page.path)
    table = one.tab.locator("table:has(#stages-caption)")
    table.locator("thead button", has_text="took").click()
    shown = one.ask(
        """[...document.querySelector('table:has(#stages-caption)').tBodies[0].rows]
        .map(r => r.cells[3].dataset.v).filter(Boolean).map(Number)"""
    )
    assert len(shown) > 5
    assert shown == sorted(shown)


def test_without_a_script_the_page_is_whole_and_as_written(page, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.path.as_uri())
    table = tab.locator("table:has(#results-caption)")
    assert table.locator("thead button").count() == 0
    first = table.locator("tbody th").first.inner_text()
    assert first.startswith(page.data["targets"][0]["rows"][0]["step"])
    context.close()


def test_a_click_opens_another_matrix_and_closes_the_first(page, opened: Callable) -> None:
    one = opened(page.path)
    shut = one.tab.locator("details[name=confusion]:not([open]) > summary").first
    told = shut.inner_text()
    shut.click()
    now = one.tab.locator("details[name=confusion][open] > summary")
    assert now.count() == 1
    assert now.inner_text() == told


@pytest.mark.parametrize("width", [PHONE, WIDE])
def test_the_first_screen_shows_the_first_choice(page, opened: Callable, width: int) -> None:
    one = opened(page.path, width)
    box = one.tab.locator(".pick").first.bounding_box()
    assert box["y"] + box["height"] <= one.tab.viewport_size["height"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_paper_is_white_and_holds_what_is_closed(page, opened: Callable, scheme: str) -> None:
    one = opened(page.path, WIDE, scheme)
    one.tab.emulate_media(media="print", color_scheme=scheme)
    body = one.ask("getComputedStyle(document.body).backgroundColor")
    assert luminance(body) > 0.95
    assert contrast(one.ask("getComputedStyle(document.body).color"), body) > 10
    heights = one.ask(
        """[...document.querySelectorAll('details:not([open]) .inside')]
        .map(e => e.getBoundingClientRect().height)"""
    )
    assert heights
    assert min(heights) > 100
    assert not one.tab.locator("nav").is_visible()
    assert one.tab.pdf(prefer_css_page_size=True)[:5] == b"%PDF-"


def test_names_that_are_html_do_nothing(hostile, opened: Callable) -> None:
    one = opened(hostile.path)
    assert one.said == []
    assert one.tab.title().endswith("edgecv report")
    assert one.count("img") == 0
    assert one.count("script") == 1, "the page's own"
    assert one.tab.locator("text=<script>document.title").first.is_visible()


def test_results_alone_are_a_page_too(bare: Path, opened: Callable) -> None:
    from edgecv import report

    one = opened(report.write(bare), PHONE)
    assert one.said == []
    assert one.ask("document.documentElement.scrollWidth") <= PHONE
    assert one.tab.locator("#missing").is_visible()


@pytest.fixture(scope="module", params=["detection", "segmentation"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two networks of a task that differ, their figures as a run has them."""
    pytest.importorskip("onnx")
    from edgecv import report

    folder, boxes = tmp_path_factory.mktemp(request.param), request.param == "detection"
    if boxes:
        bundles = [detector(folder / "a.edgecv"), detector(folder / "b.edgecv", share=(1.0, 0.25))]
    else:
        bundles = [segmenter(folder / "a.edgecv"),
                   segmenter(folder / "b.edgecv", gain=(1.0, 1.0, 1.5))]  # fmt: skip
    (folder / "run").mkdir()
    run = run_folder(folder / "run", bundles, boxed(levels(204, 102, 230)) if boxes else striped())
    data = json.loads((run / "results.json").read_text())
    keys = ("ap50", "ap75", "ap_small", "precision", "recall") if boxes else ("pixel_accuracy",)
    for row in data["results"]:
        row["metric"] |= {"name": "map50_95" if boxes else "miou", "reference": 0.52,
                          "more": dict.fromkeys(keys, 0.5)}  # fmt: skip
    (run / "results.json").write_text(json.dumps(data))
    return report.write(run)


@pytest.mark.parametrize("width", [320, PHONE, WIDE])
def test_what_is_found_otherwise_fits(found: Path, opened: Callable, width: int) -> None:
    one = opened(found, width)
    assert one.said == []
    assert one.ask("document.documentElement.scrollWidth") <= width
    assert one.tab.locator("#found-caption").is_visible()
    assert one.tab.locator("#figures-caption").is_visible()
    narrow = one.ask(
        """[...document.querySelectorAll('.scenes svg')].filter(e =>
        e.getBoundingClientRect().width < 100).length"""
    )
    assert one.count(".scenes svg") >= 2
    assert narrow == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_told_of_it_can_be_read(found: Path, opened: Callable, scheme: str) -> None:
    one = opened(found, WIDE, scheme)
    texts = [(t, a, b) for t, a, b in one.ask(COLOURS) if not t.isdigit()]
    assert [(t, a, b) for t, a, b in texts if contrast(a, b) < 4.5] == []
    numbers = one.ask(
        """[...document.querySelectorAll('.scenes svg text')].map(e =>
        [getComputedStyle(e).fill, getComputedStyle(e.previousElementSibling).fill])"""
    )
    assert all(contrast(a, b) >= 4.5 for a, b in numbers)
