import logging
import os

import numpy as np
import pytest
from PIL import Image

from edgecv import data
from edgecv.data.files import calibration_images, scan, text_lines
from edgecv.data.imagefolder import items
from edgecv.errors import DataError


def picture(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        picture(tmp_path / "in" / "ant" / f"{i}.png")
        picture(tmp_path / "in" / "bee" / f"{i}.tif")
    return tmp_path / "in"


def names(root):
    found = items(str(root), "train")
    return found.count, found.classes


def test_a_class_folder_that_is_a_link_is_read(folder, tmp_path):
    picture(tmp_path / "elsewhere" / "0.gif")
    (folder / "owl").symlink_to(tmp_path / "elsewhere")
    assert names(folder) == (7, ("ant", "bee", "owl"))


def test_links_in_a_circle_end_and_nothing_counts_twice(folder, caplog):
    (folder / "ant" / "up").symlink_to(folder)
    (folder / "ant" / "self").symlink_to(folder / "ant")
    (folder / "ant" / "other-class").symlink_to(folder / "bee")
    assert names(folder)[0] == 6
    assert "3 links to a folder that is read already (other-class, self, up)" in caplog.text


def test_a_folder_behind_two_links_is_read_once(folder, tmp_path):
    picture(tmp_path / "elsewhere" / "0.png")
    for link in ("first", "second"):
        (folder / "ant" / link).symlink_to(tmp_path / "elsewhere")
    assert names(folder)[0] == 7


def test_two_classes_that_are_one_folder_are_refused(folder):
    (folder / "copy").symlink_to(folder / "ant")
    with pytest.raises(DataError, match="'copy' and 'ant' are the same folder"):
        names(folder)


def test_a_class_folder_that_leads_to_the_root_is_refused(folder):
    (folder / "all").symlink_to(folder)
    with pytest.raises(DataError, match="'all' and the folder of all classes"):
        names(folder)


def test_a_pipe_called_jpg_is_passed_over_and_never_waited_for(folder, caplog):
    os.mkfifo(folder / "ant" / "pipe.jpg")
    assert names(folder)[0] == 6
    assert "1 passed over: 1 no regular files (pipe.jpg)" in caplog.text
    with pytest.raises(DataError, match="is no regular file"):
        data.decode(folder / "ant" / "pipe.jpg")


def test_what_is_passed_over_is_told_once_with_reasons(folder, caplog):
    for name in ("notes.txt", "ant/a.heic", "ant/b.heic", "ant/.DS_Store", "bee/Thumbs.db"):
        (folder / name).write_bytes(b"x")
    names(folder)
    data.fingerprint(f"imagefolder:{folder}", "train")
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "5 passed over" in line
    assert "3 not named as images (.heic, .db)" in line
    assert "1 hidden (.DS_Store)" in line
    assert "1 outside the class folders (notes.txt)" in line


def test_nothing_is_said_of_a_clean_folder(folder, caplog):
    names(folder)
    assert not caplog.records


def test_names_that_would_steer_a_terminal_are_escaped(folder):
    (folder / "ant" / "a\x1b[2J.tx\x1bt").write_bytes(b"")
    assert "\x1b" not in scan(folder).note()


def test_calibration_follows_links_too(folder, tmp_path, caplog):
    picture(tmp_path / "elsewhere" / "0.ppm")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "read.me").write_text("")
    assert len(calibration_images(folder)) == 7
    assert "1 passed over" in caplog.text


def test_lines_of_text(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes(b"\xef\xbb\xbfant\r\nb\xc3\xa9e\n")
    assert text_lines(path) == ["ant", "b\u00e9e"]
    path.write_bytes(b"ant\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"classes\.txt: is no text"):
        text_lines(path)


@pytest.mark.parametrize("source", ["yolo", "masks", "voc"])
def test_names_that_are_no_text_are_one_line(tmp_path, source):
    for folder in ("images", "labels", "masks", "JPEGImages", "Annotations"):
        (tmp_path / folder).mkdir()
    for folder in ("images", "JPEGImages", "masks"):
        np.save(tmp_path / folder / "a.npy", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation/>")
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is no text"):
        data.parse(f"{source}:{tmp_path}").items("test")
