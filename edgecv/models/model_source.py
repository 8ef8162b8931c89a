"""What a recipe's `model:` and `student:` name: a zoo network, a function, a file or a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecv.errors import RecipeError
from edgecv.graph_files import FILES, hint_to, is_pinned
from edgecv.graphs.onnx import pins
from edgecv.graphs.onnx.pins import Pins
from edgecv.models import zoo
from edgecv.yaml_validation import Where, near, short

TORCH = ("script", "program")  # TorchScript and torch.export, which become .onnx
KINDS = ("zoo", "module", *FILES, *TORCH, "folder")
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".pkl", ".bin", ".tar", ".safetensors", ".h5", ".keras")


@dataclass(frozen=True)
class ModelSource:
    """What `model:` names. kind is one of KINDS.

    pins:    what the recipe says of an .onnx file that leaves its shapes open, or is cut
    weights: the file of a zoo network's or function's weights; None leaves them as they are built
    """

    kind: str
    name: str
    args: dict[str, Any]
    pins: Pins = field(default_factory=Pins)
    weights: Path | None = None

    @property
    def is_graph(self) -> bool:
        """Whether it is a file that no PyTorch network comes from, to train or to prune."""
        return self.format in FILES

    @property
    def format(self) -> str:
        """Its kind, or that of the graph file which is made of it first."""
        return "onnx" if self.kind in TORCH else self.kind


def read(value: Any, folder: Path, where: Where, *place: Any) -> ModelSource:
    """The network that the recipe names at `place`."""
    place = place or ("model",)
    if isinstance(value, str):
        return _in_zoo(source_of(value, {}, folder), where, *place)
    if isinstance(value, dict):
        named = [k for k in KINDS if k in value]
        if len(named) == 1:
            args = {str(k): v for k, v in value.items() if k != named[0]}
            name = str(value[named[0]])
            if named[0] in (*FILES, *TORCH, "folder"):
                name = str(locate(name, folder))
                traced = ("input",) if named[0] in TORCH else ()
                words = pins.WORDS if is_pinned(named[0]) else traced
                for key in args:
                    if key not in words:
                        what = f"unknown key {key!r}: a file takes no arguments"
                        raise RecipeError(where(*place, key), what, near(key, words))
                said = pins.read(args, lambda *keys: where(*place, *keys))
                return ModelSource(named[0], name, {}, said)
            said = Pins()
            if named[0] == "module":  # a builder's own arguments may have these names
                taken = {k: args.pop(k) for k in ("input", "batch") if _is_pin(k, args.get(k))}
                said = pins.read(taken, lambda *keys: where(*place, *keys))
            weights = args.pop("weights") if isinstance(args.get("weights"), str) else None
            file = None if weights is None else locate(weights, folder)
            if file is not None and not file.exists():
                raise RecipeError(where(*place, "weights"), f"{weights}: no such file")
            return _in_zoo(ModelSource(named[0], name, args, said, file), where, *place)
    what = f"give one of {', '.join(KINDS)}, found {short(value)}"
    raise RecipeError(where(*place), what, "e.g. {zoo: resnet8}")


def _is_pin(word: str, value: Any) -> bool:
    """Whether a key beside `module:` is meant for edgecv: shapes by input; a batch stays the
    builder's."""
    return word == "input" and isinstance(value, dict) and bool(value)


def _in_zoo(source: ModelSource, where: Where, *place: Any) -> ModelSource:
    """Whether the zoo has that network with those arguments; imports no torch."""
    if source.kind != "zoo":
        return source
    if source.name not in zoo.names():
        what = f"no network named {source.name!r} in the zoo"
        raise RecipeError(where(*place), what, near(source.name, zoo.names()))
    for key in source.args:
        known = zoo.arguments(source.name)
        if key not in known:
            raise RecipeError(where(*place, key), f"unknown key {key!r}", near(key, list(known)))
    return source


def source_of(text: str, args: dict[str, Any], folder: Path) -> ModelSource:
    """What a model written as one word means: a graph file by its suffix, Model folder,
    module:function or zoo."""
    for kind, of in FILES.items():
        if text.endswith(of.suffix):
            return ModelSource(kind, str(locate(text, folder)), args)
    if is_file(locate(text, folder) / "model.json"):
        return ModelSource("folder", str(locate(text, folder)), args)
    if ":" in text and not text.startswith("zoo:"):
        return ModelSource("module", text, args)
    if kind := of_torch(locate(text, folder)):
        return ModelSource(kind, str(locate(text, folder)), args)
    if Path(text).suffix in CHECKPOINTS:
        what = "is a checkpoint: weights without the network that they belong to"
        hint = f"give the function that builds it: module:function --weights {text}"
        raise RecipeError(text, what, hint)
    if is_file(locate(text, folder)):
        hint = "a file is .onnx, .tflite, OpenVINO's .xml, TorchScript or .pt2: docs/networks.md"
        raise RecipeError(text, "is not a network that can be read", hint)
    if "/" in text and not locate(text, folder).exists():
        raise RecipeError(text, "no such file or folder", hint_to(locate(text, folder)))
    if "/" in text:
        raise RecipeError(
            text, "is not a Model folder", "a folder with model.json, as `run` writes"
        )
    return ModelSource("zoo", text.removeprefix("zoo:"), args)


def locate(text: str, folder: Path) -> Path:
    """A path of a recipe: in the working folder first, then beside the recipe."""
    try:
        path = Path(text).expanduser()
        beside = folder / path
        return path if path.exists() or path.is_absolute() or not beside.exists() else beside
    except (OSError, RuntimeError) as e:  # a name too long; ~ of a user who is not there
        raise RecipeError(text[:80], f"is no path: {e}") from None


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long to be a file's
        return False


def of_torch(path: Path) -> str:
    """ "script" or "program" for a file of torch.jit.save or torch.export.save, "" for others.

    Raises ModelError where a file that is called so is damaged, or not there.
    """
    own = path.suffix in (".pt2", ".ts", ".torchscript")
    if not (own or (path.suffix in CHECKPOINTS and is_file(path))):
        return ""
    from edgecv.models.torchfiles import kinds

    return {"torchscript": "script", "program": "program"}.get(kinds.kind(path), "")
