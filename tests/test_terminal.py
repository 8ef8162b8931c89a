"""What a file says is shown, not obeyed; with --json stdout holds JSON and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgecv.cli import main
from edgecv.terminal import print_json, printable, shown

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plain é 模型 ✓\n\ttab", "plain é 模型 ✓\n\ttab"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\rb\x08\x7f\x9b", "a\\x0db\\x08\\x7f\\x9b"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, told: str) -> None:
    assert printable(text) == told


def test_stdout_is_printable_while_a_command_runs(capsys: pytest.CaptureFixture) -> None:
    with shown(only_json=False):
        print("\x1b]0;title\x07")
    print("\x1b[0m")
    assert capsys.readouterr().out == "\\x1b]0;title\\x07\n\x1b[0m\n"


def test_an_error_is_printable(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31m.edgecv"
    path.write_bytes(b"no bundle")
    assert main(["inspect", str(path)]) == 2
    assert "\x1b" not in capsys.readouterr().err


NOISE = """
import ctypes, os, sys
from edgecv.terminal import print_json, shown
with shown(only_json=True):
    print("a library in Python")
    os.write(1, b"a library in C\\n")
    ctypes.CDLL(None).printf(b"a library that buffers\\n")
    print_json({"a": [1, float("nan")], "e": "\\x1b"})
    sys.stdout.write("after\\n")
print("later")
"""


def test_json_is_alone_on_stdout_whatever_a_library_prints() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOISE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    document, rest = done.stdout[: done.stdout.rindex("}") + 1], done.stdout.splitlines()[-1]
    assert json.loads(document) == {"a": [1, None], "e": "\x1b"}
    assert rest == "later"
    for said in ("in Python", "in C", "that buffers", "after"):
        assert said in done.stderr


def test_json_goes_into_a_stream_in_memory(capsys: pytest.CaptureFixture) -> None:
    with shown(only_json=True):
        print("noise")
        print_json([1])
    out, err = capsys.readouterr()
    assert (out, err) == ("[\n 1\n]\n", "noise\n")


def test_a_closed_reader_is_no_error() -> None:
    command = f"{sys.executable} -m edgecv targets --json | head -c 5"
    done = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, env={**os.environ}
    )
    assert done.stderr == ""


def test_a_warning_that_repeats_is_said_once() -> None:
    code = (
        "import logging\nfrom edgecv.logs import quiet\nquiet(False)\n"
        "log = logging.getLogger('edgecv.x')\n"
        "for i in range(3): log.warning('a layer %s is kept', 'b\\x1b')\nlog.warning('another')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines() == ["WARNING: a layer b\\x1b is kept", "WARNING: another"]
