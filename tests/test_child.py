"""A crash in a child process is an error here; errors travel with their type."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from edgecv import errors
from edgecv.child import call
from edgecv.errors import EdgecvError, EngineError, MissingExtraError, StoreError
from edgecv.installation import cure

KINDS = [k.__name__ for k in EdgecvError.__subclasses__()]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])


def run(**job) -> dict:
    return call("tests.crashing", job, "small@cpu")


def test_an_answer_comes_back_from_another_process() -> None:
    answer = run(do="nothing", value=[1, "é", None])
    assert answer["echo"] == {"do": "nothing", "value": [1, "é", None]}
    assert answer["pid"] != os.getpid()


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
def test_a_crash_is_an_engine_error_that_names_the_signal(name: str) -> None:
    with pytest.raises(EngineError, match=f"small@cpu: .*died of {name}: last words"):
        run(do="signal", name=name)


@pytest.mark.parametrize("how", ["exit", "os._exit"])
def test_a_process_that_ends_without_an_answer(how: str) -> None:
    with pytest.raises(EngineError, match="ended with code 3: last words"):
        run(do=how, code=3)


def test_a_bug_in_the_child_is_told_in_its_own_words() -> None:
    with pytest.raises(EngineError, match="code 1: ZeroDivisionError: a bug"):
        run(do="bug")


@pytest.mark.parametrize("kind", KINDS)
def test_errors_travel_with_type_and_facts(kind: str) -> None:
    with pytest.raises(EdgecvError) as e:
        run(do="raise", type=kind)
    assert type(e.value) is getattr(errors, kind)
    assert (e.value.where, e.value.what, e.value.hint) == ("where", "what", "hint")


def test_a_full_disk_in_the_child_is_a_store_error_not_a_crash() -> None:
    with pytest.raises(StoreError, match="no space left"):
        run(do="full disk")


def test_a_module_that_is_not_there_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="No module named"):
        call("tests.no_such_module", {}, "here")


def test_progress_is_passed_on_and_kept_out_of_the_last_words() -> None:
    seen: list[tuple] = []
    answer = call("tests.crashing", {"do": "report"}, "here", lambda *a: seen.append(a))
    assert answer["echo"] == {"do": "report"}
    assert seen == [(1, 3, ""), (2, 3, "half")]


def test_variables_reach_the_child() -> None:
    answer = call("tests.crashing", {"do": "variable"}, "here", environment={"EDGECV_X": "7"})
    assert answer["value"] == "7"


def test_a_library_that_is_not_here_is_a_missing_extra() -> None:
    said = re.escape(f"torch is not installed ({cure('compress', 'torch')})")
    with pytest.raises(MissingExtraError, match=said):
        run(do="import", name="torch.nn")
    with pytest.raises(EngineError, match="No module named"):
        run(do="import", name="edgecv.nowhere")
