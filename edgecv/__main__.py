"""`python -m edgecv` and the `edgecv` command."""

import os
import sys

# -m puts the working folder before the libraries; a numpy.py there is not to be imported.
if __name__ == "__main__" and not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109
    del sys.path[0]

from edgecv.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
