"""Model: a builder, a list of edits, and weights. No pickle anywhere.

A Model folder holds `model.json` and `weights.safetensors`. Loading it is: build the dense network
(a zoo name, or `module:function` with arguments), replay the edits, load the weights. A stage never
changes its input; it saves a new Model with one more edit.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import json
import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgecv
from edgecv import user_code
from edgecv.errors import EdgecvError, ModelError, one_line
from edgecv.keys.versions import source
from edgecv.models import builder_trust, live_network
from edgecv.models import edits as editing
from edgecv.runtime import shape
from edgecv.runtime.shape import NUMBER, Every, Number, Text, whole

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
SCHEMA = 1
INPUT = {
    "size?": [whole(1, 1 << 16), whole(1, 1 << 16)],
    "channels?": whole(1, 1 << 16),
    "mean?": Every(list, NUMBER),
    "std?": Every(list, NUMBER),
    "crop_pct?": Number(0.05, 1),
    "interpolation?": Text(40),
    "resize?": Text(40),
    "pad_value?": whole(0, 255),
    "pad_at?": Text(40),
    "color?": Text(40),
}
EDIT = {"op": Text(100), "step?": Text(1000), "layers?": dict}
SHAPE = {
    "builder": Text(1000),
    "source_digest?": str,
    "args": dict,
    "edits": Every(list, EDIT),
    "input": INPUT,
    "labels?": Every(list, str),
    "facts": Every(dict, dict),
    "steps?": Every(list, str),
}


@dataclass(frozen=True)
class Model:
    """A network that can be built again anywhere.

    builder:    "zoo:resnet8", "package.module:function", or of `edgecv.models.live_network`
    args:       keyword arguments of the builder, plain JSON
    edits:      structural edits since, in order (`edgecv.models.edits`)
    input:      runtime Preprocess as JSON: size, channels, mean, std, ...
    labels:     class names by index, or None
    facts:      what the stages measured on the way, by step name; shown, never relied on
    """

    builder: str
    args: dict[str, Any] = field(default_factory=dict)
    edits: tuple[editing.Edit, ...] = ()
    input: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def with_edit(self, edit: editing.Edit) -> Model:
        """Raises StageError where the edit cannot stand on those made before it."""
        editing.check(edit, self.edits)
        return replace(self, edits=(*self.edits, edit))

    def with_facts(self, step: str, facts: dict[str, Any]) -> Model:
        return replace(self, facts={**self.facts, step: facts})

    def build(
        self, weights: dict[str, torch.Tensor] | None = None, file: Path | None = None
    ) -> torch.nn.Module:
        """The network with every edit replayed and weights as the builder left them.

        weights: of a Model's file, for `edgecv.models.folding.folded`
        file:    other people's weights, loaded into what the builder returns
        """
        from edgecv.models.folding import folded

        module = build(self.builder, self.args)
        if file is not None:
            from edgecv.models.torchfiles.fitting import fill

            fill(module, file, self.builder)
        module = folded(module, self.builder, weights)
        for edit in self.edits:
            try:
                editing.replay(module, edit)
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
                what = f"the edit {edit['op']!r:.60} of step {edit.get('step')!r:.60} does not fit"
                hint = "was the network's own code edited since?"
                raise ModelError(f"model.json of {self.builder}", what, hint) from None
        return module.eval()

    def save(self, folder: Path, module: torch.nn.Module) -> None:
        """Write model.json and weights.safetensors, subnormal weights as zeros.

        facts["subnormal_weights"]: how many there were, by name; absent where there were none.
        Raises ModelError on NaN or Inf weights.
        """
        from safetensors.torch import save_file

        check_finite(module, self.builder)
        state = {k: v.detach().clone().contiguous() for k, v in module.state_dict().items()}
        flushed = _flush(state)
        if flushed:
            log.warning(
                "%s: %d subnormal weights set to zero (processors multiply them some hundred times "
                "slower), in %s", self.builder, sum(flushed.values()), ", ".join(flushed),
            )  # fmt: skip
        facts = self.facts | ({"subnormal_weights": flushed} if flushed else {})
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / "weights.safetensors")
        data = {
            "schema": SCHEMA,
            "builder": self.builder,
            "source_digest": source_digest(self.builder),
            "args": self.args,
            "edits": list(self.edits),
            "input": self.input,
            "labels": self.labels,
            "facts": facts,
            "steps": list(facts),  # in their order, which sorted keys lose
        }
        (folder / "model.json").write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")

    @staticmethod
    def read(folder: Path) -> Model:
        """The description alone: needs no torch and runs no code of the network's."""
        data = _read_json(folder)
        return Model(
            builder=data["builder"],
            args=data["args"],
            edits=tuple(data["edits"]),
            input=data["input"],
            labels=tuple(data["labels"]) if data.get("labels") else None,
            facts={k: data["facts"][k] for k in _in_order(data)},
        )

    @staticmethod
    def load(folder: Path) -> tuple[Model, torch.nn.Module]:
        """Build, replay the edits, load the weights. Bit-equal to what was saved.

        Raises ModelError: not a Model folder, damaged weights, or code that no longer fits them;
        TrustError: its builder is code that nobody vouched for (`edgecv.models.builder_trust`).
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from edgecv.models.folding import renamed

        model = Model.read(folder)
        builder_trust.check(folder, model.builder)
        saved = _read_json(folder).get("source_digest")
        if saved is not None and saved != source_digest(model.builder):
            log.warning("%s: the code of %s has changed since it was saved", folder, model.builder)
        try:
            weights = load_file(folder / "weights.safetensors")
            module = model.build(weights)
            module.load_state_dict(renamed(weights, module))
        except FileNotFoundError:
            raise ModelError(str(folder), "weights.safetensors is missing") from None
        except (SafetensorError, RuntimeError) as e:
            first = one_line(e, 200)
            raise ModelError(
                str(folder), f"weights do not fit {model.builder}: {first}", "was its code edited?"
            ) from None
        return model, module.eval()


def _in_order(data: dict[str, Any]) -> list[str]:
    """The steps of model.json as they came; files of an older edgecv have them sorted."""
    steps = [step for step in data.get("steps") or () if step in data["facts"]]
    return steps + [step for step in data["facts"] if step not in steps]


def _flush(state: dict[str, torch.Tensor]) -> dict[str, int]:
    """Set subnormal float32 weights to zero in place; how many there were, by name."""
    from edgecv.subnormals import count, flush

    found = {}
    for name, value in state.items():
        if str(value.dtype) == "torch.float32" and (number := count(value.numpy())):
            value.numpy()[...] = flush(value.numpy())
            found[name] = number
    return found


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    try:
        data = shape.load(path)
    except (FileNotFoundError, NotADirectoryError):
        what = "is not a Model folder: model.json is missing"
        hint = "give a bundle (.edgecv), or a folder of models/ that `edgecv run` wrote"
        raise ModelError(str(folder), what, hint) from None
    except OSError as e:
        raise ModelError(str(path), f"cannot be read: {e.strerror}") from None
    except ValueError as e:
        raise ModelError(str(path), str(e), "save the Model again") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is not int or schema != SCHEMA:
        raise ModelError(str(path), f"schema {schema!r:.40}, expected {SCHEMA}")
    if problem := shape.wrong(data, SHAPE):
        raise ModelError(str(path), f"is damaged: {problem}", "save the Model again")
    return dict(data)


def build(builder: str, args: dict[str, Any]) -> torch.nn.Module:
    """Call the builder. Raises ModelError: no such module, function or argument; not a Module."""
    import torch

    if not isinstance(args, dict) or not all(isinstance(key, str) for key in args):
        raise ModelError(builder, "its arguments are no mapping of names")
    if builder.startswith("zoo:"):
        from edgecv.models import zoo

        return zoo.build(builder.removeprefix("zoo:"), **args)
    if live_network.is_live(builder):
        return live_network.copied(builder)
    builder_trust.check_name(builder)
    function = resolve(builder)
    builder_trust.check_function(builder, function)
    _check_arguments(builder, function, args)
    try:
        module = function(**args)
    except EdgecvError:
        raise
    except Exception as e:
        raise ModelError(builder, f"raised {type(e).__name__} at {_place(e)}: {e}") from e
    if not isinstance(module, torch.nn.Module):
        what = f"returned a {type(module).__name__}, not a torch.nn.Module"
        raise ModelError(builder, what, "the function returns the network itself")
    return module


def _check_arguments(builder: str, function: Any, args: dict[str, Any]) -> None:
    """Raises ModelError naming the parameters when the arguments do not fit the function."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built in: it will say so itself
        return
    try:
        signature.bind(**args)
    except TypeError as e:
        raise ModelError(builder, str(e), f"its parameters: {signature}") from None


