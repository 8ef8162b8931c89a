"""`make fast` finds the tests of what changed."""

from __future__ import annotations

import pytest

from scripts import fast_tests


def test_the_mirror_comes_first_then_what_imports_it():
    found = fast_tests.touched(["edgecv/tasks/paired.py"])
    assert found[0] == "tests/tasks/test_paired.py"
    assert "tests/report/test_differences.py" in found
    assert len(found) < 60


@pytest.mark.parametrize(
    ("path", "test"),
    [
        ("docs/faq.md", "tests/test_docs.py"),
        (
            "docs/bench.md",
            "tests/test_docs_blocks.py::test_the_blocks_of_a_page_run[docs/bench.md]",
        ),
        ("README.md", "tests/test_docs.py"),
        ("edgecv/report/page.html.j2", "tests/report/test_page.py"),
        ("edgecv/plan/store.py", "tests/plan/test_store.py"),
        ("tests/plan/test_store.py", "tests/plan/test_store.py"),
        ("scripts/fast_tests.py", "tests/test_fast_tests.py"),
        ("edgecv/models/edits.py", "tests/models/test_edits.py"),
    ],
)
def test_of_a_file(path, test):
    assert test in fast_tests.touched([path])


def test_nothing_is_near_what_nothing_reads():
    assert fast_tests.touched(["LICENSE"]) == []


def test_what_the_time_does_not_suffice_for_is_named(capsys):
    assert fast_tests.run(["tests/plan/test_store.py"], budget_s=0.0) == 0
    assert "not run within 0 s: tests/plan/test_store.py" in capsys.readouterr().out


def test_a_failing_file_is_an_exit_code(tmp_path):
    path = tmp_path / "test_wrong.py"
    path.write_text("def test_it():\n    assert False\n")
    assert fast_tests.run([str(path)], budget_s=60.0) == 1
