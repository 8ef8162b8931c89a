"""lowrank: what is cheap to keep is kept, what wins no time stays, and everything replays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from edgecv import target  # noqa: E402
from edgecv.bundling.inference import sample  # noqa: E402
from edgecv.cli import main  # noqa: E402
from edgecv.errors import BudgetError, RecipeError, StageError  # noqa: E402
from edgecv.graph import Graph  # noqa: E402
from edgecv.measuring.jobs import Times  # noqa: E402
from edgecv.methods.lowrank import timing  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from edgecv.models.edits import describe  # noqa: E402
from edgecv.models.model import Model  # noqa: E402
from edgecv.stages.export import Export  # noqa: E402
from edgecv.stages.lowrank import Lowrank  # noqa: E402
from tests import networks as nets  # noqa: E402

ROOT = Path(__file__).parents[2]
X = torch.randn(4, 3, nets.SIZE, nets.SIZE, generator=torch.Generator().manual_seed(0))
ARGS = {"width": 8, "classes": nets.CLASSES}
NO_CLOCK = {"fuse_back": False, "align": 4, "finetune_epochs": 0, "samples": 16}
METHODS = ("svd", "spatial", "tucker2", "cp", "grouped", "toeplitz", "circulant")


def vgg() -> nn.Module:
    return nets.seeded(lambda: zoo.build("vgg_small", **ARGS)).eval()


def low(module: nn.Module, out: Path, context: dict | None = None, **options: Any) -> dict:
    """Run the stage on a network; the facts that it left. The network is changed in place."""
    stage = Lowrank(**{**NO_CLOCK, **options})
    source = (Model("zoo:vgg_small", ARGS), module)
    stage.run(source, nets.context(out, where="low", **(context or {})))
    return Model.read(out).facts["low"]


@pytest.mark.parametrize("method", METHODS)
def test_it_saves_and_loads_with_fewer_weights(method: str, tmp_path: Path) -> None:
    facts = low(vgg(), tmp_path, method=method, rank=4, groups=2)
    model, module = Model.load(tmp_path)
    assert facts["weights_bytes"] < facts["weights_bytes_before"]
    assert (
        sum(v.numel() * v.element_size() for v in module.state_dict().values())
        == (facts["weights_bytes"])
    )
    assert facts["layers"]
    assert all(0 <= f["error"] < 1 for f in facts["layers"].values())
    assert describe(model.edits[0]) == facts["factors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]
    if method in ("toeplitz", "circulant"):  # written out for engines: bytes of the Model alone
        assert facts["macs"] == facts["macs_before"]
        assert facts["exported_weights_bytes"] == facts["weights_bytes_before"]
    else:
        assert facts["macs"] < facts["macs_before"]
        assert facts["exported_weights_bytes"] == facts["weights_bytes"]


@pytest.mark.parametrize("aware", [True, False])
def test_what_has_low_rank_loses_nothing(aware: bool, tmp_path: Path) -> None:
    """Weights made of rank 4 are found to be, and outputs stay."""
    module = vgg()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d) and part.in_channels > 4:
                mix = torch.randn(part.in_channels, 4) @ torch.randn(4, part.in_channels)
                part.weight.copy_(torch.einsum("oiyx,ij->ojyx", part.weight, mix) / 8)
                out = torch.randn(part.out_channels, 4) @ torch.randn(4, part.out_channels)
                part.weight.copy_(torch.einsum("po,oiyx->piyx", out, part.weight) / 8)
        before = module(X)
    facts = low(module, tmp_path, method="tucker2", energy=1 - 1e-9, data_aware=aware)
    found = {n: f["ranks"] for n, f in facts["layers"].items() if f["form"] == "tucker2"}
    assert set(map(tuple, found.values())) == {(4, 4)}
    assert list(found) == ["stage1.3", "stage2.0", "stage2.3", "stage3.0", "stage3.3"]
    torch.testing.assert_close(module(X), before, rtol=1e-3, atol=1e-4)
    assert facts["top1_before_finetuning"] == facts["top1_float"]


@pytest.mark.parametrize("rank_by", ["energy", "evbmf", "macs"])
def test_ranks_are_multiples_of_the_targets_alignment(rank_by: str, tmp_path: Path) -> None:
    options = {"rank_by": rank_by, "energy": 0.7, "align": None}
    facts = low(vgg(), tmp_path, {"alignment": 8}, **options)
    assert facts["layers"]
    for found in facts["layers"].values():
        assert all(r % 8 == 0 for r in found["ranks"])
        if rank_by == "macs":
            assert found["macs"] <= 0.5


def test_fine_tuning_wins_back_what_factors_lose(tmp_path: Path) -> None:
    from edgecv.stages.train import Train

    module = vgg()
    quick = {"batch_size": 8, "flip": False, "shift": 0}
    Train(epochs=8, lr=0.01, **quick).run(
        (Model("zoo:vgg_small", ARGS), module), nets.context(tmp_path / "dense")
    )
    facts = low(module, tmp_path / "low", rank=4, finetune_epochs=6, lr=0.005, **quick)
    assert facts["epochs"] == 6
    assert facts["top1"] >= max(facts["top1_before_finetuning"], 0.75 * facts["top1_float"])


def test_another_process_computes_and_exports_the_same_bits(tmp_path: Path) -> None:
    low(vgg(), tmp_path, method="tucker2", rank=4, finetune_epochs=1, batch_size=8)
    _, module = Model.load(tmp_path)
    save_file({"x": X}, tmp_path / "x.safetensors")
    code = (
        "import sys, torch; from pathlib import Path\n"
        "sys.modules['scipy'] = None  # what chose the ranks is not needed\n"
        "from edgecv.models.model import Model\n"
        "from edgecv.methods.export.onnx import export_onnx\n"
        "from safetensors.torch import load_file, save_file\n"
        "torch.set_num_threads(1); out = Path(sys.argv[1]); _, net = Model.load(out)\n"
        "x = load_file(out / 'x.safetensors')['x']\n"
        "save_file({'y': net(x).detach().contiguous()}, out / 'y.safetensors')\n"
        "export_onnx(net, x[:1], out / 'there')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    torch.set_num_threads(1)
    assert torch.equal(load_file(tmp_path / "y.safetensors")["y"], module(X))
    from edgecv.methods.export.onnx import export_onnx

    here = export_onnx(module, X[:1], tmp_path / "here")
    assert here.path.read_bytes() == (tmp_path / "there" / "model.onnx").read_bytes()


def test_the_history_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low(vgg(), tmp_path, method="grouped", rank=4, groups=2, layers=["stage2.*", "dense"])
    assert main(["inspect", str(tmp_path)]) == 0
    told = (
        "low: 3 layers as products: dense svd 4; stage2.0 grouped in 2 groups 4; stage2.3 grouped"
    )
    assert told in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"layers": ["stage1.33"]}, RecipeError, "no layer 'stage1.33' (did you mean 'stage1.3'?)"),
        ({"layers": ["stage1.1"]}, RecipeError, "'stage1.1' is a BatchNorm2d"),
        ({"layers": ["stage1.0"]}, StageError, "stage1.0 saves no MACs"),
        ({"layers": ["stage2.0"], "method": "svd"}, StageError, "is no dense and no 1x1 layer"),
        ({"layers": ["stage2.0"], "method": "grouped", "groups": 3}, StageError, "no 3 groups"),
        ({"layers": ["stage2.0"], "method": "toeplitz"}, StageError, "there is none but"),
        ({"method": "toeplitz", "rank": 999}, StageError, "dense has 1024 weights"),
        ({"rank_by": "latency"}, StageError, "no target can be timed here"),
        ({"rank": 99}, StageError, "no layer is worth factors"),
    ],
)
def test_what_cannot_be_done_is_said_on_one_line(
    options: dict, kind: type, said: str, tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        low(vgg(), tmp_path, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cp_that_diverges_names_the_layer(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, (2, 2), bias=False), nn.Flatten(),
                           nn.Linear(4 * 13 * 13, nets.CLASSES))  # fmt: skip
    weight = torch.zeros(4, 4, 4)
    for i in range(2):
        for j in range(2):
            for k in range(2):
                weight[2 * i + j, 2 * j + k, 2 * k + i] = 1.0
    module[1].weight.data = weight.reshape(4, 4, 2, 2)
    options = {"method": "cp", "rank": 5, "layers": ["1"], "align": 1, "data_aware": False}
    with pytest.raises(StageError, match="low: layer '1': rank 5 diverges") as caught:
        low(module, tmp_path, penalty=0.0, **options)
    assert "raise penalty" in caught.value.hint
    assert low(module, tmp_path, **options)["layers"]["1"]["ranks"] == [5]


def clocked(monkeypatch: pytest.MonkeyPatch, ratio: dict[str, float]) -> None:
    """An engine on which a layer's factors take `ratio`, all of them alike; 1 ms whole."""

    def times(rows: dict, *_: Any) -> dict[str, Times]:
        return {
            name: Times(1.0, *[(1.0, *[ratio.get(name, 0.5)] * (len(options) - 1))] * 2)
            for name, options in rows.items()
        }

    monkeypatch.setattr(timing, "times", times)


