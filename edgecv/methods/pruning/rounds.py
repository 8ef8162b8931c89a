"""score → choose widths → cut → recalibrate → tune, round by round: share_r = share^(r / rounds).

Each round scores the network that the round before has tuned, so that what was learned since
counts. What a round chose is kept in context.out before it trains: measured times are never the
same twice, and a run that was killed goes on with the widths it had.
"""

from __future__ import annotations

import copy
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgecv.behaviour import check_runs
from edgecv.context import Context
from edgecv.errors import ModelError, StageError, UnsupportedError
from edgecv.files import write_atomic
from edgecv.methods.pruning import criteria, frontier, groups, tables, whole
from edgecv.methods.pruning.criteria import thinet
from edgecv.methods.pruning.fit import MOST, TOLERANCE, Fitted, fit
from edgecv.methods.pruning.place import here
from edgecv.methods.pruning.probe import probe
from edgecv.methods.pruning.reach import Reach
from edgecv.methods.pruning.shapes import Shapes, example_of, macs, shapes, size_bytes
from edgecv.methods.pruning.tuning import Slimming, epochs_before, recalibrate, scratch
from edgecv.methods.training.judging import judged
from edgecv.models.edits import Edit, describe, replay
from edgecv.models.model import Model
from edgecv.target import Target

if TYPE_CHECKING:
    from edgecv.stages.prune import Prune

log = logging.getLogger(__name__)
Widths = tuple[int, ...]
FEW = 3  # measurements of a round that is not the last
COARSE = 0.1  # a measure that misses what was asked for by more is warned of


@dataclass(frozen=True)
class Choice:
    """What one round removes. reached: the share of the first network's cost, where asked for."""

    edit: Edit
    kept: list[Tensor]
    found: list[groups.Group]
    facts: dict[str, Any]
    reached: float = 1.0


