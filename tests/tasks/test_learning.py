"""Each task can be learned without a word of how its network's outputs are read."""

from __future__ import annotations

import pytest

from edgecv import tasks


@pytest.mark.parametrize("name", tasks.names())
def test_nothing_need_be_said(name: str) -> None:
    assert tasks.task(name).learning({}).name == name