CPU = {"targets": (target.load("cpu"),), "alignment": 4}


def test_factors_that_win_no_time_are_fused_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocked(monkeypatch, {"stage1.3": 1.2, "stage2.3": 1.0})
    facts = low(vgg(), tmp_path, CPU, rank=4, fuse_back=True)
    assert {"stage2.0", "stage3.3"} <= set(facts["layers"])
    assert not {"stage1.3", "stage2.3"} & set(facts["layers"])
    assert facts["whole"]["stage1.3"] == "wins no time at rank 4, 4: cpu 1.20 of the whole's"
    assert facts["layers"]["stage2.0"]["time"] == {"cpu": 0.5}
    assert isinstance(Model.load(tmp_path)[1].stage1[3], nn.Conv2d)


def test_a_network_that_wins_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocked(monkeypatch, dict.fromkeys([f"stage{i}.{j}" for i in (1, 2, 3) for j in (0, 3)], 1.1))
    with pytest.raises(StageError, match=r"no layer is worth factors: .*stage2.0 wins no time"):
        low(vgg(), tmp_path, CPU, rank=4, fuse_back=True, layers=["stage*"])


def test_without_a_clock_macs_decide_and_the_facts_say_so(tmp_path: Path) -> None:
    context = {"targets": (target.load("edgetpu"),)}
    facts = low(vgg(), tmp_path, context, rank=4, fuse_back=True)
    assert facts["layers"]
    assert "edgetpu" in facts["not_timed"]


