"""Addresses: what is accepted, and that nothing else comes near ssh's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv import target
from edgecv.address import check_python, shell_word
from edgecv.device import Address, parse, resolve
from edgecv.device.ssh import _command
from edgecv.errors import DeviceError, TargetError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://pi@rpi5.local", Address("rpi5.local", "pi")),
        ("ssh://pi@rpi5.local:2222", Address("rpi5.local", "pi", 2222)),
        ("ssh://board", Address("board")),
        ("ssh://pi@192.168.1.7/", Address("192.168.1.7", "pi")),
        ("ssh://pi@[fe80::1%eth0]:22", Address("fe80::1%eth0", "pi", 22)),
        ("ssh://a_b.c-d@[::1]", Address("::1", "a_b.c-d")),
    ],
)
def test_what_is_an_address(text: str, address: Address) -> None:
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not an ssh:// address"),
        ("pi@rpi5", "is not an ssh:// address"),
        ("rpi5:22", "is not an ssh:// address"),
        ("http://pi@rpi5", "scheme 'http' is not ssh"),
        ("SSH://pi@rpi5", "is not ssh"),
        ("ssh://", "not a host's name"),
        ("ssh://pi@", "not a host's name"),
        ("ssh://@rpi5", "not a user's name"),
        ("ssh://pi@rpi5/home", "has a path"),
        ("ssh://pi@rpi5?x=1", "has a path or a query"),
        ("ssh://pi@rpi5#x", "has a path or a query"),
        ("ssh://pi@rpi5:", "port ''"),
        ("ssh://pi@rpi5:0", "port '0'"),
        ("ssh://pi@rpi5:65536", "port '65536'"),
        ("ssh://pi@rpi5:-1", "port '-1'"),
        ("ssh://pi@rpi5:２２", "port"),
        ("ssh://pi@fe80::1", "without brackets"),
        ("ssh://pi@[fe80::1", "not a host's name"),
        ("ssh://pi@[rpi5]", "not a host's name"),
        ("ssh://pi@[::1]x", "not a host's name"),
        # what ssh would take for an option, or a shell for a command
        ("ssh://-oProxyCommand=touch@rpi5", "not a user's name"),
        ("ssh://pi@-oProxyCommand=touch", "not a host's name"),
        ("ssh://-oProxyCommand=touch", "not a host's name"),
        ("ssh://pi@-lroot:22", "not a host's name"),
        ("ssh://pi@$(reboot)", "not a host's name"),
        ("ssh://pi;reboot@rpi5", "not a user's name"),
        ("ssh://pi@rpi5;reboot", "not a host's name"),
        ("ssh://pi@rpi5`reboot`", "not a host's name"),
        ("ssh://pi@rpi5 -v", "not a host's name"),
        ("ssh://pi@rpi5\n", "not a host's name"),
        ("ssh://pi\0@rpi5", "not a user's name"),
        ("ssh://pi@rpi5%h", "not a host's name"),
        ("ssh://pi@rpi5:22\n", "port"),
        ("ssh://pi@[::1%$(reboot)]", "not a host's name"),
        ("ssh://pi@röslein", "not a host's name"),
    ],
)
def test_what_is_none_is_one_line_with_a_hint(text: str, why: str) -> None:
    with pytest.raises(DeviceError) as e:
        parse(text)
    assert why in e.value.what
    assert e.value.hint
    assert "\n" not in str(e.value)


def test_a_password_is_not_repeated_where_the_scheme_was_forgotten() -> None:
    with pytest.raises(DeviceError) as e:
        parse("pi:secret@rpi5")
    assert "secret" not in str(e.value)


@pytest.mark.parametrize("password", ["secret", "sec@ret", "sec/ret:x", ""])
def test_a_password_is_refused_and_not_repeated(password: str) -> None:
    with pytest.raises(DeviceError, match=r"holds a password .*keys and agent only") as e:
        parse(f"ssh://pi:{password}@rpi5")
    assert "sec" not in str(e.value)


def test_a_host_stands_behind_the_options() -> None:
    command = _command(parse("ssh://pi@[::1]:2222"), "python3", "/my/config")
    options, place = command[: command.index("--")], command[command.index("--") + 1 :]
    assert place[0] == "::1"
    assert len(place) == 2
    assert options[1:4] == ["-T", "-F", "/my/config"]
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "PasswordAuthentication=no"):
        assert option in options


@pytest.mark.parametrize(
    ("python", "word"),
    [
        ("python3", "python3"),
        ("~/venv/bin/python", "~/venv/bin/python"),
        ("/opt/a venv/bin/python3.11", "'/opt/a venv/bin/python3.11'"),
        ("~/a venv/bin/python", "~/'a venv/bin/python'"),
    ],
)
def test_a_python_is_one_word_of_a_shell(python: str, word: str) -> None:
    assert shell_word(check_python(python)) == word


@pytest.mark.parametrize(
    "python", ["", "-c", "~root/python", "python3; reboot", "$(reboot)", "a'b", 'a"b', "a\nb", "!x"]
)
def test_what_is_no_path_of_a_python(python: str) -> None:
    with pytest.raises(DeviceError, match="is not the path of a program"):
        check_python(python)


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """profile(text): write ./targets/board.yaml in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "targets").mkdir()
    return (tmp_path / "targets" / "board.yaml").write_text


def test_an_address_resolves_to_itself() -> None:
    assert resolve("ssh://pi@rpi5") == (Address("rpi5", "pi"), "python3")
    with pytest.raises(DeviceError, match="write ssh://user@host"):
        resolve("pi@rpi5")


def test_a_profile_names_its_device(profile) -> None:
    profile("extends: rpi5\ndevice: ssh://pi@rpi5:2222\ndevice_python: ~/venv/bin/python\n")
    assert resolve("board") == (Address("rpi5", "pi", 2222), "~/venv/bin/python")


def test_a_profile_without_a_device_is_told_the_key() -> None:
    with pytest.raises(
        TargetError, match=r"'rpi5': its profile has no `device:` .*add `device: ssh"
    ):
        resolve("rpi5")
    with pytest.raises(TargetError, match=r"unknown target .*did you mean 'rpi5'"):
        resolve("rpi55")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("device: ssh://pi:secret@rpi5", "device: holds a password"),
        ("device: pi@rpi5", "device: is not an ssh:// address"),
        ("device: 3", "device: must be text"),
        ("device_python: 'python3; reboot'", "device_python: is not the path of a program"),
    ],
)
def test_a_wrong_device_is_said_when_the_profile_is_read(profile, line: str, why: str) -> None:
    profile(f"extends: rpi5\n{line}\n")
    with pytest.raises(TargetError) as e:
        target.load("board")
    assert why in str(e.value)
    assert "secret" not in str(e.value)
    assert "\n" not in str(e.value)


def test_no_bundle_depends_on_where_a_device_is(profile) -> None:
    from edgecv.plan.graph import NOT_IN_BUNDLES

    profile("extends: rpi5\ndevice: ssh://pi@rpi5\ndevice_python: python3.12\n")
    with_one = target.load("board").model_dump(mode="json", exclude=NOT_IN_BUNDLES)
    profile("extends: rpi5\n")
    target._parse.cache_clear()
    assert target.load("board").model_dump(mode="json", exclude=NOT_IN_BUNDLES) == with_one
