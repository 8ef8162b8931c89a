"""What lies in models/ is of the last run; what a user put there stays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
from edgecv.plan import pipeline


def test_models_of_other_runs_go_and_a_users_own_stay(tmp_path: Path) -> None:
    for name in ("small", "old", "mine"):
        (tmp_path / name).mkdir()
        for file in pipeline.MODEL_FILES:
            (tmp_path / name / file).write_text("{}")
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    nodes = {"small": SimpleNamespace(step="small")}
    outcome = SimpleNamespace(expansion=SimpleNamespace(nodes=nodes))
    pipeline._clear_models(outcome, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"small", "mine"}
