"""How this copy of edgecv came here, and so what installs one of its extras beside it.

No package index has edgecv: `pip install 'edgecv[tflite]'` finds nothing. It is a checkout, a wheel
or an archive that pip was given (PEP 610 keeps its address), or files that somebody copied.

This module is imported on devices: the standard library only.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]  # of the checkout, where there is one


def cure(extra: str, package: str) -> str:
    """The command that brings `extra` ("tflite") to this copy; one for `package` alone, a
    distribution's name, where nothing tells what the extra holds."""
    if is_checkout(ROOT):
        pins = ROOT / "constraints.txt"
        pinned = f" -c {shlex.quote(str(pins))}" if pins.is_file() else ""
        return f"{_pip()} install{pinned} -e {shlex.quote(f'{ROOT}[{extra}]')}"
    found = _distribution()
    source = address(json.loads(found.read_text("direct_url.json") or "{}")) if found else ""
    if source:
        return f"{_pip()} install {shlex.quote(f'edgecv[{extra}] @ {source}')}"
    libraries = requirements(found.requires or [], extra) if found else []
    return f"{_pip()} install {' '.join(map(shlex.quote, libraries or [distribution(package)]))}"


def distribution(module: str) -> str:
    """The name by which an index knows what brings a module: "ai-edge-litert" of ai_edge_litert."""
    top = module.partition(".")[0]
    return {"PIL": "pillow", "yaml": "pyyaml"}.get(top, top.replace("_", "-"))


def is_checkout(folder: Path) -> bool:
    """Whether a folder is edgecv's own, not that of a project that holds a copy of it."""
    try:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r'^name = "edgecv"$', text, re.MULTILINE) is not None


def address(origin: dict[str, Any]) -> str:
    """What a direct_url.json (PEP 610) names, as pip takes it again; "" for a file that is gone."""
    url = str(origin.get("url", ""))
    if url.startswith("file:"):
        return url if Path(unquote(urlsplit(url).path)).exists() else ""
    if version := origin.get("vcs_info"):
        return f"{version['vcs']}+{url}@{version['commit_id']}"
    return url


def requirements(lines: list[str], extra: str) -> list[str]:
    """["ai-edge-litert>=2.3"] of a distribution's Requires-Dist lines, for one extra."""
    split = [re.fullmatch(r"(.+?)\s*;\s*extra == ['\"](.+)['\"]", line) for line in lines]
    return [m[1] for m in split if m and m[2] == extra]


def _distribution() -> metadata.Distribution | None:
    """This copy's entry among the installed ones: another may be installed beside it."""
    try:
        found = metadata.distribution("edgecv")
    except metadata.PackageNotFoundError:
        return None
    return found if Path(str(found.locate_file("edgecv"))) == Path(__file__).parent else None


def _pip() -> str:
    """The pip of this Python: the one on the path may be another's."""
    if util.find_spec("pip") is None and shutil.which("uv"):
        return f"UV_PYTHON={shlex.quote(sys.executable)} uv pip"
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.executable).parent:
        return "pip"
    return f"{shlex.quote(sys.executable)} -m pip"
