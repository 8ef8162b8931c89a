"""The HTML file: alone, well formed, the same bytes again, and no text gets out of its place."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgecv import report
from edgecv.installation import cure
from edgecv.report import flow, pictures
from edgecv.report import page as pages
from edgecv.report.gather import gather

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Document(HTMLParser):
    """The page as a list of (tag, attributes) with the text of headings; checks nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, *names: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag in names]


@pytest.fixture(scope="module")
def document(page) -> Document:
    return Document(page.text)


def test_it_is_small_and_needs_nothing_else(page, document: Document) -> None:
    assert page.path.stat().st_size < 3 * 2**20
    assert document.of("iframe", "object", "embed") == []
    assert document.of("script") == [{}], "its own, in the page"
    for attrs in (a for _, a in document.tags):
        for key in ("src", "href", "srcset", "xlink:href"):
            value = attrs.get(key) or "#"
            assert value.startswith(("#", "data:")), value
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_no_script_runs_but_the_pages_own(page, document: Document) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (a["content"] for a in document.of("meta") if a.get("http-equiv"))
    assert f"script-src 'sha256-{digest}';" in (policy or "")
    assert script == (Path(report.__file__).parent / "sort.js").read_text()


def test_the_first_screen_names_a_file_to_ship(page, document: Document) -> None:
    assert page.data["cards"]
    text = " ".join(" ".join(document.words).split())
    for card in page.data["cards"]:
        assert card["title"] in text
        assert f"File to ship: {card['file']}" in text
        assert (page.run / card["file"]).is_file()


def test_the_safest_ones_matrix_is_open(page, document: Document) -> None:
    first, card = page.data["confusion"][0], page.data["cards"][0]
    assert (first["step"], first["target"]) == (card["step"], card["target"])
    opened = [a for a in document.of("details") if a.get("name") == "confusion"]
    assert ["open" in a for a in opened] == [True] + [False] * (len(opened) - 1)
    assert len(opened) == len(page.data["confusion"]) > 4
    for one in page.data["confusion"]:
        (row,) = (r for t in page.data["targets"] for r in t["rows"]
                  if (r["step"], r["target"]) == (one["step"], one["target"]))  # fmt: skip
        assert sum(map(sum, one["counts"])) == one["samples"] == row["metric"]["samples"]
        assert sum(one["counts"][i][i] for i in range(3)) == one["right"]


def test_the_images_are_summed_up(page, document: Document) -> None:
    train, test = page.data["splits"]
    assert (train["images"], test["images"]) == (96, 36)
    assert set(test["classes"].values()) == {12}
    text = " ".join(document.words)
    assert "96 images to train, 36 images to test; 3 classes" in text
    assert "12 of each class" in text


def test_where_fp32_beats_all_it_is_the_file_to_ship(bare: Path) -> None:
    data = json.loads((bare / "results.json").read_text())
    slow = [r for r in data["results"] if r["latency_ms"] and r["step"] != r["reference"]]
    for row in slow:
        row |= {"latency_ratio": 1.2, "latency_ratio_interval": [1.1, 1.3],
                "engine_bytes": 10**9, "reason": "int8 is slower than fp32"}  # fmt: skip
        row["metric"]["value"] = row["metric"]["reference"] - 0.1
    (bare / "results.json").write_text(json.dumps(data))
    text = " ".join(report.write(bare).read_text().split())
    (card,) = gather(bare)["cards"]
    assert "<h2>Nothing here is worth shipping over fp32</h2>" in text
    assert f"File to ship: <code>{card['file']}</code>" in text
    assert card["file"].startswith("bundles/dense.")
    commands = {f"edgecv why {bare.name}/{row['bundle']}" for row in slow}
    assert card["command"] in commands
    assert f"<code>{card['command']}</code> says why" in text
    for command in commands:  # and below the table of results
        assert f"int8 is slower than fp32: `{command}` says why" in text


def test_a_busy_machine_is_told_on_the_cards_it_concerns(page, tmp_path: Path) -> None:
    run = Path(shutil.copytree(page.run, tmp_path / "run"))
    data = json.loads((run / "results.json").read_text())
    for row in data["results"]:
        row["busy"] = False
    (run / "results.json").write_text(json.dumps(data))
    assert 'class="busy"' not in report.write(run).read_text()
    for row in data["results"]:
        row["busy"] = row["target"] == "cpu" and row["status"] == "ok"
    (run / "results.json").write_text(json.dumps(data))
    gathered = gather(run)
    assert [t["verdict"]["busy"] for t in gathered["targets"]] == [
        t["name"] == "cpu" for t in gathered["targets"]
    ]
    cards = [c for c in gathered["cards"] if c["target"] == "cpu"]
    # the target's card, its chart, and the first screen's
    assert report.write(run).read_text().count('class="busy"') == 2 + len(cards)
    assert all(c["busy"] == (c["target"] == "cpu") for c in gathered["cards"])


def test_the_same_run_gives_the_same_bytes(page, tmp_path: Path) -> None:
    again = report.write(page.run, tmp_path / "again.html")
    assert again.read_bytes() == page.path.read_bytes()


