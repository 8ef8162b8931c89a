"""Work on a real device over SSH: job, files and runtime go there, the answer comes back.

    address, python = resolve("ssh://pi@rpi5.local")        # or the name of a target profile
    files, names = carry([Path("small-int8.rpi5.edgecv")])
    job = {"bundles": names, "threads": 1, "rounds": 40, "burst_ms": 15.0}
    answer = call(address, "edgecv.benchmark.measure", job, files, "bench", python=python)

The system's own `ssh` makes the one connection, so ~/.ssh/config, agents, jump hosts and
known_hosts count; keys and agent only, host keys are checked. The device needs Python, numpy and
one engine.

profile.py   which device a word names (`edgecv.address` checks ssh://user@host:port)
kit.py       what of edgecv a device needs, as one zip
ssh.py       this side of a contact
remote.py    the device's side, sent along
refusals.py  what ssh says, as an error with a way out
"""

from __future__ import annotations

from edgecv.address import Address, parse
from edgecv.device.profile import resolve
from edgecv.device.ssh import call, carry

__all__ = ["Address", "call", "carry", "parse", "resolve"]
