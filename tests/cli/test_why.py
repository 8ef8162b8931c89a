"""`edgecv why` as a real process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_a_table_or_json(edgecv: Callable, shelf) -> None:
    done = edgecv("why", shelf.int8, "--against", shelf.fp32, "--budget", "1s")
    assert done.code == 0, done.err
    assert done.out.startswith("int8.edgecv: int8 on onnxruntime, ")
    assert "ran: 3 layers in int8" in done.out
    assert "against fp32.edgecv (fp32 on onnxruntime): " in done.out
    assert "where the time goes" in done.out
    done = edgecv("why", shelf.int8, "--budget", "1s", "--json")
    assert done.code == 0, done.err
    data = json.loads(done.out)
    assert (data["bundle"], data["executed"]) == ("int8.edgecv", {"int8": 3})
    assert [row["requested"] for row in data["layers"]] == ["int8"] * 3


def test_what_int8_costs(edgecv: Callable, shelf) -> None:
    images = shelf.folder / "images" / "train"
    asked = ("--against", shelf.fp32, "--budget", "1s", "--samples", "8")
    done = edgecv("why", shelf.int8, *asked, "--images", images, "--json")
    assert done.code == 0, done.err
    data = json.loads(done.out)
    found = data["rounding"]
    assert data["executed"] == {"int8": 3}
    assert (found["images"], found["weights"]["layers"], found["notes"]) == (8, 3, [])
    assert found["all"]["db"] < found["weights"]["db"] < found["float"]["db"]
    assert sum(g["count"] for g in found["groups"]) >= 3
    done = edgecv("why", shelf.int8, *asked, "--images", images)
    assert done.code == 0, done.err
    assert "what int8 costs" in done.out
    assert "weights alone: " in done.out
    assert "dB from the float network's answers, 8 images" in done.out


def test_bad_input_is_one_line_and_2(edgecv: Callable, shelf, damaged: Path) -> None:
    for arguments in (
        (damaged,),
        (shelf.folder,),
        (shelf.int8, "--threads", "0"),
        (shelf.int8, "--budget", "soon"),
        ("nothing.edgecv",),
        (shelf.int8, "--images", shelf.folder),
        (shelf.int8, "--samples", "4"),
        (shelf.fp32, "--against", shelf.fp32, "--images", shelf.folder / "images"),
    ):
        done = edgecv("why", *arguments)
        assert done.code == 2, arguments
        (line,) = [x for x in done.err.splitlines() if x.startswith("error: ")]
        assert "Traceback" not in done.err
        assert len(line) < 400
