"""Logging of the command line: warnings of edgecv, silence from the libraries."""

from __future__ import annotations

import logging
import os
import warnings


def quiet(verbose: bool) -> None:
    """Send edgecv's own log to stderr; keep converters and engines from chattering."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.ERROR)
    logging.getLogger("edgecv").setLevel(logging.DEBUG if verbose else logging.WARNING)
    if not verbose:
        warnings.filterwarnings("ignore")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("OPENVINO_LOG_LEVEL", "0")