def check_reference(reference: str, args: dict[str, Any]) -> None:
    """Whether "module:function" is there and takes these arguments, without running any of it.

    Raises ModelError as `resolve` and `build` would; says nothing where only running could tell.
    """
    if live_network.is_live(reference):
        return
    builder_trust.check_name(reference)
    name, _, attribute = reference.partition(":")
    user_code.allow(name)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        hint = f"is {name.split('.')[0]}.py in the working folder or beside the recipe?"
        raise ModelError(reference, f"no module named {name!r}", hint)
    if not str(spec.origin).endswith(".py"):
        return
    try:
        tree = ast.parse(Path(str(spec.origin)).read_text(encoding="utf-8"))
    except SyntaxError as e:
        place = f"{Path(str(spec.origin)).name}:{e.lineno}"
        raise ModelError(reference, f"SyntaxError at {place}: {e.msg}") from None
    except (OSError, ValueError):
        return
    functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    mentioned = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    mentioned |= {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
                  for a in n.names}  # fmt: skip
    if attribute not in functions:
        if attribute not in mentioned and "*" not in mentioned:
            near = difflib.get_close_matches(attribute, functions, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(functions)}"
            raise ModelError(reference, f"module {name} has no function {attribute!r}", hint)
        return
    found = functions[attribute]
    if isinstance(found, ast.FunctionDef) and found.args.kwarg is None and not found.decorator_list:
        known = [a.arg for a in (*found.args.args, *found.args.kwonlyargs)]
        for key in args:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
                raise ModelError(reference, f"takes no argument {key!r}", hint)