def test_nothing_of_this_machines_paths_is_in_it(page) -> None:
    assert str(page.run) not in page.text
    assert str(Path.home()) not in page.text or str(Path.home()) == "/"


def test_headings_are_in_order_and_named(document: Document) -> None:
    levels = [int(t[1]) for t, _ in document.tags if re.fullmatch(r"h[1-6]", t)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_names_are_unique_and_links_lead_somewhere(document: Document) -> None:
    names = [a["id"] for _, a in document.tags if a.get("id")]
    assert len(names) == len(set(names))
    for attrs in (a for _, a in document.tags):
        for key in ("href", "aria-labelledby"):
            value = attrs.get(key) or ""
            if key == "aria-labelledby" or value.startswith("#"):
                assert value.lstrip("#") in (*names, ""), value


def test_pictures_have_a_text_and_tables_a_caption(document: Document) -> None:
    for attrs in document.of("svg"):
        hidden = attrs.get("aria-hidden") == "true"
        assert hidden or (attrs.get("role") == "img" and attrs.get("aria-label")), attrs
    assert len(document.of("table")) == len(document.of("caption")) > 4
    assert all(a.get("scope") in ("col", "row") for a in document.of("th"))


def test_every_part_is_there(page, document: Document) -> None:
    text = " ".join(document.words)
    for part in ("Results", "What changed", "Parity", "Layers", "Stages", "Reproduce",
                 "float graph → int8 graph", "edgecv run tiny.yaml", "edgecv bench",
                 "quantize: {name: small-int8}", "Saliency drift"):  # fmt: skip
        assert part in text, part
    for target in page.data["targets"]:
        assert target["name"] in text
    labels = [a.get("aria-label") or "" for a in document.of("svg")]
    assert any(x.startswith("cpu: top-1 against time") for x in labels)
    assert any(x.startswith("edgetpu: top-1 against size") for x in labels)
    assert any("Stage graph" in x for x in labels)


def test_what_became_of_a_network_is_told_step_by_step(page, document: Document) -> None:
    (model,) = page.data["models"]
    assert model["step"] == "small"
    assert [p["step"] for p in model["curve"]] == [
        "dense", "round 1, cut", "round 1, recalibrated", "round 1, tuned",
    ]  # fmt: skip
    text = " ".join(document.words)
    assert all(line in text for line in model["history"])
    assert all(f"{100 * point['value']:.2f}" in text for point in model["curve"])


def test_text_of_others_stays_text(hostile) -> None:
    document = Document(hostile.text)
    assert document.of("img", "b") == [{} for t, a in document.tags if t == "b" and a == {}]
    assert document.of("script") == [{}], "the page's own"
    assert 'document.title="owned"' not in hostile.text.replace("&#34;", '"').split("<body>")[0]
    assert "&lt;script&gt;" in hostile.text
    words = " ".join(document.words)
    assert '<script>document.title="owned"</script>' in words
    assert "<img src=x onerror=alert(1)>" in words
    assert [a for _, a in document.tags if any(k.startswith("on") for k in a)] == []


def test_a_run_in_which_nothing_could_be_made(tmp_path: Path) -> None:
    row = '{"step": "a", "target": "t", "engine": "e", "precision": "fp32", "status": "failed"}'
    (tmp_path / "results.json").write_text(f'{{"schema": 1, "results": [{row}]}}')
    Document(report.write(tmp_path).read_text())
    (tmp_path / "results.json").write_text('{"schema": 1, "results": []}')
    Document(report.write(tmp_path).read_text())


def test_the_stage_graph_goes_from_left_to_right(page) -> None:
    laid = flow.layout(page.data["nodes"])
    places = {b["node"]["id"]: b for b in laid.boxes}
    assert set(places) == {n["id"] for n in page.data["nodes"]}
    for node in page.data["nodes"]:
        for source in node["inputs"].values():
            if not source.startswith("data:"):
                assert places[source]["x"] < places[node["id"]]["x"]
    for a in laid.boxes:
        assert 0 <= a["x"] <= laid.width - flow.WIDTH
        assert 0 <= a["y"] <= laid.height - flow.HEIGHT
        for b in laid.boxes:
            apart = a["x"] != b["x"] or abs(a["y"] - b["y"]) >= flow.HEIGHT
            assert a is b or apart, "no box lies on another"


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from edgecv.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(MissingExtraError, match=re.escape(cure("report", ""))):
        pages.check_libraries()


def test_photographs_are_shown_small() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    photo = rng.integers(0, 255, (224, 320, 3), dtype=np.uint8)
    assert pictures.image(photo).startswith("data:image/jpeg")
    assert len(pictures.image(photo)) < 20_000
    assert pictures.image(photo[:28, :28, :1]).startswith("data:image/png")
    assert len(pictures.veil(rng.random((7, 7)), (224, 320))) < 4_000
    assert pictures.veil(np.zeros((7, 7)), (28, 28)).startswith("data:image/png")
