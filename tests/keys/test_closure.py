"""What a module runs is found by following its imports; its words do not count."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgecv.keys.closure import ROOT, Package, package
from edgecv.keys.parsed import parse

FILES = {
    "__init__.py": '"""Nothing runs here."""\n',
    "a.py": "from typing import TYPE_CHECKING\nfrom pkg import b\nif TYPE_CHECKING:\n"
    "    from pkg import hidden\n\ndef f():\n    from pkg.deep.c import g\n    return b, g\n",
    "b.py": "import numpy as np\nCHILD = 'pkg.child'\n",
    "child.py": "import onnx\n",
    "hidden.py": "X = 1\n",
    "alone.py": "Y = 2\n",
    "deep/__init__.py": "Z = 3\n",
    "deep/c.py": "from . import d\nfrom ..b import CHILD\ng = d, CHILD\n",
    "deep/d.py": "from importlib import import_module\n\ndef engine(name):\n"
    "    return import_module(f'pkg.engines.{name}.run')\n",
    "engines/one/run.py": "import one_library\n",
    "engines/two/run.py": "import two_library\nfrom pathlib import Path\nHERE = Path(__file__)\n",
    "engines/two/c/kernel.c": "int x;\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "pkg"


def found(root: Path, *roots: str, **choices: tuple[str, ...]) -> set[str]:
    names = {f"pkg.{folder}": chosen for folder, chosen in choices.items()}
    return set(Package(root, "pkg").closure(roots, names).modules)


def test_imports_count_wherever_they_stand_and_names_of_child_processes_too(root: Path) -> None:
    everything = found(root, "pkg.a")
    assert everything == {
        "pkg.a", "pkg.b", "pkg.child", "pkg.deep", "pkg.deep.c", "pkg.deep.d",
        "pkg.engines.one.run", "pkg.engines.two.run",
    }  # fmt: skip
    assert found(root, "pkg.b") == {"pkg.b", "pkg.child"}


def test_a_name_made_at_run_time_stands_for_what_is_chosen(root: Path) -> None:
    assert "pkg.engines.one.run" not in found(root, "pkg.a", engines=("two",))
    two = Package(root, "pkg").closure(["pkg.a"], {"pkg.engines": ("two",)})
    assert two.libraries == ("numpy", "onnx", "two_library")


def test_what_a_package_passes_on_counts_where_it_is_taken(root: Path) -> None:
    (root / "deep" / "__init__.py").write_text(
        "from pkg.deep.e import E\nfrom pkg.deep.f import F\n__all__ = ['E', 'F']\n"
    )
    for name in "ef":
        (root / "deep" / f"{name}.py").write_text(f"{name.upper()} = 1\n")
    (root / "taker.py").write_text("from pkg.deep import E\n")
    assert found(root, "pkg.taker") == {"pkg.taker", "pkg.deep", "pkg.deep.e"}
    (root / "taker.py").write_text("from pkg import deep\n")
    assert found(root, "pkg.taker") == {"pkg.taker", "pkg.deep", "pkg.deep.e", "pkg.deep.f"}


def test_what_a_package_loads_for_those_who_ask_it_is_no_part_of_its_modules(root: Path) -> None:
    """PEP 562: `edgecv.export` is loaded where a program asks for it, and by no step."""
    lazy = "def __getattr__(name):\n    from pkg import alone\n    return {name: 'pkg.hidden'}\n"
    (root / "__init__.py").write_text(lazy)
    assert found(root, "pkg.b") == {"pkg.b", "pkg.child"}
    held = "class A:\n    def __getattr__(self, name):\n        from pkg import alone\n"
    (root / "b.py").write_text(held)
    assert "pkg.alone" in found(root, "pkg.b")


def test_a_root_that_is_not_there_is_an_error(root: Path) -> None:
    with pytest.raises(LookupError):
        found(root, "pkg.gone")


def test_files_beside_a_module_that_asks_where_it_lies_count(root: Path) -> None:
    before = Package(root, "pkg").digest("pkg.engines.two.run")
    (root / "engines" / "two" / "c" / "kernel.c").write_text("int y;\n")
    after = Package(root, "pkg")
    assert after.digest("pkg.engines.two.run") != before
    assert after.digest("pkg.engines.one.run") == Package(root, "pkg").digest("pkg.engines.one.run")


CODE = '''
"""Doc."""
import logging
log = logging.getLogger(__name__)

class Stage:
    """Words."""

    rate = Field(default=0.5, description="words")

    def run(self, x, mode="fast"):
        """Words."""
        if x < 0.1:  # words
            hint = f"give {x} words"
            raise StageError("where", f"is {x}: words", hint)
        log.warning("words %s", x)
        return Verdict(("words",)) if mode == "slow" else x * self.rate
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Words."""', '"""Other."""'),
        ('    """Words."""\n\n    rate', "    rate"),
        ("  # words", "\n"),
        ('f"give {x} words"', 'f"give {x}, please"'),
        ('description="words"', 'description="other"'),
        ('f"is {x}: words"', 'f"{x} is wrong"'),
        ('"words %s"', '"other %s"'),
        ('("words",)', '("other",)'),
        ("import logging", "import logging\n\n\n"),
    ],
)
def test_words_do_not_count(old: str, new: str) -> None:
    assert old in CODE
    assert parse(CODE, "m", "").code == parse(CODE.replace(old, new), "m", "").code


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.5", "0.25"),
        ("x < 0.1", "x <= 0.1"),
        ('mode="fast"', 'mode="slow"'),
        ('mode == "slow"', 'mode == "fast"'),
        ("x * self.rate", "self.rate * x"),
        ("raise StageError", "return StageError"),
        ('f"is {x}: words"', 'f"is {y}: words"'),
    ],
)
def test_code_counts(old: str, new: str) -> None:
    assert old in CODE
    assert parse(CODE, "m", "").code != parse(CODE.replace(old, new), "m", "").code


def test_a_string_that_is_said_and_used_counts() -> None:
    code = 'def f(x):\n    kind = "a"\n    if x == kind:\n        raise FooError(kind)\n'
    assert parse(code, "m", "").code != parse(code.replace('"a"', '"b"'), "m", "").code


def test_every_module_of_ours_parses_and_a_copy_has_the_same_digests(tmp_path: Path) -> None:
    names = ["edgecv.stages.train", "edgecv.benchmark.measure"]
    here = package().closure(names)
    shutil.copytree(ROOT, tmp_path / "edgecv", ignore=shutil.ignore_patterns("__pycache__"))
    assert Package(tmp_path / "edgecv").closure(names).modules == here.modules
    assert "torch" in here.libraries
