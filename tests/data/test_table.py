"""A table of numbers: what is read, what is left out and counted, what is refused."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv import data
from edgecv.data import as_outputs
from edgecv.data.annotations import Numbers
from edgecv.data.files import tell
from edgecv.data.table import read
from edgecv.errors import DataError

image = pytest.importorskip("PIL.Image")
HEAD = "image,angle [deg],level\n"


@pytest.fixture(autouse=True)
def _afresh() -> None:
    tell.cache_clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name, size in (("a.png", (40, 60)), ("in/b.png", (20, 20)), ("c.png", (8, 9))):
        image.fromarray(np.full((*size, 3), 77, np.uint8)).save(tmp_path / name)
    return tmp_path


def made(root: Path, rows: str, head: str = HEAD, encoding: str = "utf-8") -> data.Images:
    (root / "t.csv").write_text(head + rows, encoding=encoding)
    return data.materialise(f"table:{root / 't.csv'}", "train", (8, 8), 3, {}, root / "out")


def test_rows_of_numbers_by_their_columns_names(root: Path) -> None:
    found = made(root, 'a.png,1.5,-2\n"in/b.png", 3e2 ,0\n\n')
    assert (found.classes, found.kind) == (("angle [deg]", "level"), "Numbers")
    assert isinstance(found.truth, Numbers)
    assert found.truth.values.tolist() == [[1.5, -2], [300, 0]]
    assert found.sizes((8, 8)) == [(40, 60), (20, 20)]
    assert found.told[1].tolist() == [300, 0]
    assert (found.labels == 0).all()


def test_a_mark_of_spreadsheets_is_no_part_of_a_name(root: Path) -> None:
    assert made(root, "a.png,1,2\r\n", encoding="utf-8-sig").classes == ("angle [deg]", "level")


def test_what_cannot_be_used_is_left_out_and_counted(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = (
        "a.png,1,2\na.png,1.0,2\nin/b.png,nan,1\nc.png,,3\nc.png,1,inf\ngone.png,1,1\nc.png,5,6\n"
    )
    with caplog.at_level(logging.WARNING):
        found = made(root, rows)
    assert found.truth.values.tolist() == [[1, 2], [5, 6]]
    for line in (
        "1 of its 7 rows are not there (gone.png, ...): left out",
        "3 of its 7 rows have a number that is missing, NaN or infinite: left out",
        "1 of its 7 rows are there already: left out",
    ):
        assert line in caplog.text


@pytest.mark.parametrize(
    ("head", "rows", "line"),
    [
        (HEAD, "a.png,1,high\n", r"t\.csv:2: level is 'high', no number"),
        (HEAD, "a.png,1,1_0\n", r"t\.csv:2: level is '1_0', no number"),
        (HEAD, "a.png,1,2\na.png,1\n", r"t\.csv:3: has 2 columns, the header 3"),
        (HEAD, "a.png,1,2\na.png,1,3\n", r"t\.csv:3: says other numbers of 'a\.png'"),
        (HEAD, 'a.png,1,"2\n', r"is no CSV: "),
        (HEAD, "gone.png,1,2\n", "none of its 1 images can be used"),
        (HEAD, "", "none of its 0 images can be used"),
        ("", "a.png,1,2\n", r"t\.csv:1: is no header"),
        ("image,a,a\n", "a.png,1,2\n", "two columns 'a'"),
        ("image,a,\n", "a.png,1,2\n", "is no header: it names no columns"),
        ("image;a;b\n", "a.png;1;2\n", "parted by ';'"),
        ("image\n", "a.png\n", "has no column of numbers"),
        ("", "", "has no column of numbers"),
    ],
)
def test_a_wrong_table_is_one_line(root: Path, head: str, rows: str, line: str) -> None:
    with pytest.raises(DataError, match=line) as caught:
        made(root, rows, head)
    assert "\n" not in str(caught.value)


def test_what_is_no_table(root: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        data.parse("table:gone.csv").items("train")
    with pytest.raises(DataError, match="no text in UTF-8"):
        made(root, "ä,1,2\n", encoding="latin-1")


def test_the_fingerprint_covers_numbers_and_images(root: Path) -> None:
    made(root, "a.png,1,2\n")
    source = f"table:{root / 't.csv'}"
    seen = [data.fingerprint(source, "train")]
    (root / "t.csv").write_text(HEAD + "a.png,1,3\n")
    seen.append(data.fingerprint(source, "train"))
    image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(root / "a.png")
    seen.append(data.fingerprint(source, "train"))
    assert len(set(seen)) == 3


def test_it_says_what_task_it_is_of() -> None:
    source = data.parse("table:x.csv")
    assert (source.truth, source.task, source.labelled) == ("Numbers", "regression", True)


def test_columns_go_where_the_network_has_them(root: Path) -> None:
    found = made(root, "a.png,1,2\nc.png,3,4\n")
    placed = as_outputs(found, ("level", "none", "angle [deg]"))
    assert placed.classes == ("level", "none", "angle [deg]")
    np.testing.assert_array_equal(placed.truth.values, [[2, np.nan, 1], [4, np.nan, 3]])
    with pytest.raises(DataError, match="class 'level' is no output"):
        as_outputs(found, ("angle [deg]", "pitch"))


CELLS = st.one_of(
    st.sampled_from(["a.png", "c.png", "gone.png", "", "1", "nan", "1e400", '"', "-0", "x,y", ";"]),
    st.text(max_size=6),
    st.just("x" * 300),
    st.floats().map(str),
)
LINES = st.lists(st.lists(CELLS, min_size=1, max_size=4).map(",".join), max_size=6)


@settings(deadline=None, max_examples=150)
@given(lines=LINES, head=st.booleans(), noise=st.binary(max_size=4))
def test_any_text_is_a_table_or_one_line(lines: list[str], head: bool, noise: bytes) -> None:
    text = (HEAD if head else "") + "\n".join(lines)
    with tempfile.TemporaryDirectory() as room:
        for name in ("a.png", "c.png"):
            (Path(room) / name).touch()
        path = Path(room) / "t.csv"
        path.write_bytes(text.encode("utf-8", "surrogatepass") + noise)
        try:
            names, rows = read(str(path))
        except DataError as error:
            names, rows, told = (), {}, str(error)
        else:
            told = ""
        assert bool(rows) == (not told)
        assert "\n" not in told
        assert all(len(row) == len(names) and np.isfinite(row).all() for row in rows.values())
