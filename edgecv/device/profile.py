"""Where a device is: an address, or the target profile that names one."""

from __future__ import annotations

from edgecv.address import Address, parse
from edgecv.errors import TargetError, missing


def resolve(text: str) -> tuple[Address, str]:
    """(address, Python there) of an ssh:// address, or of the target profile of that name.

    Raises DeviceError (not an address), TargetError (no such profile, or it names no device),
    MissingExtraError (profiles cannot be read here).
    """
    if "://" in text or "@" in text or ":" in text:
        return parse(text), "python3"
    try:
        from edgecv import target
    except ImportError as e:
        raise missing(e.name or "pydantic", "compress", f"target {text!r}") from None
    profile = target.load(text)
    if profile.device is None:
        hint = "add `device: ssh://user@host` to it, or give the address itself"
        raise TargetError(f"target {text!r}", "its profile has no `device:`", hint)
    return parse(profile.device), profile.device_python
