"""What is done otherwise for each format of graph: for_<format>.py, here or in
edgecv/methods/quantize/ anywhere on the Python path. No key of the one hangs on the other's code.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from edgecv.graph_files import brought


def road(graph_format: str) -> ModuleType:
    """The module of that format. Raises UnsupportedError: whoever brought the format has none."""
    with brought(graph_format, "quantizes"):
        return import_module(f"edgecv.methods.quantize.for_{graph_format}")
