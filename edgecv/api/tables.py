"""Rows of results as dataclasses, and as a pandas DataFrame where pandas is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgecv.errors import MissingExtraError

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(rows: Sequence[Any], where: str) -> DataFrame:
    """A column for each field, a row for each dataclass. Raises MissingExtraError without pandas"""
    try:
        from pandas import DataFrame
    except ModuleNotFoundError:
        hint = "pip install pandas, or read .rows"
        raise MissingExtraError(where, "pandas is not installed", hint) from None
    return DataFrame([asdict(row) for row in rows])