def _place(error: BaseException) -> str:
    """The last line of the user's own code that an exception passed through."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename and "<frozen" not in f.filename
           and not Path(f.filename).is_relative_to(Path(edgecv.__file__).parent)]  # fmt: skip
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def resolve(reference: str) -> Any:
    """The function that "package.module:function" names; the working folder is searched first."""
    name, _, attribute = reference.partition(":")
    if not name or not attribute:
        raise ModelError(reference, "is not of the form package.module:function")
    user_code.allow(name)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as e:
        own = bool(e.name) and name.startswith(e.name or "")
        hint = f"is {name.split('.')[0]}.py in the working folder or installed?" if own else ""
        raise ModelError(reference, str(e), hint) from e
    except Exception as e:
        raise ModelError(reference, f"{type(e).__name__} at {_place(e)}: {e}") from e
    found = getattr(module, attribute, None)
    if hasattr(module, attribute) and not callable(found):
        kind = type(found).__name__
        raise ModelError(reference, f"{attribute!r} is a {kind}, not a function")
    if not callable(found):
        near = difflib.get_close_matches(attribute, dir(module), 1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        raise ModelError(reference, f"module {name} has no function {attribute!r}", hint)
    return found


def source_digest(reference: str) -> str | None:
    """Digest of the code behind a builder: its module, or its whole package if it is in one.

    Found without importing it. None when there is no such file.
    """
    if live_network.is_live(reference):
        return live_network.digest(reference)
    user_code.allow(reference.partition(":")[0])
    zoo = reference.startswith("zoo:") or reference.startswith("edgecv.")
    found = source("edgecv.models.zoo" if zoo else reference.partition(":")[0].split(".")[0])
    return None if found == "absent" else found


def check_finite(module: torch.nn.Module, where: str) -> None:
    """Raises ModelError naming the first weight that holds NaN or Inf; a mask of -inf is none."""
    import torch

    masks = {name for name, _ in module.named_buffers()}
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        value = value[~value.isneginf()] if name in masks else value
        if not bool(torch.isfinite(value).all()):
            raise ModelError(where, f"weight {name!r} holds NaN or Inf", "train it again")


def _without(module: torch.nn.Module, given: int) -> str:
    """The first argument of forward that has neither a value nor a default; "" where none is."""
    from edgecv.examples import arguments

    rest = list(arguments(module).items())[given:]
    return next((name for name, default in rest if default is inspect.Parameter.empty), "")


def check_outputs(
    module: torch.nn.Module,
    where: str,
    example: Sequence[torch.Tensor],
    classes: int | None,
    trains: bool = True,
    reads: Callable[[Any], object] | None = None,
) -> None:
    """Run zeros through: what it returns can be exported, and holds the data's classes.

    example: a tensor for each argument
    trains: steps that train follow, which take logits alone; else any tensors will do
            (`edgecv.outputs`), of which the first has the classes where the data has any
    reads: in place of both, how another task reads what is returned; it raises what it cannot
    Raises ModelError: the forward pass fails, returns what has no such form, or has another class
    count than the data.
    """
    import torch

    from edgecv.behaviour import check_of_images, tracking
    from edgecv.outputs import outputs_of

    was = module.training
    if trains:
        check_of_images(module, where)
    module.eval()
    try:
        with torch.inference_mode(), tracking(module) as inside:
            result = module(*example)
    except Exception as e:
        shape, at = " and a ".join("x".join(map(str, x.shape)) for x in example), inside()
        hint = "check data.size and the channels, or run its forward on such a tensor"
        if any(f"{sides}d)" in at for sides in (1, 3)):
            hint = "images are (N, C, H, W), and that layer is of other inputs"
        if missing := _without(module, len(example)):
            hint = f"its forward takes more: give a shape of each, --input {missing}:1x4"
        what = f"fails on a {shape} input, at {at or _place(e)}"
        raise ModelError(where, what, hint) from e
    finally:
        module.train(was)
    if reads is not None:
        reads(result)
        return
    out = outputs_of(result, where).values[0]
    if trains and result is not out:
        what = f"returns a {type(result).__name__}, not one tensor"
        hint = "return the logits alone in eval mode, or only quantize and export it"
        raise ModelError(where, what, hint)
    if trains and (out.ndim != 2 or out.dtype != torch.float32):
        kind = str(out.dtype).removeprefix("torch.")
        what = f"returns {kind} {tuple(out.shape)}, expected float32 (1, classes)"
        raise ModelError(where, what, "x.flatten(1), or only quantize and export it")
    found = 1 if out.ndim < 2 else out.shape[1] if out.ndim in (2, 4) else out.shape[-1]
    if classes is not None and found != classes:
        raise ModelError(
            where,
            f"has {found} outputs and the data {classes} classes",
            "give the builder the class count of the data; "
            "data: {images: FOLDER} asks for no classes",
        )
