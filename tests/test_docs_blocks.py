"""Every shell and Python block of the README and the documentation runs, on tiny files.

`tests.docs.blocks` says how a block is annotated; `tests.docs.files` what the files are.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs import blocks, files

for needed in ("torch", "onnxruntime", "PIL", "pycocotools"):
    pytest.importorskip(needed)

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FOUND = {page: blocks.blocks(page) for page in PAGES}
RUN = [page for page, found in FOUND.items() if any(not b.skip for b in found)]


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that blocks speak of, made once. Copy them."""
    folder = tmp_path_factory.mktemp("tiny")
    files.tiny(folder)
    return folder


@pytest.fixture(scope="session")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder behind a run and two exports, bundles under short names too."""
    from edgecv.cli import main

    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "recipe.yaml"]) == 0
        out = ("--target", "cpu", "--out", ".")
        assert main(["export", "net.onnx", "--calibration", "photos/", *out]) == 0
        assert main(["export", "detector.onnx", "--task", "detection", *out]) == 0
    short = {
        "runs/recipe/bundles/small-int8.cpu": ("accepted", "shoe", "small-int8.cpu"),
        "runs/recipe/bundles/dense.cpu": ("dense.cpu",),
        "detector-fp32.cpu": ("street", "det"),
    }
    for made, names in short.items():
        for name in names:
            shutil.copy(folder / f"{made}.edgecv", folder / f"{name}.edgecv")
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's: blocks run in it, and import from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.mark.parametrize("page", RUN, ids=_name)
def test_the_blocks_of_a_page_run(page: Path, folder: Path, request: pytest.FixtureRequest) -> None:
    made: dict[str, Callable[[], Path]] = {
        "tiny": lambda: request.getfixturevalue("tiny"),
        "run": lambda: request.getfixturevalue("finished"),
        "api": lambda: request.getfixturevalue("finished"),
    }
    names: dict[str, object] = {"__name__": "__main__"}
    for block in FOUND[page]:
        if block.skip:
            continue
        for setup in block.setup:
            shutil.copytree(made[setup](), folder, dirs_exist_ok=True)
            if setup == "api":
                names |= files.names(folder)
        sys.modules.pop("mynet", None)
        try:
            blocks.run(block, folder, names)
        except Exception as e:
            raise AssertionError(f"{_name(page)}:{block.line}: {type(e).__name__}: {e}") from e


def test_most_blocks_run_and_the_others_say_why() -> None:
    every = [block for found in FOUND.values() for block in found]
    skipped = [block for block in every if block.skip]
    for block in skipped:
        print(f"{_name(block.page)}:{block.line}: {blocks.WHY[block.skip]}")
    assert len(skipped) < len(every) / 3


def test_a_block_that_fails_is_seen(folder: Path, tiny: Path) -> None:
    page = folder / "page.md"
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    page.write_text(
        "```sh\nedgecv export none.onnx --target cpu --out out/\n```\n\n"
        "```sh\nfalse | cat; test -e net.onnx && exit 3\n```\n\n"
        "```python\nassert 1 > 2\n```\n\n<!-- test: skip ssh -->\n```sh\nssh pi\n```\n"
    )
    found = blocks.blocks(page)
    assert [b.skip for b in found] == ["", "", "", "ssh"]
    for block in found[:3]:
        with pytest.raises(AssertionError):
            blocks.run(block, folder, {})


def test_a_comment_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- test: skip because -->\n```sh\ntrue\n```\n")
    with pytest.raises(ValueError, match="is not known"):
        blocks.blocks(page)


def test_recipes_of_the_pages_are_accepted(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every YAML block that is a whole recipe; those with a file's name run on their page."""
    import yaml

    from edgecv.plan import recipe

    monkeypatch.chdir(tiny)
    seen = 0
    for page in PAGES:
        for text in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.S | re.M):
            said = yaml.safe_load(text)
            if text.startswith("# ") or not isinstance(said, dict):
                continue
            if {"model", "data", "stages", "targets"} <= set(said):
                recipe.check(said, Path("page.yaml"), {})
                seen += 1
    assert seen
