"""`table:FILE.csv`: a row of numbers for each image.

    image,angle [deg],distance [m]
    a/0001.jpg,12.5,3.1

The first column is the image's path, from the folder of the file; the header calls the others, with
a unit in brackets where they have one. Columns are parted by commas, numbers have a point (RFC
4180, UTF-8).

A row whose image is not there, one with a number that is NaN or infinite or missing, and one that
is there already are left out and counted; two rows of one image that say different numbers, another
count of columns and what is no number are errors that name the line.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from edgecv.data.decode import Notes, decode
from edgecv.data.files import is_there, open_regular, tell
from edgecv.data.source import HERE, Items, hash_files
from edgecv.errors import DataError

_LAYOUT = "a header, then rows: image,NUMBER,..., with a name for each column"

Rows = dict[Path, np.ndarray]  # of each image its numbers, float64 (K,)


def items(argument: str, split: str, channels: int | None = None) -> Items:  # noqa: ARG001
    """The images that the file names. The file says which split it is, so `split` is not asked.

    Raises DataError: not such a file, a wrong row, no image.
    """
    names, rows = read(argument)
    files, notes = list(rows), Notes()
    asked = None if channels in (1, 3) else channels

    def item(index: int) -> tuple[np.ndarray, np.ndarray]:
        return decode(files[index], asked, notes), rows[files[index]]

    return Items(
        len(files), item, names, asked or 3, parallel=True, notes=notes.sentences, truth="Numbers"
    )


def fingerprint(argument: str, split: str) -> str:  # noqa: ARG001
    """SHA-256 over the file and the images that it names; nothing is decoded."""
    path = Path(argument).expanduser()
    named = [(str(i), image) for i, image in enumerate(read(argument)[1])]
    return hash_files([(path.name, path), *named])


def read(argument: str) -> tuple[tuple[str, ...], Rows]:
    """The columns' names, and the numbers of every image that is there. Raises DataError."""
    where, path = f"table:{argument}", Path(argument).expanduser()
    if not path.is_file():
        raise DataError(where, "no such file", HERE)
    lines = _lines(path)
    names = _names(path, lines[0][1] if lines else [])
    rows: Rows = {}
    told = {"are not there": 0, "have a number that is missing, NaN or infinite": 0,
            "are there already": 0}  # fmt: skip
    absent = ""
    for number, cells in lines[1:]:
        place = f"{path}:{number}"
        if len(cells) != len(names) + 1:
            what = f"has {len(cells)} columns, the header {len(names) + 1}"
            raise DataError(place, what, _LAYOUT)
        values, image = _values(place, names, cells[1:]), path.parent / cells[0].strip()
        if not (is_there(image) and image.is_file()):
            absent = absent or cells[0].strip()
            told["are not there"] += 1
        elif not np.isfinite(values).all():
            told["have a number that is missing, NaN or infinite"] += 1
        elif image not in rows:
            rows[image] = values
        elif np.array_equal(rows[image], values):
            told["are there already"] += 1
        else:
            what = f"says other numbers of {cells[0]!r} than a row above it"
            raise DataError(place, what, "leave one of them out")
    if not rows:
        what = f"none of its {len(lines) - 1} images can be used"
        first = f"no file {path.parent / absent}" if absent else _LAYOUT
        raise DataError(where, what, first)
    for what, count in told.items():
        if count:
            example = f" ({absent}, ...)" if what == "are not there" else ""
            tell(where, f"{count} of its {len(lines) - 1} rows {what}{example}: left out")
    return names, rows


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(number of the line, cells) of what is not empty. Raises DataError."""
    with open_regular(path) as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")  # spreadsheets write a mark before it
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise DataError(str(path), "is no text in UTF-8", "save it as CSV UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}", f"is no CSV: {error}", _LAYOUT) from error


def _names(path: Path, header: list[str]) -> tuple[str, ...]:
    """The columns' names. Raises DataError: there are none."""
    if len(header) < 2:
        parted = next((mark for mark in ";\t" if mark in "".join(header)), "")
        what = f"its columns are parted by {parted!r}" if parted else "has no column of numbers"
        raise DataError(f"{path}:1", what, "save it with commas" if parted else _LAYOUT)
    names = tuple(name.strip() for name in header[1:])
    if not all(names) or all(_number(name) is not None for name in names):
        raise DataError(f"{path}:1", "is no header: it names no columns", _LAYOUT)
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError(f"{path}:1", f"has two columns {twice!r}")
    return names


def _values(place: str, names: tuple[str, ...], cells: list[str]) -> np.ndarray:
    """Raises DataError: a cell that is no number; an empty one is NaN."""
    found = []
    for name, cell in zip(names, cells, strict=True):
        value = _number(cell) if cell.strip() else float("nan")
        if value is None:
            raise DataError(place, f"{name} is {cell.strip()[:40]!r}, no number", _LAYOUT)
        found.append(value)
    return np.array(found, np.float64)


def _number(text: str) -> float | None:
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None
