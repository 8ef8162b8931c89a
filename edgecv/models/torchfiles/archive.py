"""A zip archive of PyTorch's, member by member: what was looked at is what is loaded.

PyTorch's reader and Python's need not agree on a damaged or dishonest archive, so that what passed
is written out again, by us, before PyTorch opens it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edgecv.errors import ModelError, one_line
from edgecv.models.torchfiles.kinds import ZIP_ERRORS


def members(path: Path) -> dict[str, bytes]:
    """Contents by name, the archive's own top folder taken off, in their order.

    Raises ModelError: damaged (checksums too), two members of one name, several top folders.
    """
    where = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            items = [i for i in archive.infolist() if not i.is_dir()]
            tops = {i.filename.partition("/")[0] for i in items}
            found = {i.filename.partition("/")[2]: archive.read(i) for i in items}
    except (*ZIP_ERRORS, MemoryError) as e:
        why = one_line(e, 120)
        raise ModelError(where, f"is damaged: {why}", "copy it again") from None
    if len(found) != len(items) or len(tops) != 1:
        raise ModelError(where, "is a zip archive that PyTorch did not write", "save it again")
    return found


def written(files: Mapping[str, bytes]) -> io.BytesIO:
    """The members as an archive that PyTorch opens, uncompressed."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(f"network/{name}", data)
    made.seek(0)
    return made
