"""Target: a device profile. YAML in `targets/`, looked up in the working folder first.

A profile names its backend (the engine), the precisions it offers, the integer grid it runs
fast and exactly, the channel alignment its kernels like, and what the device holds. `extends:`
takes everything from another profile and changes some of it. A new board is a new YAML file.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from edgecv import strict_yaml
from edgecv.address import check_python, parse
from edgecv.backends import ENGINES, facts, reference
from edgecv.errors import DeviceError, RecipeError, TargetError
from edgecv.yaml_validation import plain

GPU = ("gpu", "cuda", "nvidia")  # names of no profile that people try


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Grid(_Frozen):
    """The int8 grid that an engine runs fast and exactly: real = scale * (q - zero_point).

    activations:  "uint8" (x86: s8 activations do not fuse in ONNX Runtime) or "int8"
    symmetric:    activations have zero point 0 (TensorRT)
    per_channel:  convolution weights have one scale per output channel
    dense_per_channel: fully connected weights too (false on the Edge TPU)
    quantize_bias: bias becomes int32 with scale s_w*s_x (false for TensorRT)
    reduce_range: for CPUs whose u8*s8 products saturate in 16 bits (no VNNI): weights whose
                  neighbours together fit (`vnni_saturation`); 7 bits where these are not
                  known. A profile may say "auto": by its cpu_features, else by this machine's
    """

    activations: Literal["uint8", "int8"] = "uint8"
    symmetric: bool = False
    per_channel: bool = True
    dense_per_channel: bool = True
    quantize_bias: bool = True
    reduce_range: bool = False


class Target(_Frozen):
    """A checked device profile.

    backend:    folder in edgecv/backends/ whose compile.py and run.py serve it
    graph:      the format that backend reads, one of those it says (`Facts.graphs`)
    precisions: what a recipe may ask of it, the first is the reference
    alignment:  channel counts are kept a multiple of this when pruning
    io:         dtype of the compiled network's image input ("float32", "int8" or "uint8")
    memory_kb, flash_kb: what a microcontroller has for a network's arena and its constants
    runs_on_host: false for profiles of other boards, whose latency cannot be measured here
    cpu_features: instruction sets without which a latency would not be this device's
    device:     ssh://user@host[:port] of a real one, where latency is measured if not here; put
                it into a profile of one's own (`extends:`). No result depends on it
    device_python: the Python there: a name or a path, such as ~/venv/bin/python
    """

    name: str
    description: str = ""
    backend: str
    graph: str
    precisions: tuple[Literal["fp32", "fp16", "bf16", "int8"], ...] = ("fp32", "fp16", "int8")
    grid: Grid = Grid()
    alignment: int = Field(default=16, ge=1)
    threads: int = Field(default=1, ge=1)
    io: Literal["float32", "int8", "uint8"] = "float32"
    runs_on_host: bool = True
    compute_capability: str | None = None
    memory_mb: int | None = Field(default=None, ge=1)
    memory_kb: int | None = Field(default=None, ge=1)
    flash_kb: int | None = Field(default=None, ge=1)
    cpu_features: tuple[str, ...] = ()
    device: str | None = None
    device_python: str = "python3"

    @field_validator("backend")
    @classmethod
    def _is_here(cls, name: str) -> str:
        """An engine is a folder in edgecv/backends/."""
        if name not in ENGINES:
            raise ValueError(f"{name!r} is no engine; there are {', '.join(ENGINES)}")
        return name

    @field_validator("graph")
    @classmethod
    def _is_read(cls, name: str, info: ValidationInfo) -> str:
        """A format that the engine reads, and that an engine says what it means."""
        if "backend" not in info.data:  # which is wrong, and said
            return name
        said = facts(info.data["backend"])
        if name not in said.graphs:
            known = " or ".join(said.graphs) or "none that profiles may name"
            raise ValueError(f"{said.label} reads no {name!r}, but {known}")
        try:
            reference(name)
        except LookupError:
            raise ValueError(f"no engine says that it is the reference of {name!r}") from None
        return name

    @field_validator("device", "device_python")
    @classmethod
    def _reachable(cls, text: str | None, info: ValidationInfo) -> str | None:
        """Checked when the profile is read, not hours later when the device is wanted."""
        try:
            if text is not None:
                (parse if info.field_name == "device" else check_python)(text)
        except DeviceError as e:
            raise ValueError(f"{e.what} ({e.hint})") from None
        return text

    def not_here(self, features: Collection[str]) -> str:
        """Why a latency measured on this machine would not be the device's; "" when it is.

        features: instruction sets of this machine (`edgecv.benchmark.machine`)
        """
        if not self.runs_on_host:
            return "this machine is not the device; run `edgecv bench` there, or set `device:`"
        lacking = [f for f in self.cpu_features if f not in features]
        return f"this processor has no {', '.join(lacking)}" if lacking else ""


def folders() -> list[Path]:
    """Where profiles are looked up, first match wins: ./targets, then the package's own."""
    here = Path(__file__).parent
    return [Path("targets"), here / "_targets", here.parent / "targets"]


