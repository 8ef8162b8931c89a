"""results.json and the store → data: whole, in parts, damaged, and from others."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecv import report
from edgecv.errors import DataError
from edgecv.report import page as pages
from edgecv.report import plots, summary, verdict, words
from edgecv.report.folder import Run
from edgecv.report.gather import gather


def results(bare: Path) -> dict[str, Any]:
    return dict(json.loads((bare / "results.json").read_text()))


def write(bare: Path, data: Any) -> Path:
    (bare / "results.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return bare


def rows(data: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    every = [row for target in data["targets"] for row in target["rows"]]
    return [r for r in every if all(r[k] == v for k, v in wanted.items())]


def test_a_whole_run(page) -> None:
    data = page.data
    assert [t["name"] for t in data["targets"]] == [
        "cpu",
        "openvino",
        "tflite",
        "edgetpu",
        "tensorrt",
    ]
    assert {(p["step"], p["target"]) for p in data["pairs"]} == {
        ("small-int8", t) for t in ("cpu", "openvino", "tflite", "edgetpu")
    }
    (row,) = rows(data, step="small-int8", target="cpu")
    assert row["reference"] == "dense"
    low, high = row["value_interval"]
    assert low < row["value"] < high
    assert row["speedup"] == pytest.approx(1 / row["latency_ratio"])
    assert any(r["on_front"] for r in rows(data, target="cpu"))
    assert data["versions"]["numpy"]
    assert "quantize: {name: small-int8}" in data["recipe"]["text"]
    assert data["commands"][0]["command"] == "edgecv run tiny.yaml"


def test_the_nodes_tell_what_was_made_from_what_and_how_long_it_took(page) -> None:
    nodes = {n["id"]: n for n in page.data["nodes"]}
    assert nodes["dense"]["inputs"]["model"] == "model"
    assert nodes["dense"]["action"] in ("made", "reused")
    assert nodes["dense"]["seconds"] > 0
    assert all((page.run / "store" / "done" / n["digest"]).is_dir() for n in nodes.values())


def test_the_ladder_goes_from_the_network_to_the_compiled_file(page) -> None:
    found = {(p["step"], p["target"]): p["rungs"] for p in page.data["parity"]}
    rungs = found["small-int8", "cpu"]
    assert [(r["from"], r["to"]) for r in rungs] == [
        ("network", "float graph"), ("float graph", "int8 graph"), ("int8 graph", "engine"),
        ("float graph", "bundle"),
    ]  # fmt: skip
    (row,) = rows(page.data, step="small-int8", target="cpu")
    assert rungs[3]["sqnr_db"] == row["parity"]["float"]["sqnr_db"]
    assert rungs[0]["sqnr_db"] > 80 > rungs[1]["sqnr_db"]
    assert [r["to"] for r in found["dense", "cpu"]] == ["float graph", "engine"]


def test_the_same_images_through_both_networks(finished) -> None:
    data = gather(finished.out)
    (pair,) = (p for p in data["pairs"] if p["target"] == "cpu")
    counts = [pair[k] for k in ("both_right", "only_float", "only_compressed", "both_wrong")]
    assert sum(counts) == pair["samples"] == 36
    (row,) = rows(data, step="small-int8", target="cpu")
    assert pair["points"] == pytest.approx(row["points"])
    assert row["points_interval"] == pair["points_interval"]


def test_minds_and_saliency_of_every_engine(page) -> None:
    minds = {m["target"]: m for m in page.data["minds"]}
    assert set(minds) == {"cpu", "openvino", "tflite", "edgetpu"}
    for mind in minds.values():
        assert mind["notes"] == []
        assert -1 <= mind["drift"]["r"] <= 1
        assert 0 <= mind["drift"]["iou"] <= 1
        assert len(mind["images"]) == mind["changed"] == 5
        sure = [i["float"]["p"] for i in mind["images"] if i["float"]["label"] == i["truth"]]
        assert sure == sorted(sure, reverse=True)
        assert len(sure) >= 3, "of the ones it had right"
        for image in mind["images"]:
            assert image["float"]["label"] != image["compressed"]["label"]
            assert 0 < image["float"]["p"] <= 1


def test_results_alone_still_make_a_page_that_says_what_is_missing(bare: Path) -> None:
    path = report.write(bare)
    assert path == bare / "report.html"
    data = gather(bare)
    assert data["pairs"] == data["layers"] == []
    assert rows(data, step="small-int8", target="cpu")[0]["value"] is not None
    reasons = {line["part"]: line["reason"] for line in data["missing"]}
    assert "store" in reasons["what changed, image by image"]
    assert reasons["time by layer"] == "no profile was taken"
    assert "which is not here" in path.read_text()


def test_results_of_an_older_edgecv(bare: Path) -> None:
    data = results(bare)
    for key in ("nodes", "versions"):
        del data[key]
    data["recipe"] = {"name": "old"}
    for row in data["results"]:
        row.pop("reference")
    text = report.write(write(bare, data)).read_text()
    assert "written by an older edgecv" in text
    assert rows(gather(bare), target="cpu", step="dense")[0]["is_reference"]


def test_a_speedup_has_the_interval_of_its_ratio(bare: Path) -> None:
    data = results(bare)
    for item in data["results"]:
        if item["latency_ratio"]:
            item["latency_ratio_interval"] = [0.4, 0.5]
    (row,) = rows(gather(write(bare, data)), step="small-int8", target="cpu")
    assert row["speedup_spread"] == pytest.approx([2.0, 2.5])


def test_what_a_bundle_costs_before_it_is_warm(bare: Path) -> None:
    data = results(bare)
    peaks = [{"before": 30.0, "steady": 50.0, "peak": 60.0}, 61.5]
    for item in data["results"]:
        item |= dict.fromkeys(("memory_mb", "load_ms", "first_call_ms"))
    for item, memory in zip(data["results"], peaks, strict=False):
        item |= {"memory_mb": memory, "load_ms": 12.0, "first_call_ms": None}
    found = gather(write(bare, data))
    assert [r["memory_mb"] for r in rows(found)[:2]] == [60.0, 61.5]
    text = pages.html(bare, found)
    assert "memory, MB" in text
    assert "load, ms" in text
    assert "first call, ms" not in text


def test_a_latency_of_a_device_says_so(bare: Path) -> None:
    data = results(bare)
    data["results"][1] |= {"device": "ssh://pi", "machine": {"cpu": "Raspberry Pi 5"}}
    found = gather(write(bare, data))
    assert [r["measured_on"] for r in rows(found)[:2]] == [None, "Raspberry Pi 5"]
    assert pages.html(bare, found).count("on Raspberry Pi 5") == 2


def test_layers_come_from_the_measurement(page, copied: Path) -> None:
    (measure,) = (n for n in page.data["nodes"] if n["id"] == "measure:cpu")
    path = copied / "store" / "done" / measure["digest"] / "facts.json"
    facts = json.loads(path.read_text())
    for bundle in facts["bundles"]:
        bundle["layers"] = [
            {"name": "/a/Conv", "layer": "a", "op": "Conv", "precision": "int8", "time_ms": 0.03,
             "share": None, "bytes": 10},
            {"name": "/a/Relu", "layer": "a", "op": "Relu", "precision": "int8", "time_ms": 0.01,
             "share": None, "bytes": None},
            {"name": "reorder", "layer": "", "op": "Reorder", "precision": "", "time_ms": None,
             "share": None, "bytes": None},
        ]  # fmt: skip
    path.write_text(json.dumps(facts))
    found = [item for item in gather(copied)["layers"] if item["target"] == "cpu"]
    assert [item["step"] for item in found] == ["dense", "small-int8"]
    assert [row["share"] for row in found[0]["rows"]] == [0.75, 0.25, None]
    text = report.write(copied, data=gather(copied)).read_text()
    assert "Conv, Relu" in text, "an engine's kernels of one layer are one line"
    assert "reorder" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ('{"schema": 1, "results": [{"a": NaN}]}', "NaN is no number"),
        ("[]", "schema None"),
        ('{"schema": 3, "results": []}', "schema 3 is newer than 2"),
        ('{"schema": 1}', "it has no 'results'"),
        ('{"schema": 1, "results": [3]}', "results[0] cannot be '3'"),
        ('{"schema": 1, "results": [{}]}', "results[0] has no 'step'"),
        ('{"schema": 1, "results": [], "nodes": [{}]}', "nodes[0] has no 'id'"),
        ('{"schema": 1, "results": [], "recipe": {"only": [1]}}', "recipe.only[0] cannot be '1'"),
    ],
)
def test_a_damaged_results_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError) as error:
        gather(write(tmp_path, text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from leaves(inner, (*path, key))


def test_any_value_of_the_wrong_kind_is_one_line_or_does_no_harm(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every place of the file in turn; charts are not drawn, or it would take minutes."""
    monkeypatch.setattr(plots, "render", lambda spec, _: json.dumps(spec)[:0])
    data = results(bare)
    data["results"], data["nodes"] = data["results"][:2], data["nodes"][:7]
    for i, path in enumerate(leaves(data)):
        changed = copy.deepcopy(data)
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = (None, "x", [], {}, -1, [1], True, {"a": 1})[i % 8]
        try:
            found = gather(write(bare, changed))
        except DataError:
            continue
        assert list(summary.lines(found))
        assert pages.html(bare, found)


