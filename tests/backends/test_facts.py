"""Every engine is one folder that says what it is; no list elsewhere names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv import backends, target
from edgecv.backends import ENGINES, compile_module, facts, run_module


def test_engines_are_found_by_listing() -> None:
    folders = {p.parent.name for p in Path(backends.__file__).parent.glob("*/run.py")}
    assert set(ENGINES) == folders
    assert set(ENGINES) == {target.load(name).backend for name in target.names()}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_says_what_it_is(engine: str) -> None:
    said = facts(engine)
    assert said.label
    assert said.absent
    assert callable(compile_module(engine).compile)
    assert run_module(engine).probe().engine == engine
    assert callable(run_module(engine).Session)


def test_no_two_engines_have_one_name() -> None:
    assert len({facts(engine).label for engine in ENGINES}) == len(ENGINES)
