"""The edits of `lowrank`: layers replaced by rows of smaller ones, or by structured ones.

    factorize    {"layers": {"conv2": {"form": "tucker2", "ranks": [16, 32]},
                             "conv3": {"form": "grouped", "ranks": [64], "groups": 4}}}
    structured   {"layers": {"fc": {"structure": "toeplitz", "rank": 4}}}

Replaying makes layers of the right shapes; their weights are loaded after. conv2 becomes
nn.Sequential(conv2.0, conv2.1, ...), and the last of them has its bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecv.errors import ModelError
from edgecv.methods.lowrank.cp import Cp
from edgecv.methods.lowrank.form import Form, built, shape_of
from edgecv.methods.lowrank.grouped import Grouped
from edgecv.methods.lowrank.spatial import Spatial
from edgecv.methods.lowrank.svd import Svd
from edgecv.methods.lowrank.tucker2 import Tucker2
from edgecv.models.edits import named, put

if TYPE_CHECKING:
    from torch import nn

FORMS = ("svd", "spatial", "tucker2", "cp", "grouped")


def form_of(name: str, groups: int = 1, penalty: float = 0.0, seed: int = 0) -> Form:
    """The form of that name. Raises ModelError: unknown."""
    made: dict[str, Form] = {
        "svd": Svd(), "spatial": Spatial(), "tucker2": Tucker2(),
        "cp": Cp(penalty, seed), "grouped": Grouped(groups),
    }  # fmt: skip
    if name not in made:
        raise ModelError("model.json", f"unknown form {name!r}", "from a newer edgecv: upgrade")
    return made[name]


def replay(module: nn.Module, edit: dict[str, Any]) -> None:
    """Apply an edit in place. Raises ModelError: it names a layer that is not there or unlike."""
    for name, made in edit.get("layers", {}).items():
        layer = named(module, name, edit)
        try:
            new = _structured(layer, made) if edit["op"] == "structured" else _factors(layer, made)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as e:
            raise ModelError("model.json", f"edit does not fit layer {name!r}: {e}") from None
        put(module, layer, new)


def _factors(layer: Any, made: dict[str, Any]) -> nn.Module:
    form = form_of(made["form"], made.get("groups", 1))
    ranks = tuple(int(r) for r in made["ranks"])
    return built(form.parts(shape_of(layer), ranks), layer)


def _structured(layer: Any, made: dict[str, Any]) -> nn.Module:
    from edgecv.methods.lowrank.structured import like

    return like(layer, made["structure"], int(made["rank"]))
