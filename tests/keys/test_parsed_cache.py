"""What was parsed before is taken for the same content and the same parser alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.keys import closure, parsed_cache
from edgecv.keys.closure import Package
from edgecv.keys.parsed_cache import ParsedCache

SOURCE = "import numpy\nfrom pkg import b\n\ndef f():\n    return b.X\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "pkg"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "a.py").write_text(SOURCE)
    (root / "b.py").write_text("X = 1\n")
    return root


def found(root: Path, cache: Path | None) -> closure.Closure:
    return Package(root, "pkg", ParsedCache(cache) if cache else None).closure(["pkg.a"])


def test_a_second_reading_parses_nothing(root, tmp_path, monkeypatch) -> None:
    first = found(root, tmp_path / "cache")
    assert first == found(root, None)
    monkeypatch.setattr(closure, "parse", None)
    assert found(root, tmp_path / "cache") == first


def test_an_edit_is_never_missed(root, tmp_path) -> None:
    cache = tmp_path / "cache"
    before = found(root, cache)
    (root / "a.py").write_text(SOURCE.replace("b.X", "b.Y") + "import scipy\n")
    assert found(root, cache) == found(root, None) != before
    (root / "a.py").write_text(SOURCE)
    assert found(root, cache) == before


def test_another_parser_has_another_file(root, tmp_path, monkeypatch) -> None:
    found(root, tmp_path / "cache")
    other = tmp_path / "parsed.py"
    other.write_text(parsed_cache.PARSER.read_text() + "\n")
    monkeypatch.setattr(parsed_cache, "PARSER", other)
    assert ParsedCache(tmp_path / "cache").entries == {}


def test_a_damaged_file_is_no_file(root, tmp_path) -> None:
    cache = tmp_path / "cache"
    whole = found(root, cache)
    (kept,) = cache.iterdir()
    text = kept.read_text()
    for damage in (text.replace("pkg.b", "pkg.c"), text[:100], "", "\0", "null\nnull"):
        kept.write_text(damage)
        assert ParsedCache(cache).entries == {}
        assert found(root, cache) == whole
        assert kept.read_text() == text


def test_a_folder_that_cannot_be_made_is_no_error(root, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert found(root, tmp_path / "file" / "cache") == found(root, None)


def test_our_own_sources_are_kept_where_the_user_says(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert parsed_cache.folder() == tmp_path / "edgecv"
