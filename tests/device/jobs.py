"""What the tests let a device do: sent there in the kit, and run by `edgecv.device.remote`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgecv import errors
from edgecv.child import report, serve


def work(job: dict[str, Any]) -> dict[str, Any]:
    print("noise of an engine\nlast words", flush=True)
    match job["do"]:
        case "verify":
            from edgecv.runtime import verify

            reports = [verify(path).to_json() for path in job["bundles"]]
            return {"reports": reports, "numpy": sys.modules["numpy"].__file__}
        case "litter":
            folder = tempfile.mkdtemp()
            Path("core").write_text("a dump in the working folder")
            return {"folder": folder}
        case "steps":
            for i in range(3):
                report(i + 1, 3, "step")
                time.sleep(0.2)
        case "hold":  # with a process of its own, in a session of its own, as an engine may have
            subprocess.Popen(["sleep", "60"], start_new_session=True)
            report(1, 2, "holding")
            time.sleep(60)
        case "raise":
            kind = getattr(errors, job["type"])
            raise kind(job.get("where", "where"), "what", "hint")
        case "signal":
            os.kill(os.getpid(), getattr(signal, job["name"]))
    return {
        "echo": job,
        "uid": os.getuid(),
        "edgecv": errors.__file__,
        "variable": os.environ.get("EDGECV_X"),
        "sizes": [Path(p).stat().st_size for p in job.get("files", [])],
    }


if __name__ == "__main__":
    serve(work)
