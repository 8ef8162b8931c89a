"""Logging of the command line: warnings of edgecv, silence from the libraries."""

from __future__ import annotations

import logging
import os
import warnings

from edgecv.terminal import printable


class _Printable(logging.Formatter):
    """Names and notes of files stand in messages; a terminal does not obey them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Once(logging.Filter):
    """A warning that repeats is said once."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        again = record.levelno == logging.WARNING and text in self.said
        self.said.add(text)
        return not again


def quiet(verbose: bool) -> None:
    """Send edgecv's own log to stderr; keep converters and engines from chattering."""
    logging.basicConfig(level=logging.ERROR)
    own = [h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler]
    for handler in own:  # an embedding program's handlers are its own
        handler.setFormatter(_Printable("%(levelname)s: %(message)s"))
        handler.filters = [f for f in handler.filters if not isinstance(f, _Once)]
        handler.addFilter(_Once())
    logging.getLogger("edgecv").setLevel(logging.DEBUG if verbose else logging.WARNING)
    if not verbose:
        warnings.filterwarnings("ignore")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("OPENVINO_LOG_LEVEL", "0")
