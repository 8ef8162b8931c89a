"""YAML that says one thing: safe types alone, no key twice, no text that grows when it is read.

PyYAML keeps the last of two equal keys and says nothing; ten lines of aliases may stand for ten
thousand million values; deep brackets end the C parser by a crash. So the events are counted before
anything is built, and the nodes before any of them becomes a value.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from edgecv.errors import RecipeError

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_VALUES = 100_000  # with every alias written out; 2,000 stages are some 40,000

MAX_BITS = 512  # of a whole number; Python refuses to write out 0xfff... of some thousand digits
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]*[0-7]$|[0-9].*:)")  # 010, 1:30

# PyYAML's own parser takes ten times as long; it is there where libyaml is not.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_HINT = "indent with spaces; one key: value a line; quote text that holds : or #"
_WORDS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:null"}
_MERGE = "tag:yaml.org,2002:merge"


def read(path: Path) -> tuple[Any, yaml.Node | None]:
    """`load` of a file. Raises RecipeError: it cannot be read, or is larger than MAX_BYTES."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode("utf-8-sig")
    except OSError as e:
        raise RecipeError(str(path), f"cannot be read: {e.strerror}") from None
    except UnicodeDecodeError:
        raise RecipeError(str(path), "cannot be read: it is no text in UTF-8") from None
    return load(text, str(path))


def load(text: str, where: str) -> tuple[Any, yaml.Node | None]:
    """The values, and the nodes that know their lines.

    where: the file's name, for errors
    Raises RecipeError: no YAML, a key twice (with both lines), more than the limits above, an
    alias that holds itself.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise RecipeError(where, "holds bytes that are no UTF-8 text") from None
    if size > MAX_BYTES:
        raise RecipeError(where, f"is more than {MAX_BYTES:,} bytes of YAML", "split it")
    loader = None
    try:
        _check_depth(text, where)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        _Walk(loader, where).measure(node)
        return loader.construct_document(node), node
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RecipeError(where, f"is not valid YAML: {e.problem}{line}", _HINT) from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as e:
        what = "is not valid YAML"
        if isinstance(e, yaml.reader.ReaderError):
            what += f": a character that it does not allow, at {e.position}"
        raise RecipeError(where, what, _HINT) from None
    finally:
        if loader is not None:
            loader.dispose()


def _check_depth(text: str, where: str) -> None:
    """Raises RecipeError where brackets and indentation go deeper than any recipe, or hold more."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        values += isinstance(event, yaml.NodeEvent)
        if values > MAX_VALUES:
            raise RecipeError(where, f"holds more than {MAX_VALUES:,} values", "split it")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise RecipeError(where, f"is not valid YAML: nested more than {MAX_DEPTH} deep", _HINT)


class _Walk:
    """Measures nodes, each once: an alias costs a look-up, and what it stands for is counted."""

    def __init__(self, loader: Any, where: str) -> None:
        self.loader, self.where = loader, where
        self.sizes: dict[int, int] = {}  # 0 while a node is being measured
        self.depth = 0

    def measure(self, node: yaml.Node) -> int:
        """How many values a node stands for. Raises RecipeError."""
        known = self.sizes.get(id(node))
        line = node.start_mark.line + 1
        if known == 0 or self.depth > MAX_DEPTH:
            raise RecipeError(f"{self.where}:{line}", "an alias (*name) holds itself")
        if known:
            return known
        self.sizes[id(node)] = 0
        self.depth += 1
        size = 1
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                size += self.measure(key) + self.measure(value)
            self._check_keys(node)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                size += self.measure(value)
        else:
            self._check_scalar(node)
        if size > MAX_VALUES:
            what = f"stands for more than {MAX_VALUES:,} values once its aliases are written out"
            raise RecipeError(f"{self.where}:{line}", what, "write out what the aliases repeat")
        self.depth -= 1
        self.sizes[id(node)] = size
        return size

    def _check_keys(self, node: yaml.MappingNode) -> None:
        lines: dict[Hashable, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                what = "a key is a list or a mapping"
                raise RecipeError(f"{self.where}:{line}", what, "a key is one word")
            value = self.loader.construct_object(key) if key.tag != _MERGE else key.value
            if value in lines:
                what = f"key {key.value!r} is there twice: in line {lines[value]} and line {line}"
                raise RecipeError(f"{self.where}:{line}", what, "keep the one that is meant")
            lines[value] = line

    def _check_scalar(self, node: yaml.Node) -> None:
        if node.tag in _WORDS or node.tag == _MERGE:
            return
        place, text = f"{self.where}:{node.start_mark.line + 1}", str(node.value)[:40]
        try:
            value = self.loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):  # 2001-13-40; 5,000 digits
            what = f"is not valid YAML: {text!r} is no value"
            raise RecipeError(place, what, "quote it if it is text") from None
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise RecipeError(place, f"is a number of {value.bit_length()} bits: {text}...")
        if isinstance(value, int | float) and _OTHER_BASE.match(str(node.value)):
            what = f"{text} is {value} to YAML, which counts in eights or sixties here"
            raise RecipeError(place, what, f"write {value}, or quote it if it is text")
