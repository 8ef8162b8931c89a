"""The documentation is true: pages are current, examples are accepted, links lead somewhere."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from edgecv.cli import build_parser
from edgecv.plan import recipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OWN = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
PAGES = [*(ROOT / name for name in OWN), *sorted((ROOT / "docs").rglob("*.md"))]


def _make_docs():
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts/make_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", _make_docs().pages(), ids=lambda p: p.name)
def test_a_generated_page_is_current(path):
    assert path.read_text() == _make_docs().pages()[path], "run `make docs`"


def test_the_recipe_of_the_readme_is_accepted():
    (text,) = re.findall(r"```yaml\n(model:.*?)```", README, re.S)
    checked = recipe.check(yaml.safe_load(text), Path("readme.yaml"), {})
    assert [s.name for s in checked.shipped()] == ["small-int8"]


def test_every_command_that_is_shown_exists():
    parser = build_parser()
    known = next(a for a in parser._actions if getattr(a, "choices", None)).choices
    pages = "\n".join(p.read_text() for p in PAGES)
    shown = set(re.findall(r"(?:bin/|`|^)edgecv ([a-z]+) [a-zA-Z-]+[./]", pages, re.M))
    assert shown
    assert shown <= set(known)


def test_every_command_is_in_the_readme_or_the_changelog():
    parser = build_parser()
    known = next(a for a in parser._actions if getattr(a, "choices", None)).choices
    text = README + (ROOT / "CHANGELOG.md").read_text()
    assert [name for name in known if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_what_the_readme_says_of_make_is_there():
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{name}:", makefile, re.M), name


def _texts() -> str:
    """All strings of the package, f-strings' fixed parts too, in one line of words."""
    found = []
    for path in sorted((ROOT / "edgecv").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return " ".join(" | ".join(found).split())


def test_messages_of_the_faq_are_the_codes_own():
    """Two words on end of each message, of ten letters at the least, stand in the package."""
    page = (ROOT / "docs/faq.md").read_text()
    messages = re.findall(r"^- \*\*`([^`]+)`", page, re.M)
    assert len(messages) > 15
    texts = _texts()
    for message in messages:
        words = message.replace("...", "").split()
        runs = (" ".join(pair) for pair in itertools.pairwise(words or [""]))
        runs = [run for run in runs if len(run) >= 10] or [message]
        assert any(run in texts for run in runs), message


def test_templates_and_hooks_are_yaml_and_their_tools_are_pinned():
    pins = (ROOT / "constraints.txt").read_text()
    for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")):
        said = yaml.safe_load(path.read_text())
        for part in said.get("body", []):
            assert part["attributes"]["label"], path
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for hook in hooks:
        assert hook["language"] == "system"
        tool = Path(hook["entry"].split()[0]).name
        assert tool == "python" or f"\n{tool}==" in pins


def test_every_extra_is_on_the_page_of_installation():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs/start/install.md").read_text()
    assert [e for e in extras["optional-dependencies"] if f"`[{e}]`" not in page] == []


def test_a_variable_that_the_code_reads_is_documented():
    pages = _make_docs().reference_pages
    assert {"EDGECV_TRUST_SOURCE", "EDGETPU_COMPILER"} <= pages.variables_read()
    assert pages.variables_read() <= set(pages.VARIABLES) | pages.INNER


def test_the_readme_is_a_screen_and_a_half():
    assert 80 <= len(README.splitlines()) <= 120