def test_the_old_name_of_a_field_is_read_for_one_version(
    bare: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = results(bare)
    said = [model.pop("summary") for model in data["models"]]
    for model, line in zip(data["models"], said, strict=True):
        model["told"] = line
    found = gather(write(bare, data))
    assert said
    assert [model["summary"] for model in found["models"]] == said
    assert not any("told" in model for model in found["models"])
    assert "'told' of models is 'summary' now" in caplog.text


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no results"):
        gather(tmp_path)


@pytest.mark.parametrize("digest", ["../../../etc", "/etc", "", "abc", "zz" * 16])
def test_a_digest_that_is_none_names_no_folder(tmp_path: Path, digest: str) -> None:
    node = {"id": "a", "kind": "bundle", "digest": digest, "inputs": {}}
    assert Run(tmp_path, {"nodes": [node]}).place("a") is None


def row(**over: Any) -> dict[str, Any]:
    return {
        "step": "small", "reference": "dense", "is_reference": False, "value": 0.9, "points": -0.5,
        "latency_ratio": 0.5, "spread": [0.48, 0.52],
        "speedup": 2.0, "speedup_spread": [1 / 0.52, 1 / 0.48], "smaller": 4.0,
        "engine_bytes": 2048, "status": "ok", **over,
    }  # fmt: skip


def test_the_headline_keeps_its_accuracy_where_one_does() -> None:
    quick = row(step="quick", latency_ratio=0.2, speedup=5.0, points=-10.0)
    assert verdict.of("cpu", [quick, row()])["step"] == row()["step"]
    assert verdict.of("cpu", [quick, row(points=-3.0)])["step"] == "quick", "all lose much"


def test_verdicts() -> None:
    assert verdict.of("cpu", [row()])["text"] == (
        "small is 2.00× faster on cpu [1.92, 2.08] for −0.50 points of top-1, 2 KB, 4.00× smaller"
    )
    slower = row(speedup=0.5, latency_ratio=2.0, spread=[1.9, 2.1], speedup_spread=[0.48, 0.53])
    assert verdict.of("cpu", [slower])["text"].startswith(
        "small is 2.00× slower on cpu [1.90, 2.10]"
    )
    even = row(speedup=1.0, latency_ratio=1.0, spread=[0.99, 1.02], speedup_spread=[0.98, 1.01])
    assert verdict.of("cpu", [even])["lead"] == "as fast as dense"
    away = row(latency_ratio=None, reason="no GPU; get one", status="unavailable")
    assert verdict.of("rtx", [away])["lead"] == "not timed here"
    nothing = row(latency_ratio=None, value=None, reason="died", status="failed")
    assert verdict.of("rtx", [nothing])["text"] == "rtx: failed: died"


def test_the_front_is_what_nothing_beats() -> None:
    group = [
        row(step="dense", latency_ratio=1.0, value=0.95), row(latency_ratio=0.5, value=0.9),
        row(latency_ratio=0.6, value=0.9), row(latency_ratio=None),
    ]  # fmt: skip
    verdict.mark_front(group)
    assert [r["on_front"] for r in group] == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (words.signed(-0.866), "−0.87"),
        (words.signed(-0.001), "0.00"),
        (words.signed(0.1), "+0.10"),
        (words.ms(0.1338), "0.134"),
        (words.ms(12.34), "12.3"),
        (words.size(1_200_000), "1.1 MB"),
        (words.size(50_000), "49 KB"),
        (words.interval([-1, 0.5]), "[−1.00, +0.50]"),
        (words.interval([-0.0, 0.3]), "[0.00, 0.30]"),
        (words.p_value(0.00001), "< 0.0001"),
        (words.decibel(200.0), "exact"),
        (words.seconds(0.04), "0.04 s"),
        (words.seconds(300), "5 min"),
        (words.plural(1, "image"), "1 image"),
        (words.ms(None) + words.size(None) + words.signed(None), ""),
    ],
)
def test_numbers_as_words(text: str, said: str) -> None:
    assert text == said