def test_ranks_by_time_lose_the_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocked(monkeypatch, {"stage1.3": 0.9, "stage3.3": 0.1})
    facts = low(vgg(), tmp_path, CPU, rank_by="latency", latency=0.72)
    taken = sum(facts["layers"].get(n, {}).get("time", {}).get("cpu", 1.0)
                for n in (*facts["layers"], *facts["whole"]))  # fmt: skip
    assert taken <= 0.72 * 8
    assert "stage1.3" not in facts["layers"]
    with pytest.raises(BudgetError, match=r"below what the lowest ranks reach \(the nearest is 0"):
        low(vgg(), tmp_path / "less", CPU, rank_by="latency", latency=0.2)


def test_ranks_by_accuracy_are_the_fastest_that_answer_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocked(monkeypatch, {f"stage{i}.{j}": 0.3 for i in (1, 2, 3) for j in (0, 3)})

    def changed(percent: float) -> tuple[float, float]:
        """(what was taken of the layers' time, percent of the answers that changed)."""
        out, module = tmp_path / f"{percent}", vgg()
        facts = low(module, out, CPU, rank_by="accuracy", accuracy=percent)
        names = (*facts["layers"], *facts["whole"])
        taken = sum(facts["layers"].get(n, {}).get("time", {}).get("cpu", 1.0) for n in names)
        context = nets.context(tmp_path / "again")
        pixels = sample(context.images("train").pixels, NO_CLOCK["samples"])
        x = torch.from_numpy(context.preprocess.normalise(pixels))
        with torch.no_grad():
            after, before = (m.eval()(x).argmax(1) for m in (module, vgg()))
        return taken, 100 * float((after != before).float().mean())

    (slow, few), (fast, many) = changed(10.0), changed(60.0)
    assert few <= 10.0
    assert many <= 60.0
    assert fast <= slow < 8


def test_a_structured_network_is_exported_as_a_dense_one(tmp_path: Path) -> None:
    low(vgg(), tmp_path / "low", method="toeplitz", rank=2, finetune_epochs=1, batch_size=8)
    model, module = Model.load(tmp_path / "low")
    context = nets.context(tmp_path / "onnx", target=target.load("cpu"))
    Export().run((model, module), context)
    graph = Graph.load(tmp_path / "onnx")
    assert graph.facts["ops"]["Gemm"] == 2
    assert not any("FFT" in op or "DFT" in op for op in graph.facts["ops"])
    assert "toeplitz of rank 2" in describe(model.edits[0])


class KilledError(Exception):
    pass


def test_a_killed_run_keeps_its_choice_and_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"rank": 4, "finetune_epochs": 3, "batch_size": 8, "fuse_back": True}
    clocked(monkeypatch, {"stage1.3": 1.2})
    low(vgg(), tmp_path / "whole", CPU, **options)

    def die(done: int, *_: object) -> None:
        if done == 12:  # 5 steps an epoch
            raise KilledError

    with pytest.raises(KilledError):
        low(vgg(), tmp_path / "killed", {**CPU, "progress": die}, **options)
    clocked(monkeypatch, {"stage2.0": 1.2})  # another hour, another clock
    low(vgg(), tmp_path / "killed", CPU, **options)
    for name in ("model.json", "weights.safetensors"):
        one, two = ((tmp_path / n / name).read_bytes() for n in ("whole", "killed"))
        assert one == two, name
    assert not (tmp_path / "killed" / "choice.json").exists()


def test_what_a_result_depends_on() -> None:
    """The targets' clock, only where one is asked."""
    cpu = (target.load("cpu"),)
    assert Lowrank().measures(cpu) == cpu
    assert Lowrank(fuse_back=False).measures(cpu) == ()
    assert Lowrank(fuse_back=False, rank_by="latency").measures(cpu) == cpu
    assert Lowrank(method="toeplitz").measures(cpu) == ()