def names() -> list[str]:
    """Every profile that can be named, sorted."""
    return sorted({f.stem for d in folders() if d.is_dir() for f in d.glob("*.yaml")})


def load(name: str, features: Collection[str] | None = None) -> Target:
    """The profile of that name, or of that path if it ends in .yaml.

    features: instruction sets of the machine that it is for, where the profile names none; this
    one's by default
    Raises TargetError: unknown name (with the nearest), circular extends, wrong keys.
    """
    data = _settled(_read(name, ()), features)
    try:
        stem = Path(name).stem if name.endswith(".yaml") else name
        return Target.model_validate({**data, "name": stem})
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(str(p) for p in first["loc"])
        what = plain(first["msg"])
        raise TargetError(f"targets/{name}: {key}", what, "see docs/targets.md") from None


def _settled(data: dict[str, Any], features: Collection[str] | None) -> dict[str, Any]:
    """Without "auto": it is decided by the instruction sets of the device."""
    grid = data.get("grid")
    if not isinstance(grid, dict) or grid.get("reduce_range") != "auto":
        return data
    named = data.get("cpu_features")
    have = named if isinstance(named, list) and named else features
    return {**data, "grid": {**grid, "reduce_range": saturates(have)}}


def saturates(features: Collection[str] | None = None) -> bool:
    """Whether u8 x s8 sums saturate in 16 bits (vpmaddubsw): x86 with AVX and without VNNI.

    features: instruction sets of the processor; this one's by default
    """
    from edgecv.benchmark.machine import INTEGER_DOT, cpu_features

    have = set(cpu_features() if features is None else features)
    return bool(have & {"avx", "avx2", "avx512f"}) and not have & INTEGER_DOT


def _read(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name in seen:
        raise TargetError(f"target {name!r}", f"extends itself: {' -> '.join((*seen, name))}")
    data = dict(_parse(_find(name)))
    parent = data.pop("extends", None)
    if parent is None:
        return data
    if not isinstance(parent, str):
        raise TargetError(f"target {name!r}", f"extends {parent!r}", "name one profile")
    base = _read(parent, (*seen, name))
    grids = (base.get("grid", {}), data.get("grid", {}))
    if not all(isinstance(g, dict) for g in grids):
        raise TargetError(f"target {name!r}", "grid is a mapping of keys")
    grid = {**grids[0], **grids[1]}
    return {**base, **data, **({"grid": grid} if grid else {})}


def _find(name: str) -> Path:
    tries = [Path(name)] if name.endswith(".yaml") else [d / f"{name}.yaml" for d in folders()]
    with suppress(OSError):  # a name too long to be a file's
        for path in tries:
            if path.is_file():
                return path.resolve()
    near = difflib.get_close_matches(name, names(), 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names())}"
    if name.lower() in GPU:
        hint = "for an NVIDIA GPU: tensorrt, rtx or jetson-orin"
    raise TargetError(f"target {name!r}", "unknown target", hint)


@cache
def _parse(path: Path) -> dict[str, Any]:
    try:
        data, _ = strict_yaml.read(path)
    except RecipeError as e:
        raise TargetError(e.where, e.what, e.hint) from None
    if not isinstance(data, dict):
        raise TargetError(str(path), "a profile is a mapping of keys")
    return data
