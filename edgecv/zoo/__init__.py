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

# name -> "module:function". A mapping, so that listing the zoo does not import torch.
_BUILDERS = {
    "efficientnet_lite0": "edgecv.zoo.efficientnet_lite:efficientnet_lite0",
    "mobilenet_v2_small": "edgecv.zoo.mobilenet_v2:mobilenet_v2_small",
    "resnet20": "edgecv.zoo.resnet:resnet20",
    "resnet8": "edgecv.zoo.resnet:resnet8",
    "vgg_small": "edgecv.zoo.vgg_small:vgg_small",
}


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


def arguments(name: str) -> dict[str, Any]:
    """The arguments of the network `name` with their defaults, read without importing torch.

    Raises ModelError for an unknown name.
    """
    module, function = _place(name)
    code = Path(__file__).with_name(f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")
    found = (n for n in ast.parse(code).body if isinstance(n, ast.FunctionDef))
    made = next(n.args for n in found if n.name == function)
    return {
        argument.arg: ast.literal_eval(default)
        for argument, default in zip(made.args, made.defaults, strict=True)
    }


def _place(name: str) -> tuple[str, str]:
    """The module and the function of a network. Raises ModelError for an unknown name."""
    if name not in _BUILDERS:
        close = difflib.get_close_matches(str(name), names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"the zoo has {', '.join(names())}"
        raise ModelError("zoo", f"no network named {name!r}", hint)
    module, function = _BUILDERS[name].split(":")
    return module, function


def build(name: str, **args: Any) -> nn.Module:
    """The network `name` made with `args`, randomly initialised, in training mode.

    Raises ModelError for an unknown name, an unknown argument or one of the wrong type.
    """
    function = builder(name)
    accepted = arguments(name)
    for key, value in args.items():
        if key not in accepted:
            close = difflib.get_close_matches(key, accepted, n=1)
            listed = ", ".join(f"{k}={v}" for k, v in accepted.items())
            hint = f"did you mean {close[0]}? " if close else ""
            raise ModelError(f"zoo {name}", f"unknown argument {key!r}", f"{hint}it takes {listed}")
        kind = type(accepted[key])
        if type(value) is not kind:  # not isinstance: True must not pass for the integer 1
            raise ModelError(f"zoo {name}", f"{key} must be {kind.__name__}, got {value!r}")
        if kind is int and value < 1:
            raise ModelError(f"zoo {name}", f"{key} must be at least 1, got {value}")
    return function(**args)
