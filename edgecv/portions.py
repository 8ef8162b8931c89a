"""Folders on the Python path that add to edgecv, as `edgecv/backends/<engine>/` and
`edgecv/stages/<word>.py` in any folder that PYTHONPATH names or that is installed.

They have no `edgecv/__init__.py`: a folder that has one is another edgecv. What happens to lie in
the working folder is not taken, though `python -m edgecv` puts it on the path.

Imported on devices: the standard library only.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path


def roots() -> list[Path]:
    """The edgecv/ folders of others, in the path's order."""
    here = None
    with suppress(OSError):  # the working folder was removed
        here = Path.cwd().resolve()
    entries = [Path(entry) for entry in dict.fromkeys(sys.path) if entry]
    adding = [e for e in entries if (e / "edgecv").is_dir() and e.resolve() != here]
    return [e / "edgecv" for e in adding if not (e / "edgecv" / "__init__.py").is_file()]


def of(package: str) -> list[str]:
    """What they add to a package of edgecv: folders for its `__path__`."""
    return [str(root / package) for root in roots() if (root / package).is_dir()]
