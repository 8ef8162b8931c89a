"""`edgecv export`: a network to a bundle, with no recipe."""

from typing import Any


def register(command: Any) -> None:
    pass
