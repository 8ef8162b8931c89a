"""One network to a bundle for each target, with no recipe: what `edgecv export` does.

The command's options become a recipe of one step, so that export and run share every line of code
that matters; its results live in a temporary store and what is asked for is copied out.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgecv import backends as engines
from edgecv.errors import BundleError, EdgecvError
from edgecv.files import check_folder, disk_errors, publish
from edgecv.limits import judge
from edgecv.measuring import facts as kept
from edgecv.measuring.facts import BundleFacts
from edgecv.models import model_input
from edgecv.plan import pipeline, results
from edgecv.plan.execute import Reporter
from edgecv.plan.makers.model import RANDOM
from edgecv.plan.recipe import Recipe
from edgecv.plan.recipe_input import labelled
from edgecv.plan.store import Store
from edgecv.quick_export.images import understood_as
from edgecv.quick_export.recipe import recipe_of
from edgecv.quick_export.request import Request
from edgecv.runtime.archive import read_bundle

__all__ = ["Exported", "Request", "export"]


@dataclass(frozen=True)
class Exported:
    """What was written. facts: as `edgecv.bundling.build` found them.

    verdict: on the limits (`edgecv.limits.judge`), when there were any
    """

    bundle: Path
    files: tuple[Path, ...]
    facts: BundleFacts
    verdict: dict[str, Any] | None = None
    as_they_are: bool = False  # the file itself says what its pixels are
    understood: str = ""  # how mean and std were taken, where that was not to be taken for granted
    random: str = ""  # weights that another build of the network has otherwise


def export(
    request: Request,
    out: Path,
    reporter: Reporter | None = None,
    store: Path | None = None,
    jobs: int | None = 1,
) -> dict[str, Exported | EdgecvError]:
    """Export, quantize, compile, prove, and write a bundle with the engine's files beside it for
    each target: what was written, or why it could not be, by target in the order asked for.

    store: a folder that keeps the steps for the exports to come; without it nothing is kept
    jobs: steps that are done at once, as `pipeline.run` has it
    Raises EdgecvError where no target got a bundle; nothing is written to `out` then.
    """
    check_folder(out)
    recipe = recipe_of(request)
    with tempfile.TemporaryDirectory(prefix="edgecv-export-") as room:
        compare = bool(request.limits)
        floats = not compare and _against_float(request, recipe)
        kept_in = Store(store or Path(room))
        with _in_options():
            outcome = pipeline.run(recipe, out, reporter, kept_in, compare, jobs, floats)
        step = recipe.steps[-1]
        ends = {t.name: f"bundle:{step.name}@{t.name}" for t in recipe.targets}
        failed: dict[str, EdgecvError] = {}
        for node in outcome.expansion.nodes.values():  # what limits are judged by counts too
            counts = node.kind == "measure" or (node.kind == "bundle" and compare)
            if (counts or node.id in ends.values()) and node.target and node.id in outcome.failures:
                failed.setdefault(node.target.name, outcome.failures[node.id])
        if len(failed) == len(ends):
            raise next(iter(failed.values()))
        rows = results.collect(outcome)["results"] if compare else []
        names = {t: file_name(request, recipe, t, out) for t in ends}
        random = _random(outcome.folders.get("model"))
        references = results.references(outcome) if compare or floats else {}
        found: dict[str, Exported | EdgecvError] = {}
        for t, end in ends.items():
            if t in failed:
                found[t] = failed[t]
                continue
            written = _write(outcome.folders[end], names[t], out)
            own = [r for r in rows if (r["step"], r["target"]) == (step.name, t)]
            found[t] = replace(
                written,
                facts=_beside(written.facts, references.get(end)),
                as_they_are=request.std is None and recipe.data.std != (1.0,),
                understood=understood_as(request, recipe.data),
                random=random,
                verdict=judge(request.limits, own) if compare else None,
            )
        return found


def _against_float(request: Request, recipe: Recipe) -> bool:
    """Whether what is made has an accuracy, and a float network that lost some of it."""
    if not request.evaluate or not labelled(request.evaluate):
        return False
    if recipe.steps[-1].stage.word != "quantize":
        return False
    return model_input.known(recipe.model, request.size).get("precision") in (None, "fp32")


def _beside(facts: BundleFacts, reference: float | None) -> BundleFacts:
    """With metric.reference, fp32's accuracy, where that is known."""
    if facts.metric is None or reference is None:
        return facts
    return replace(facts, metric={**facts.metric, "reference": reference})


def _random(model: Path | None) -> str:
    """What the step `model` says of weights that are drawn; "" of files, which have none."""
    described = model / "model.json" if model else None
    if described is None or not described.is_file():
        return ""
    facts = json.loads(described.read_text()).get("facts", {})
    return str(facts.get("model", {}).get(RANDOM, ""))


@contextmanager
def _in_options() -> Iterator[None]:
    """An error of a recipe's key names the option that stands for it."""
    try:
        yield
    except EdgecvError as e:
        e.where = {"data.test": "--evaluate", "data.train": "--calibration"}.get(e.where, e.where)
        raise


def file_name(request: Request, recipe: Recipe, target: str, out: Path) -> str:
    """What the files are called: with the target's name where files for several share the folder.

    A name of the user's own is taken as it is for one target, unless another target's bundle has
    it already.
    """
    if request.name is None or len(recipe.targets) > 1:
        return f"{recipe.name}.{target}"
    path = out / f"{request.name}.edgecv"
    if not path.exists() or _target_of(path) == target:
        return request.name
    return f"{request.name}.{target}"


def _target_of(bundle: Path) -> str | None:
    """The target that a bundle was made for; None where it is no bundle."""
    try:
        return str(read_bundle(bundle).manifest["target"])
    except BundleError:
        return None


def _write(folder: Path, name: str, out: Path) -> Exported:
    facts = kept.read(folder)
    files = []
    with disk_errors(out):
        for source in sorted((folder / "engine").iterdir()):
            path = out / source.name.replace("model", name, 1)
            if engines.facts(facts.engine).folder:
                path = out / name / source.name
                path.parent.mkdir(parents=True, exist_ok=True)
            publish(source, path)
            files.append(path)
        bundle = out / f"{name}.edgecv"
        publish(folder / facts.bundle, bundle)
    return Exported(bundle, tuple(files), facts)
