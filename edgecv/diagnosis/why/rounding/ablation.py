"""The ablation of a quantized network: what each mechanism's tensors cost when they alone are
rounded, what stays lost when all but these are, and the worst tensors of the guilty ones.

    alone_g = worth(only the tensors of g rounded, float weights)
    without_g = worth(everything rounded but these, integer weights)

Groups first: a few runs over all images. Of a guilty one the tensors whose grids are noisiest are
ranked by the answers' dB on a few images, and the worst of them judged on all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgecv.backends import Facts
from edgecv.bundling.inference import sample
from edgecv.diagnosis.why.rounding.cures import cure
from edgecv.diagnosis.why.rounding.held import held
from edgecv.diagnosis.why.rounding.judge import Judge, Worth
from edgecv.diagnosis.why.rounding.mechanisms import KINDS, Mechanism, mechanism
from edgecv.diagnosis.why.rounding.network import Network, Tensor
from edgecv.samples import Feeds

LOOKED_AT, FEW = 32, 4  # images looked into; for one tensor
RANKED, TOLD = 24, 3  # tensors of a mechanism run alone: the noisiest; of those on all images
LEAST_POINTS, LEAST_SHARE = 1.0, 0.1  # of the metric; of what is lost in all
LEAST_DB, DOMINANT_DB = 20.0, 10.0  # without a metric: below, and this near to the worst
SAME_DB = 40.0  # between the float file and the quantized one without its integers
Tell = Callable[..., None]


@dataclass
class Group:
    """The tensors of one mechanism. worst: (tensor, its dB alone, on all images or None)"""

    kind: str
    tensors: list[tuple[Tensor, Mechanism]]
    alone: Worth
    without: Worth
    guilty: bool = False
    worst: list[tuple[Tensor, Mechanism, float, Worth | None]] = field(default_factory=list)


class Ablation:
    """One network's. engine: whose bundle it is, for the cure"""

    def __init__(
        self, network: Network, floats: Any, judge: Judge, engine: Facts, preprocess: Any,
        tell: Tell = lambda *_: None,
    ) -> None:  # fmt: skip
        """floats: a session of the float network, closed here"""
        self.network, self.judge, self.engine, self.tell = network, judge, engine, tell
        self._floats, self._preprocess = floats, preprocess
        self._done, self._steps = 0, 5

    def run(self) -> dict[str, Any]:
        """The report as plain JSON (docs/why.md, "What int8 costs")."""
        tensors = self.network.tensors
        self._tell("float")
        real = self.judge.floats(self._floats)
        notes = self._doubts()
        self._tell("what tensors hold")
        kinds = self._mechanisms()
        self._steps += 2 * len({m.kind for m in kinds.values()})
        every = self._worth("all in integers", [t.name for t in tensors], True)
        weights = self._worth("weights", [], True)
        groups = [self._group(kind, kinds) for kind in KINDS]
        found = [g for g in groups if g is not None]
        for group in found:
            group.guilty = self._guilty(group.alone, real, every, found)
        for group in found:
            if group.guilty:
                self._single_out(group)
        found.sort(key=lambda g: (not g.guilty, -_lost(real, g.alone), g.alone.db))
        return {
            "images": len(self.judge.images),
            "metric": self.judge.metric,
            "float": real.to_json(),
            "all": every.to_json(),
            "weights": {
                **weights.to_json(), "layers": self.network.layers,
                "guilty": self._guilty(weights, real, every, found),
            },
            "groups": [self._shown(g) for g in found],
            "notes": notes,
        }  # fmt: skip

    def _doubts(self) -> list[str]:
        notes = []
        db = self.judge.db(self.network.session((), False), FEW)
        unknown = self.network.unknown
        if unknown:
            what = f"{len(unknown)} of {self.network.layers} layers keep their integer weights"
            notes.append(f"{what} everywhere: they are no roundings of the float file's "
                         f"({unknown[0]})")  # fmt: skip
        elif db < SAME_DB:
            notes.append(f"without its integers the file is {db:.1f} dB from the float one: they "
                         "compute different things, whatever the integers do")  # fmt: skip
        return notes

    def _mechanisms(self) -> dict[str, Mechanism]:
        tensors = self.network.tensors
        names = {t.name for t in tensors} | {name for t in tensors for name, _ in t.parts}
        some = sample(self.judge.images.samples, LOOKED_AT)
        feeds = Feeds(some, self._floats.inputs, self._preprocess)
        found = held(self.network.values(feed, names) for feed in feeds)
        return {t.name: mechanism(t, found) for t in tensors}

    def _group(self, kind: str, kinds: dict[str, Mechanism]) -> Group | None:
        own = [(t, kinds[t.name]) for t in self.network.tensors if kinds[t.name].kind == kind]
        if not own:
            return None
        names = {t.name for t, _ in own}
        others = [t.name for t in self.network.tensors if t.name not in names]
        alone = self._worth(f"{kind} alone", names, False)
        return Group(kind, own, alone, self._worth(f"all but {kind}", others, True))

    def _guilty(self, alone: Worth, real: Worth, every: Worth, groups: Sequence[Group]) -> bool:
        """Whether that alone is a good part of what is lost."""
        if real.points is not None and alone.points is not None and every.points is not None:
            lost, least = real.points - alone.points, LEAST_SHARE * (real.points - every.points)
            return real.points - every.points >= LEAST_POINTS and lost >= max(LEAST_POINTS, least)
        worst = min(g.alone.db for g in groups) if groups else alone.db
        return every.db < LEAST_DB and alone.db < min(LEAST_DB, worst + DOMINANT_DB)

    def _single_out(self, group: Group) -> None:
        """The tensors that cost most by themselves."""
        alone = []
        some = sorted(group.tensors, key=lambda one: -one[1].noise)[:RANKED]
        self._steps += len(some) + TOLD
        for tensor, why in some:
            self._tell(tensor.name)
            alone.append((self.judge.db(self.network.session([tensor.name], False), FEW),
                          tensor, why))  # fmt: skip
        alone.sort(key=lambda one: one[0])
        for i, (db, tensor, why) in enumerate(alone):
            told = self._worth(tensor.name, [tensor.name], False) if i < TOLD else None
            group.worst.append((tensor, why, told.db if told else db, told))

    def _worth(self, note: str, rounded: Any, weights: bool) -> Worth:
        self._tell(note)
        return self.judge.worth(self.network.session(rounded, weights))

    def _shown(self, group: Group) -> dict[str, Any]:
        rows = [
            {"tensor": t.shown, "what": why.what, "db": round(db, 2),
             "points": None if told is None or told.points is None else round(told.points, 2)}
            for t, why, db, told in group.worst
        ]  # fmt: skip
        return {
            "kind": group.kind,
            "count": len(group.tensors),
            "tensors": [t.shown for t, _ in group.tensors],
            "alone": group.alone.to_json(),
            "without": group.without.to_json(),
            "guilty": group.guilty,
            "worst": rows,
            "change": cure(group.kind, group.tensors, self.engine) if group.guilty else "",
        }

    def _tell(self, note: str) -> None:
        self._done += 1
        self.tell(self._done, max(self._done, self._steps), note)


def _lost(real: Worth, alone: Worth) -> float:
    if real.points is None or alone.points is None:
        return -alone.db
    return real.points - alone.points
