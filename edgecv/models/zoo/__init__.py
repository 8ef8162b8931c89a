"""Compact networks, by the word a recipe uses: `model: {zoo: resnet8, width: 16}`.

`names()` and `arguments()` are cheap; `build()` imports torch and makes the network.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.errors import ModelError, missing

if TYPE_CHECKING:
    from torch import nn

MAX_COUNT = 65_536  # classes or channels: more would fill the memory before anything fails
MAX_WIDTH = 16.0  # a multiplier above this was meant as a number of channels

# A mapping of words, so that listing the zoo does not import torch: file -> its networks.
_FAMILIES = {
    "densenet": ("densenet121", "densenet_cifar"),
    "efficientnet_lite": tuple(f"efficientnet_lite{i}" for i in range(5)),
    "fast_scnn": ("fast_scnn",),
    "igc": ("igcv1", "igcv1_resnet18", "igcv2", "igcv3"),
    "lenet": ("lenet5", "lenet_300_100"),
    "mobilenet_v1": ("mobilenet_v1",),
    "mobilenet_v2": ("mobilenet_v2", "mobilenet_v2_small"),
    "mobilenet_v3": ("mobilenet_v3_large", "mobilenet_v3_small"),
    "resnet": tuple(f"resnet{n}" for n in (8, 18, 20, 32, 34, 44, 50, 56, 101, 110, 152)),
    "shufflenet_v2": ("shufflenet_v2",),
    "tiny_detector": ("tiny_detector",),
    "unet": ("unet",),
    "vgg": ("vgg11", "vgg13", "vgg16", "vgg19", "vgg_cifar"),
    "vgg_small": ("vgg_small",),
    "xception": ("xception",),
}
# of those that do not classify
_TASKS = {"fast_scnn": "segmentation", "tiny_detector": "detection", "unet": "segmentation"}
_BUILDERS = {
    name: f"{__name__}.{module}:{name}" for module, names in _FAMILIES.items() for name in names
}


def task(name: str) -> str:
    """What the network is for, a name of `edgecv.tasks`."""
    return _TASKS.get(name, "classification")


def names() -> list[str]:
    """The zoo's networks, sorted. Imports nothing heavy."""
    return sorted(_BUILDERS)


def builder(name: str) -> Callable[..., nn.Module]:
    """The function that makes the network `name`. Imports torch.

    Raises ModelError for an unknown name, MissingExtraError without torch.
    """
    module, function = _place(name)
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "torch":
            raise missing("torch", "compress", f"zoo {name}") from error
        raise


def module_of(name: str) -> str:
    """The module that makes the network `name`. Raises ModelError for an unknown name."""
    return _place(name)[0]


def arguments(name: str) -> dict[str, Any]:
    """The arguments of the network `name` with their defaults, read without importing torch.

    Raises ModelError for an unknown name.
    """
    made = _function(name).args
    return {
        argument.arg: ast.literal_eval(default)
        for argument, default in zip(made.args, made.defaults, strict=True)
    }


def about(name: str) -> str:
    """One line about the network `name`. Raises ModelError for an unknown name."""
    return (ast.get_docstring(_function(name)) or "").partition("\n")[0]


def _function(name: str) -> ast.FunctionDef:
    """The code of the function that makes a network, read without importing torch."""
    module, function = _place(name)
    code = Path(__file__).with_name(f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")
    found = (n for n in ast.parse(code).body if isinstance(n, ast.FunctionDef))
    return next(n for n in found if n.name == function)


def _place(name: str) -> tuple[str, str]:
    """The module and the function of a network. Raises ModelError for an unknown name."""
    if name not in _BUILDERS:
        close = difflib.get_close_matches(str(name), names(), n=1, cutoff=0.7)
        hint = f"did you mean {close[0]}?" if close else f"the zoo has {', '.join(names())}"
        if not close and Path(f"{name}.py").is_file():
            hint = f"for {name}.py in this folder write {name}:FUNCTION"
        raise ModelError("zoo", f"no network named {name!r}", hint)
    module, function = _BUILDERS[name].split(":")
    return module, function


def build(name: str, **args: Any) -> nn.Module:
    """The network `name` made with `args`, randomly initialised, in training mode.

    Raises ModelError for an unknown name, an unknown argument or one of the wrong type.
    """
    function = builder(name)
    accepted = arguments(name)
    for key, value in list(args.items()):
        if key not in accepted:
            close = difflib.get_close_matches(key, accepted, n=1)
            listed = ", ".join(f"{k}={v}" for k, v in accepted.items())
            hint = f"did you mean {close[0]}? " if close else ""
            raise ModelError(f"zoo {name}", f"unknown argument {key!r}", f"{hint}it takes {listed}")
        kind = type(accepted[key])
        if kind is float and type(value) is int:  # width: 1
            args[key] = value = float(value)
        if type(value) is not kind:  # not isinstance: True must not pass for the integer 1
            raise ModelError(f"zoo {name}", f"{key} must be {kind.__name__}, got {value!r}")
        if kind is int and value < 1:
            raise ModelError(f"zoo {name}", f"{key} must be at least 1, got {value}")
        if kind is int and value > MAX_COUNT:
            raise ModelError(f"zoo {name}", f"{key} must be at most {MAX_COUNT:,}, got {value:,}")
        if kind is float and not 0 < value <= MAX_WIDTH:
            what = f"{key} must be above 0 and at most {MAX_WIDTH}, got {value}"
            raise ModelError(f"zoo {name}", what)
    return function(**args)
