"""The code blocks of Markdown pages, what is said of each, and running them.

A comment before a block says what it needs:

    <!-- test: setup=tiny -->       the files of `tests.docs.files` are put into the page's folder
    <!-- test: setup=run -->        them and runs/recipe, as `edgecv run recipe.yaml` leaves it
    <!-- test: setup=api -->        what docs/api.md names besides: image, x, and bundles
    <!-- test: exit=0,4 -->         what its last command may end with
    <!-- test: add=run:--set,x=1 -> options that make `edgecv run` of this block short
    <!-- test: file=shoe.yaml -->   is saved under that name, not run
    <!-- test: skip ssh -->         is not run; the word is one of WHY

A block without a comment is run as it stands, and one whose first line is a comment with a file's
name (`# mynet.py`, of YAML too) is saved under that name. All blocks of a page share one folder
and, those in Python, one namespace: a page is read from its beginning to its end.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

SHELL, PYTHON = ("sh", "bash", "shell", "console"), ("py", "python", "pycon")
WHY = {
    "ssh": "a board that is reached by SSH",
    "board": "runs on the board itself",
    "gpu": "an NVIDIA GPU",
    "camera": "a camera, or a film",
    "install": "installs packages or makes an environment",
    "minutes": "trains or measures for minutes",
    "repository": "writes to a repository or its hosting",
    "shape": "shows the shape of a call whose names the page leaves open",
}
_COMMENT = re.compile(r"<!--\s*test:\s*(.*?)\s*-->\s*$", re.S)
_SAVED = re.compile(r"# ([\w/.-]+\.(?:py|ya?ml|txt|csv))(?:\s.*)?$")
_SHELL_SIGNS = re.compile(r"[|&;<>$`(){}]")


@dataclass
class Block:
    """One fenced block. line: where its fence is, from 1; skip: a word of WHY, or ''."""

    page: Path
    line: int
    language: str
    text: str
    skip: str = ""
    setup: list[str] = field(default_factory=list)
    exit: tuple[int, ...] = (0,)
    add: dict[str, list[str]] = field(default_factory=dict)
    named: str = ""

    @property
    def file(self) -> str:
        """The name that it is saved under, or ''."""
        match = _SAVED.match(self.text.partition("\n")[0])
        if self.named:
            return self.named
        return match[1] if match and self.language in (*PYTHON, "yaml") else ""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Shell and Python blocks of a page, in its order. Raises ValueError for an unknown comment."""
    found: list[Block] = []
    said = ""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "html_block":
            match = _COMMENT.search(token.content)
            said = match[1] if match else ""
            continue
        if token.type != "fence":
            if token.type.endswith("_open"):
                said = ""
            continue
        language = (token.info.split() or [""])[0]
        assert token.map is not None
        block = _annotated(Block(page, token.map[0] + 1, language, token.content), said)
        if language in SHELL + PYTHON or block.file:
            found.append(block)
        elif said:
            raise ValueError(f"{page.name}:{token.map}: a test comment before no code")
        said = ""
    return found


def _annotated(block: Block, said: str) -> Block:
    words = said.split()
    while words:
        key, _, value = words.pop(0).partition("=")
        if key == "skip" and words and words[0] in WHY:
            block.skip = words.pop(0)
        elif key == "setup":
            block.setup = value.split(",")
        elif key == "exit":
            block.exit = tuple(map(int, value.split(",")))
        elif key == "file":
            block.named = value
        elif key == "add":
            command, _, options = value.partition(":")
            block.add[command] = options.split(",")
        else:
            raise ValueError(f"{block}: test comment {said!r}: {key!r} is not known")
    return block


def run(block: Block, folder: Path, names: dict[str, object]) -> None:
    """Run a block in `folder`; Python in the namespace `names`. Raises AssertionError, or what the
    block raises."""
    if block.file:
        path = folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        return
    if block.language in PYTHON:
        code = compile("\n" * block.line + block.text, str(block.page), "exec")
        exec(code, names)
        return
    commands = _commands(block.text)
    if all(c.startswith("edgecv ") and not _SHELL_SIGNS.search(c) for c in commands):
        for command in commands:
            code = _here(command, block.add)
            allowed = block.exit if command is commands[-1] else (0,)
            assert code in allowed, f"exit code {code}: {command}"
        return
    done = subprocess.run(
        ["bash", "-e", "-c", block.text], cwd=folder, env=environment(folder),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode in block.exit, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"


def _commands(text: str) -> list[str]:
    """The lines of a script, those that end in a backslash joined, without comments and prompts."""
    lines = text.replace("\\\n", " ").splitlines()
    kept = [re.sub(r"(^|\s)#.*$", "", line).strip().removeprefix("$ ") for line in lines]
    return [line for line in kept if line]


def _here(command: str, add: dict[str, list[str]]) -> int:
    """`edgecv ...` in this process: importing torch anew for every line would take minutes."""
    from edgecv.cli import main

    words: list[str] = []
    for word in shlex.split(command)[1:]:
        found = sorted(map(str, Path().glob(word))) if "*" in word else []
        words += found or [word]
    words += add.get(words[0], [])
    try:
        return main(words)
    except SystemExit as e:
        return int(e.code or 0)


def environment(folder: Path) -> dict[str, str]:
    """Of a real shell: `edgecv` and `python` are this interpreter's."""
    room = folder / ".bin"
    room.mkdir(exist_ok=True)
    for name, call in (("edgecv", "-m edgecv "), ("python", "")):
        path = room / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {call}"$@"\n')
        path.chmod(0o755)
    paths = os.pathsep.join((str(room), os.environ.get("PATH", "")))
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PATH": paths, "PYTHONPATH": root}
