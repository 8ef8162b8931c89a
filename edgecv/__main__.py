"""`python -m edgecv` and the `edgecv` command."""

from edgecv.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