class Pruning:
    """One run of the stage. asked: ("latency_ratio", 0.5), ("ratio", 0.5), ..."""

    def __init__(self, stage: Prune, model: Model, module: nn.Module, context: Context) -> None:
        self.stage, self.model, self.module, self.context = stage, model, module, context
        self.align = stage.align or context.alignment
        self.what, self.amount = stage.asked
        self.bytes = {"fp32": 4, "int8": 1}[stage.precision]  # of a weight
        self.kept = Kept(context.out)
        self.whole: whole.Whole | None = None
        self.target: Target | None = None
        self.table: tables.Table | None = None
        self.dense = copy.deepcopy(module) if self.timed else None
        self.wanted: float | None = None

    @property
    def timed(self) -> bool:
        return self.what in ("latency_ratio", "latency_ms")

    def run(self) -> None:
        """Write the pruned Model into context.out."""
        stage, context, module = self.stage, self.context, self.module
        facts: dict[str, Any] = {"macs_before": macs(module, context)}
        test, dense = context.images("test"), stage.dense(module)
        curve = self.kept.restore(module)
        if not curve:
            curve = [{"step": "dense", context.metric: judged(module, test, context)}]
            if stage.sparse_epochs:
                curve += self._sparse(curve)
        with tempfile.TemporaryDirectory(prefix="edgecv-prune-") as room:
            for index in range(1, stage.rounds + 1):
                last = index == stage.rounds
                if len(self.kept.rounds) < index:
                    made = self._cut(index, curve, Path(room))
                    self.kept.begin(made.edit, made.facts, made.reached, curve, module)
                epochs = stage.finetune_epochs if last else stage.round_epochs
                if not self.kept.rounds[index - 1]["done"]:
                    told: dict[str, Any] = {}
                    if epochs:
                        told = stage.finetune(module, context, epochs, stage.lr, dense)
                        now = {context.metric: told[context.metric]}
                        curve.append({"step": f"round {index}, tuned", **now})
                    self.kept.finish(told, curve, module)
        facts |= self._facts(curve)
        model = self.model
        for item in self.kept.rounds:
            model = model.with_edit(item["edit"])
        if stage.control == "scratch":
            facts["scratch"] = self._control(facts)
        self.kept.clear()
        model.with_facts(context.where, facts).save(context.out, module.eval())

    def _sparse(self, curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
        stage, context = self.stage, self.context
        plan = stage.plan(stage.sparse_epochs, stage.lr)
        Slimming(self.module, plan, context, stage.sparsity).fit()
        score = judged(self.module, context.images("test"), context)
        told = [{"step": "sparse scales", context.metric: score}]
        self.kept.save([*curve, *told], self.module)
        return told

    def remove(self, index: int, room: Path) -> Choice:
        """Score, choose and remove the channels of one round, in place.

        room: a folder for what is made on the way
        """
        self.room = room
        choice = self._choose(index)
        if self.stage.method == "thinet":
            sample = probe(self.module, self.context, self.stage.samples)
            thinet.rescale(choice.found, choice.kept, sample)
        for parameter in self.module.parameters():
            parameter.grad = None
        cut(self.module, choice.edit, self.context)
        return choice

    def _cut(self, index: int, curve: list[dict[str, Any]], room: Path) -> Choice:
        """`remove`, judged."""
        stage, context, module = self.stage, self.context, self.module
        choice = self.remove(index, room)
        test = context.images("test")
        curve.append({"step": f"round {index}, cut", context.metric: judged(module, test, context)})
        tuned = stage.finetune_epochs if index == stage.rounds else stage.round_epochs
        again = stage.recalibrate if stage.recalibrate is not None else bool(tuned)
        if again:
            recalibrate(module, context, stage.samples)
            score = judged(module, test, context)
            curve.append({"step": f"round {index}, recalibrated", context.metric: score})
        return choice

    def _choose(self, index: int) -> Choice:
        stage, context = self.stage, self.context
        found, stay = groups.survey(self.module, example_of(context), context.where, stage.keep)
        sample = probe(self.module, context, stage.samples)
        found, scores = criteria.score(stage.method, found, sample)
        full = tuple(g.width for g in found)
        told: dict[str, Any] = {}
        reached = 1.0
        reach = Reach.of(self.module, found, stay, context)
        said = reach.closed() if index == 1 else ""
        if self.what == "ratio":
            share = (1 - self.amount) ** (1 / stage.rounds)
            widths = by_ratio(scores, share, stage.scope, self.align)
            if widths == full:
                raise reach.nothing(context.where, self.amount, self.align)
            if stage.rounds == 1:
                shares = reach.shares(widths)
                told = {"asked": {"ratio": self.amount}, "shares": shares}
                told["got"] = {"ratio": round(shares["prunable"], 4)}
                said = reach.little(self.amount, shares, self.align)
        else:
            fitted, reached, told = self._fitted(found, scores, index)
            widths = fitted.point.widths
        if said:
            log.warning("%s: %s", context.where, said)
        kept = groups.best(scores, widths)
        edit = groups.edit(self.module, found, kept, context.where)
        left = [g.name for g, w in zip(found, widths, strict=True) if w == g.width]
        told |= {"widths": {g.name: w for g, w in zip(found, widths, strict=True)}}
        return Choice(edit, kept, found, told | {"left_alone": left}, reached)

    def _fitted(
        self, found: list[groups.Group], scores: list[Tensor], index: int
    ) -> tuple[Fitted, float, dict[str, Any]]:
        """Widths by what they cost: the point, the share of the first network, and facts."""
        stage, context = self.stage, self.context
        shape = shapes(self.module, found, example_of(context))
        options = frontier.options(shape.full, self.align)
        before = self.kept.rounds[-1]["reached"] if self.kept.rounds else 1.0
        cost, exact = self._costs(shape, options)
        if self.wanted is None:
            self.wanted = self._wanted()
        share = self.wanted ** (index / stage.rounds) / before
        measures: dict[Widths, whole.Measured] = {}

        def measure(widths: Widths) -> float:
            if exact:
                return cost(widths) / cost(shape.full)
            assert self.whole is not None
            context.progress(len(measures), MOST, f"measuring {', '.join(map(str, widths))}")
            trial = copy.deepcopy(self.module)
            kept = groups.best(scores, widths)
            cut(trial, groups.edit(self.module, found, kept, context.where), context)
            measures[widths] = self.whole.measure(trial)
            return measures[widths].ratio / before

        last = index == stage.rounds
        edge = frontier.Frontier(scores, options, cost, 0.0 if exact else frontier.LEAST)
        fitted = fit(edge, share, measure, 400 if exact else MOST if last else FEW)
        self._judge(fitted, share, before, found, last)
        told: dict[str, Any] = {
            "asked": {self.what: self.amount}, "reached": round(fitted.measured * before, 4),
            "got": {self.what: round(self.amount * fitted.measured * before / self.wanted, 4)},
            "tried": fitted.to_json() if not exact else [],
        }  # fmt: skip
        if self.target is not None and self.table is not None:
            told["target"], told["layers"] = self.target.name, self.table.to_json(shape)
        if last_one := measures.get(fitted.point.widths):
            told |= {"ms": last_one.ms, "dense_ms": last_one.dense_ms,
                     "interval": list(last_one.interval)}  # fmt: skip
        return fitted, fitted.measured * before, told

    def _costs(
        self, shape: Shapes, options: list[list[int]]
    ) -> tuple[Callable[[Widths], float], bool]:
        """(cost of widths, whether it is exact and not a model of measured times)."""
        if self.what == "macs":
            return shape.macs(), True
        if self.what == "size_mb":
            return shape.size_bytes(self.bytes), True
        context = self.context
        if self.whole is None or self.table is None or self.target is None:
            assert self.dense is not None
            self.target = here(context.targets, self.stage.on, context.where)
            integer = self.stage.precision == "int8"
            self.whole = whole.Whole(self.dense, context, self.target, self.room, integer)
            self.table = tables.on_target(self.target, context, _store(context), integer)
        context.progress(0, 1, f"layers on {self.target.name}")
        self.table.fill(shape, options)
        return self.table.total_ms(shape), False

    def _wanted(self) -> float:
        """What was asked for, as a share of the network that the step reads."""
        if self.what == "latency_ms":
            assert self.whole is not None
            assert self.dense is not None
            now, unit = self.whole.measure(self.dense).ms, "ms"
        elif self.what == "size_mb":
            now, unit = size_bytes(self.module, self.bytes) / 1e6, "MB"
        else:
            return self.amount
        if self.amount >= now:
            what = f"{self.what} {self.amount:g} is met already: it has {now:.3g} {unit}"
            raise StageError(self.context.where, what, "ask for less, or leave the step out")
        return self.amount / now

    def _judge(
        self, fitted: Fitted, share: float, before: float, found: list[groups.Group], last: bool
    ) -> None:
        """Raises BudgetError where even the smallest network costs more than was asked for."""
        if not last or abs(fitted.measured / share - 1) <= TOLERANCE:
            return
        widths = ", ".join(f"{g.name} {w}" for g, w in zip(found, fitted.point.widths, strict=True))
        scale = self.amount / (share * before)
        nearest = f"{self.what} {fitted.measured * before * scale:.3g} with widths {widths}"
        asked = f"{self.what} {self.amount:g}"
        if not fitted.attainable:
            raise whole.unattainable(self.context.where, asked, nearest)
        if abs(fitted.measured / share - 1) > COARSE:
            log.warning("%s: %s falls between two steps of %d channels; the nearest: %s",
                        self.context.where, asked, self.align, nearest)  # fmt: skip

    def _facts(self, curve: list[dict[str, Any]]) -> dict[str, Any]:
        rounds = self.kept.rounds
        cuts = [c for c in curve if c["step"] == f"round {len(rounds)}, cut"]
        facts: dict[str, Any] = {
            "macs": macs(self.module, self.context),
            "channels": "; ".join(describe(item["edit"]) for item in rounds),
            **self.context.accuracy(cuts[-1][self.context.metric], "_before_finetuning"),
            "method": self.stage.method,
            "precision": self.stage.precision,
            "curve": curve,
            "rounds": [item["facts"] for item in rounds],
        }
        facts |= rounds[-1]["tuned"]
        if rounds[-1]["tuned"]:
            facts |= self.context.accuracy(curve[-1][self.context.metric])
            facts["epochs"] = sum(item["tuned"].get("epochs", 0) for item in rounds)
        return facts

    def _control(self, facts: dict[str, Any]) -> dict[str, Any]:
        stage, context = self.stage, self.context
        spent = epochs_before(self.model) + facts.get("epochs", 0) + stage.sparse_epochs
        epochs = stage.control_epochs or max(1, spent)
        edits = [item["edit"] for item in self.kept.rounds]
        plan = stage.plan(epochs, stage.control_lr)
        return scratch(self.model, edits, plan, context, context.where)


class Kept:
    """What a run that is killed finds again: edits in order, weights, facts."""

    def __init__(self, folder: Path) -> None:
        self.file, self.weights = folder / "pruning.json", folder / "pruning.safetensors"
        self.rounds: list[dict[str, Any]] = []

    def restore(self, module: nn.Module) -> list[dict[str, Any]]:
        """Replay what was done, load its weights; the accuracy curve so far."""
        from safetensors.torch import load_file

        try:
            data = json.loads(self.file.read_text())
            state = load_file(self.file.parent / data["weights"])
        except (OSError, ValueError, KeyError):
            return []
        self.rounds = data["rounds"]
        for item in self.rounds:
            replay(module, item["edit"])
        module.load_state_dict(state)
        module.eval()
        return list(data["curve"])

    def begin(
        self, edit: Edit, facts: dict[str, Any], reached: float, curve: Sequence[Any],
        module: nn.Module,
    ) -> None:  # fmt: skip
        """A round was cut and is to be tuned."""
        item = {"edit": edit, "facts": facts, "reached": reached, "done": False, "tuned": {}}
        self.rounds.append(item)
        self.save(curve, module)

    def finish(self, told: dict[str, Any], curve: Sequence[Any], module: nn.Module) -> None:
        """The last round was tuned."""
        self.rounds[-1] |= {"done": True, "tuned": told}
        self.save(curve, module)

    def save(self, curve: Sequence[Any], module: nn.Module) -> None:
        """Weights under a new name first: the file that names them says which belong to it."""
        from safetensors.torch import save_file

        before = [*self.file.parent.glob(f"{self.weights.stem}-*")]
        name = f"{self.weights.stem}-{len(curve)}-{sum(r['done'] for r in self.rounds)}.safetensors"
        state = {k: v.detach().clone().contiguous() for k, v in module.state_dict().items()}
        save_file(state, self.file.parent / name)
        data = {"rounds": self.rounds, "curve": list(curve), "weights": name}
        write_atomic(self.file, json.dumps(data))
        for path in before:
            if path.name != name:
                path.unlink()

    def clear(self) -> None:
        """The result takes their place."""
        for path in [*self.file.parent.glob(f"{self.weights.stem}-*"), self.file]:
            path.unlink(missing_ok=True)


def by_ratio(scores: Sequence[Tensor], share: float, scope: str, align: int) -> Widths:
    """Channels to keep per group, about that share: a multiple of `align`, at least one of it."""
    if scope == "layer":
        wanted = [len(score) * share for score in scores]
    else:  # one threshold; scores are comparable after division by each group's mean
        scaled = [score / (score.mean() + 1e-12) for score in scores]
        threshold = torch.quantile(torch.cat(scaled).float(), 1 - share)
        wanted = [float((s > threshold).sum()) for s in scaled]
    return tuple(
        min(len(score), max(align, round(want / align) * align))
        for want, score in zip(wanted, scores, strict=True)
    )


def cut(module: nn.Module, edit: Edit, context: Context) -> None:
    """Apply the edit. Raises UnsupportedError when the network does not run with what stays, or
    answers in another shape."""
    x, hint = example_of(context), "its forward splits or reshapes channels: `keep` leaves them"
    before = check_runs(module, x, context.where, "what came before")
    try:
        replay(module, edit)
    except ModelError as e:
        raise UnsupportedError(context.where, f"cannot be pruned: {e.what}", hint) from e
    if (after := check_runs(module, x, context.where, "pruning")) != before:
        what = f"the network answers in {after} after pruning, not in {before}"
        raise UnsupportedError(context.where, what, hint)


def _store(context: Context) -> Path | None:
    """The run's store, where a step is made in it."""
    return context.out.parent.parent if context.out.parent.name == "partial" else None
