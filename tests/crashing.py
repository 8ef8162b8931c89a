"""A child process that does what its job says, for test_child."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgecv import errors
from edgecv.child import call, report, serve


def work(job: dict[str, Any]) -> dict[str, Any]:
    print("noise of an engine, line 1\nlast words", flush=True)
    match job["do"]:
        case "signal":
            os.kill(os.getpid(), getattr(signal, job["name"]))
        case "exit":
            sys.exit(job["code"])
        case "os._exit":
            os._exit(job["code"])
        case "raise":
            raise getattr(errors, job["type"])("where", "what", "hint")
        case "bug":
            raise ZeroDivisionError("a bug")
        case "full disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        case "report":
            report(1, 3)
            report(2, 3, "half")
        case "import":
            raise ModuleNotFoundError(f"No module named '{job['name']}'", name=job["name"])
        case "wait":  # with a process of its own and a file in its temporary folder
            with tempfile.TemporaryDirectory() as room:
                other = subprocess.Popen(["sleep", "600"])
                told = json.dumps([os.getpid(), other.pid, room])
                Path(f"{job['tell']}.part").write_text(told)
                Path(f"{job['tell']}.part").rename(job["tell"])
                time.sleep(600)
        case "nest":
            return call("tests.crashing", {"do": "wait", "tell": job["tell"]}, "nested")
        case "variable":
            return {"value": os.environ["EDGECV_X"]}
    return {"echo": job, "pid": os.getpid()}


if __name__ == "__main__":
    serve(work)
