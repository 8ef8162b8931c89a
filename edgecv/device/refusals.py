"""What went wrong with a contact, read from ssh's own words: one line, and a way out.

ssh exits with 255 for everything that is its own failure; any other code is the device's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgecv.address import Address
from edgecv.errors import DeviceError, DeviceLostError, EdgecvError

SSH_FAILED = 255

# (ssh's words, what that is, what to do); the first match counts. {by_hand}: what follows `ssh`;
# {known}: the name that ssh-keygen knows the host by.
_REFUSALS = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "its host key has changed: this may be another machine",
        "if you know why: ssh-keygen -R '{known}', then once by hand: ssh {by_hand}",
    ),
    (
        r"host key is known for|Host key verification failed",
        "its host key is not known here",
        "connect once by hand and compare the fingerprint: ssh {by_hand}",
    ),
    (
        r"Permission denied|Too many authentication failures|No more authentication methods",
        "accepts none of the keys offered",
        "ssh-copy-id {by_hand}; a key with a passphrase must be in the agent: ssh-add",
    ),
    (r"Connection refused", "refuses connections", "is sshd running there, on this port?"),
    (
        r"timed? ?out|No route to host|Network is unreachable|Host is down",
        "does not answer",
        "is it switched on, and in this network?",
    ),
    (
        r"Could not resolve hostname",
        "its name is not known",
        "is it spelled right? an IP address works too",
    ),
    (
        r"[Bb]ad configuration option|configuration options|Can't open user config|Bad owner or",
        "ssh cannot use its configuration: {last}",
        "mend that file",
    ),
    (
        r"closed by|reset by|kex_exchange|banner|Broken pipe",
        "ended the connection before it began: {last}",
        "is this an SSH server, and does it let this user in?",
    ),
)
_TOO_OLD = re.compile(r"SyntaxError|AttributeError|ImportError|ModuleNotFoundError|future feature")
_NO_PROGRAM = re.compile(r"not found|No such file|Unknown command|Permission denied|not recognized")


def unreached(
    address: Address, python: str, code: int, errors: Sequence[str], said: str
) -> EdgecvError:
    """The error for a device whose side never began.

    code: ssh's exit code; errors: lines of its stderr; said: last line of stdout
    """
    text, last = "\n".join(errors), (errors[-1] if errors else said)[:200]
    if code == SSH_FAILED:
        known = f"[{address.host}]:{address.port}" if address.port else address.host
        words = {"by_hand": address.by_hand, "known": known, "last": last}
        for pattern, what, hint in _REFUSALS:
            if re.search(pattern, text):
                return DeviceError(str(address), what.format(**words), hint.format(**words))
        return DeviceError(
            str(address), f"ssh failed: {last}", f"try by hand: ssh {address.by_hand}"
        )
    because = f": {last}" if last else ""
    hint = "name a Python there by its path: device_python"
    if code in (126, 127) or _NO_PROGRAM.search(last):
        return DeviceError(str(address), f"{python} cannot be run there{because}", hint)
    if _TOO_OLD.search(last):
        return DeviceError(str(address), f"{python} there is too old{because}", hint)
    what = f"{python} did not start there, code {code}{because}"
    return DeviceError(str(address), what, f"try by hand: ssh {address.by_hand}")


def lost(address: Address, code: int, errors: Sequence[str]) -> DeviceLostError:
    """The error for a device whose side began and did not end."""
    last = f": {errors[-1][:200]}" if errors else ""
    what = f"the device vanished in the middle of the work{last}"
    if code != SSH_FAILED and code > 0:
        what = f"the work there was ended from outside (code {code}){last}"
    hint = "run it again: what was left there is removed first"
    return DeviceLostError(str(address), what, hint)
