"""ssh://user@host:port: checked before any of it comes near a command line."""

from __future__ import annotations

import ipaddress
import re
import shlex
from dataclasses import dataclass

from edgecv.errors import DeviceError

FORM = "write ssh://user@host, or ssh://user@host:port"
# Neither can begin with "-", which ssh would take for an option.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PLACE = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<host>[^\[\]:]*))(?::(?P<port>.*))?", re.S)
_ZONE = re.compile(r"[A-Za-z0-9_.-]+")
# No character that a shell (sh, fish, csh) reads inside single quotes.
_PYTHON = re.compile(r"(~/)?[A-Za-z0-9_./][A-Za-z0-9_./+@, -]*")


@dataclass(frozen=True)
class Address:
    """Where a device is. user, port: None leaves them to ~/.ssh/config."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port else "")

    @property
    def by_hand(self) -> str:
        """What a person types after `ssh` to get there."""
        port = f"-p {self.port} " if self.port else ""
        return f"{port}{self.user}@{self.host}" if self.user else f"{port}{self.host}"


def parse(text: str) -> Address:
    """The address that a URL names.

    Raises DeviceError: another scheme, a password, a path, a user, host or port that is none.
    """
    scheme, found, rest = text.partition("://")
    where = _shown(text)
    if not found or scheme != "ssh":
        what = f"scheme {scheme!r} is not ssh" if found else "is not an ssh:// address"
        raise DeviceError(where, what, FORM)
    user, at, place = rest.rpartition("@")
    if ":" in user:
        hint = "keys and agent only: ssh-copy-id, then leave the password out"
        raise DeviceError(where, "holds a password", hint)
    if at and not _USER.fullmatch(user):
        raise DeviceError(where, f"{user!r} is not a user's name", FORM)
    host, port = _place(where, place.removesuffix("/"))
    return Address(host, user or None, port)


def _place(where: str, text: str) -> tuple[str, int | None]:
    """host[:port] or [IPv6][:port], taken apart."""
    if any(c in text for c in "/?#"):
        raise DeviceError(where, "has a path or a query", FORM)
    if text.count(":") > 1 and not text.startswith("["):
        raise DeviceError(where, "is an IPv6 address without brackets", "write ssh://user@[::1]")
    found = _PLACE.fullmatch(text)
    host = (found["six"] or found["host"] or "") if found else text
    if not (_is_ipv6(host) if found and found["six"] else found and _HOST.fullmatch(host)):
        raise DeviceError(where, f"{host!r} is not a host's name", FORM)
    port = found["port"] if found else None
    if port is None:
        return host, None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise DeviceError(where, f"port {port!r} is not a number from 1 to 65535", FORM)
    return host, int(port)


def _is_ipv6(text: str) -> bool:
    address, percent, zone = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or bool(_ZONE.fullmatch(zone))


def _shown(text: str) -> str:
    """The text as an error may repeat it: on one line, without a password."""
    line = " ".join(text.split()) or repr(text)
    return re.sub(r"^((?:[a-z]+://)?[^:@/]*):.*@", r"\1:...@", line)


def check_python(text: str) -> str:
    """The path or name of the device's Python as it is. Raises DeviceError when it is neither."""
    if not _PYTHON.fullmatch(text):
        hint = "give a name or a path, such as python3.11 or ~/venv/bin/python"
        raise DeviceError(f"device python {text!r}", "is not the path of a program", hint)
    return text


def shell_word(python: str) -> str:
    """A checked Python as one word of any login shell; ~/ is left to the shell."""
    home, rest = ("~/", python[2:]) if python.startswith("~/") else ("", python)
    return home + shlex.quote(rest)
