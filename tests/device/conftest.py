"""One device for all tests of this folder; skipped where there is no OpenSSH."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.device import server
from tests.runtime.conftest import make_bundle

__all__ = ["make_bundle"]


@pytest.fixture(scope="session", params=[server.KIND])
def running() -> Iterator[server.Server]:
    if not server.SSHD or not server.SSH:
        pytest.skip("no OpenSSH server here: apt install openssh-server")
    with server.running() as found:
        yield found


@pytest.fixture
def board(running: server.Server) -> Iterator[server.Server]:
    """The device, with nothing on it before and after every test."""
    server.wait(running.idle)
    yield running
    server.wait(running.idle)
