"""A node's digest changes with what its result depends on, and with nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
from edgecv.errors import RecipeError
from edgecv.plan import recipe
from edgecv.plan.graph import Expansion, file_digest
from edgecv.plan.node import Node
from edgecv.plan.pipeline import explain, plan
from edgecv.plan.store import Store

TEXT = """
model: {zoo: resnet8, width: 16}
data: {train: 'npz:set.npz', test: 'npz:set.npz', size: 8, crop_pct: 1.0}
stages:
  - train: {name: dense, epochs: 2}
  - prune: {name: small, ratio: 0.5}
  - quantize: {name: small-int8}
  - quantize: {name: dense-int8, from: dense}
targets: [cpu, openvino, tflite, edgetpu]
"""
DENSE = {"dense", "dense.onnx", "dense.tflite"}
SMALL = {"small", "small.onnx", "small.tflite"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "my.yaml").write_text(TEXT)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "set.npz", images=pixels, labels=np.arange(40) % 4)
    monkeypatch.chdir(folder)
    (folder / "targets").mkdir()
    (folder / "targets/desk.yaml").write_text("extends: openvino\nthreads: 2\n")
    return folder


ALIKE = ("openvino", "desk")  # one engine and one grid, whatever this machine's processor has


def nodes(project: Path, *settings: str, **options) -> dict:
    return Expansion(recipe.load(project / "my.yaml", settings, **options)).nodes


def digests(project: Path, *settings: str, **options) -> dict[str, str]:
    return {name: node.digest for name, node in nodes(project, *settings, **options).items()}


def changed(project: Path, *settings: str, **options) -> set[str]:
    before, after = digests(project), digests(project, *settings, **options)
    return {name for name in after if before.get(name) != after[name]}


def of(step: str) -> set[str]:
    """The int8 graphs, bundles and measurements of a quantized step."""
    targets = ("cpu", "openvino", "tflite", "edgetpu")
    found = {f"{step}@{t}" for t in targets} | {f"bundle:{step}@{t}" for t in targets}
    return found | {f"measure:{t}" for t in targets}


REFERENCES = {f"bundle:dense@{t}" for t in ("cpu", "openvino", "tflite")}
EVERYTHING_AFTER_TRAIN = DENSE | SMALL | of("dense-int8") | of("small-int8") | REFERENCES


def test_nothing_changed_changes_nothing(project: Path) -> None:
    assert changed(project) == set()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("prune.ratio=0.4", SMALL | of("small-int8")),
        ("small-int8.samples=9", of("small-int8")),
        ("dense-int8.samples=9", of("dense-int8")),
        ("quantize.samples=9", of("small-int8") | of("dense-int8")),
        ("train.epochs=3", EVERYTHING_AFTER_TRAIN),
        ("seed=1", EVERYTHING_AFTER_TRAIN | {"model"}),
        ("threads=2", EVERYTHING_AFTER_TRAIN),
        ("model.width=8", EVERYTHING_AFTER_TRAIN | {"model"}),
        ("data.mean=[0.4]", EVERYTHING_AFTER_TRAIN | {"model"}),
        ("data.size=9", EVERYTHING_AFTER_TRAIN | {"model", "data:train", "data:test"}),
        ("bench.rounds=5", {f"measure:{t}" for t in ("cpu", "openvino", "tflite", "edgetpu")}),
    ],
)
def test_one_parameter_changes_exactly_what_is_downstream(
    project: Path, setting: str, expected: set[str]
) -> None:
    assert changed(project, setting) == expected


def test_shipping_a_step_only_adds_its_bundles(project: Path) -> None:
    text = (project / "my.yaml").read_text().replace(", edgetpu]", "]")
    (project / "my.yaml").write_text(text)
    targets = ("cpu", "openvino", "tflite")
    added = {f"{kind}{t}" for kind in ("bundle:small@", "measure:") for t in targets}
    assert changed(project, "prune.ship=true") == added


def test_the_data_changes_everything(project: Path) -> None:
    before = digests(project)
    pixels = np.load(project / "set.npz")["images"].copy()
    pixels[0, 0, 0, 0] ^= 1
    np.savez(project / "set.npz", images=pixels, labels=np.arange(40) % 4)
    after = digests(project)
    assert all(before[name] != after[name] for name in before)


def test_a_key_does_not_depend_on_where_things_lie(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(project)
    shutil.copytree(project, tmp_path / "elsewhere" / "deep")
    assert digests(tmp_path / "elsewhere" / "deep") == before
    monkeypatch.chdir(tmp_path)
    assert digests(Path("elsewhere/deep")) == before
    assert str(tmp_path) not in str([node.key for node in nodes(project).values()])


def test_image_folders_may_move_too(project: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("ant", "bee"):
        (project / "images" / name).mkdir(parents=True)
        image.new("RGB", (9, 9)).save(project / "images" / name / "0.png")
    settings = ("data.train=imagefolder:images", "data.test=imagefolder:images")
    before = digests(project, *settings)
    shutil.move(project, tmp_path / "moved")
    assert digests(tmp_path / "moved", *settings) == before
    (tmp_path / "moved" / "images" / "bee" / "0.png").rename(
        tmp_path / "moved" / "images" / "bee" / "1.png"
    )
    assert digests(tmp_path / "moved", *settings) != before


def test_targets_with_one_grid_share_the_quantized_graph(project: Path) -> None:
    found = digests(project, targets=[*ALIKE, "cpu", "tflite", "edgetpu"])
    one, other = ALIKE
    assert found[f"small-int8@{one}"] == found[f"small-int8@{other}"]
    apart = (one, "cpu", "tflite", "edgetpu")  # what each computes as one has one scale
    assert len({found[f"small-int8@{t}"] for t in apart}) == 4
    assert found[f"bundle:small-int8@{one}"] != found[f"bundle:small-int8@{other}"]


def test_steps_before_the_targets_are_shared_with_target(project: Path) -> None:
    assert changed(project, targets=["cpu"]) == set()


def test_the_reference_is_what_came_before_compression(project: Path) -> None:
    found = Expansion(recipe.load(project / "my.yaml"))
    assert found.reference("small-int8") == found.reference("dense-int8") == "dense"
    assert found.reference("dense") == "dense"
    assert set(nodes(project)) >= REFERENCES
    assert "bundle:dense@edgetpu" not in nodes(project), "it offers no fp32"


def test_every_node_comes_after_its_inputs(project: Path) -> None:
    seen: set[str] = set()
    for node in nodes(project).values():
        assert set(node.inputs.values()) <= seen
        seen.add(node.id)


def test_only_what_belongs_to_targets_may_fail_alone(project: Path) -> None:
    found = nodes(project)
    alone = {name for name, node in found.items() if not node.per_target}
    assert alone == {"data:train", "data:test", "model", "dense", "small"}


def test_explain_names_what_changed(project: Path) -> None:
    def why(name: str, *settings: str) -> list[str]:
        before, after = nodes(project)[name], nodes(project, *settings)[name]
        return list(explain(before.key, after.key, after.inputs))

    assert why("small", "prune.ratio=0.4") == ["changed: prune.ratio 0.5 → 0.4"]
    assert why("small.onnx", "prune.ratio=0.4") == ["input small changed"]
    assert why("dense", "seed=3") == ["input model changed", "changed: seed 0 → 3"]
    assert why("data:train", "data.size=9") == ["changed: size [8, 8] → [9, 9]"]
    assert why("small", "prune.ratio=0.4", "prune.method=l1") == [
        "changed: prune.method thinet → l1",
        "changed: prune.ratio 0.5 → 0.4",
    ]


def test_explain_speaks_of_sources_and_versions() -> None:
    before = {
        "code": {"edgecv.methods.training.loop": "a"},
        "versions": {"torch": "2.12"},
        "content": "x",
    }
    after = {
        "code": {"edgecv.methods.training.loop": "b"},
        "versions": {"torch": "2.13"},
        "content": "y",
    }
    assert list(explain(before, after)) == [
        "changed: edgecv.methods.training.loop",
        "the files' content changed",
        "torch 2.12 → 2.13",
    ]
    assert list(explain({"network": "a"}, {"network": "b"})) == ["the network's code changed"]
    many = {"code": {f"edgecv.{name}": "a" for name in "vwxyz"}}
    assert list(explain({}, many)) == ["changed: edgecv.v, edgecv.w, edgecv.x and 2 more"]


def test_plan_says_what_runs_and_writes_nothing(project: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    loaded, (one, other) = recipe.load(project / "my.yaml", targets=list(ALIKE)), ALIKE
    found = {p.node.id: p for p in plan(loaded, store)}
    assert found["small"].action == "run"
    assert found["small"].why == ("not made yet",)
    assert found[f"small-int8@{other}"].why == (f"the same as small-int8@{one}",)
    assert not store.root.exists()


def test_plan_tells_reuse_resume_and_damage(project: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    loaded = recipe.load(project / "my.yaml")

    def planned(name: str, *settings: str) -> tuple[str, tuple[str, ...]]:
        again = recipe.load(project / "my.yaml", settings) if settings else loaded
        line = next(p for p in plan(again, store) if p.node.id == name)
        return line.action, line.why

    small = Expansion(loaded).nodes["small"]
    partial = store.begin(small.digest, resumable=True)
    (partial / "checkpoint.safetensors").write_bytes(b"")
    assert planned("small")[0] == "resume"
    (partial / "checkpoint.safetensors").rename(partial / "weights")
    folder = store.commit(small.id, small.digest, small.key)
    assert planned("small") == ("reuse", ())
    assert planned("small", "prune.ratio=0.4") == ("run", ("changed: prune.ratio 0.5 → 0.4",))
    (folder / "weights").unlink()
    assert planned("small") == ("run", ("its result was deleted or is damaged",))


def test_a_step_called_like_a_graph_cannot_take_its_place(project: Path) -> None:
    text = (project / "my.yaml").read_text().replace("name: small,", "name: dense.onnx,")
    (project / "my.yaml").write_text(text)
    with pytest.raises(recipe.RecipeError, match="ends like a graph file"):
        nodes(project)


def test_the_digest_of_a_file_is_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b") != ""
    assert file_digest(tmp_path / "c") == ""


# teachers and students

DISTILLING = """
model: {zoo: resnet8, width: 16}
data: {train: 'npz:set.npz', test: 'npz:set.npz', size: 8, crop_pct: 1.0}
stages:
  - train: {name: big, epochs: 2}
  - train: {name: tuned, from: model, teacher: TEACHER}
  - distill: {name: small, from: model, teacher: big, student: {zoo: resnet8, width: 8}}
targets: [cpu]
"""


@pytest.fixture
def distilling(project: Path) -> Path:
    (project / "my.yaml").write_text(DISTILLING.replace("TEACHER", "big"))
    return project


def test_a_teacher_is_an_input(distilling: Path) -> None:
    found = nodes(distilling)
    assert found["tuned"].inputs["teacher"] == found["small"].inputs["teacher"] == "big"
    assert found["small"].inputs["student"] == "small:student"
    assert list(found).index("small:student") < list(found).index("small")
    downstream = {f"{kind}{n}{end}" for n in ("tuned", "small", "big")
                  for kind, end in (("", ""), ("", ".onnx"), ("bundle:", "@cpu"))}  # fmt: skip
    assert changed(distilling, "big.epochs=3") == downstream | {"measure:cpu"}


def test_a_student_changes_with_its_network_alone(distilling: Path) -> None:
    changes = changed(distilling, "small.student={zoo: resnet8, width: 12}")
    assert changes == {"small:student", "small", "small.onnx", "bundle:small@cpu", "measure:cpu"}


def test_a_taught_student_is_compared_with_its_teacher(distilling: Path) -> None:
    found = Expansion(recipe.load(distilling / "my.yaml"))
    assert found.reference("small") == "big"
    assert found.reference("tuned") == "tuned"


@pytest.mark.parametrize("name", ["teacher", "teacher.onnx"])
def test_a_teacher_counts_by_what_it_holds(distilling: Path, name: str, tmp_path: Path) -> None:
    def hold(name: str, content: bytes) -> None:
        if name.endswith(".onnx"):
            (distilling / name).write_bytes(content)
            return
        (distilling / name).mkdir(exist_ok=True)
        (distilling / name / "model.json").write_text("{}")
        (distilling / name / "weights.safetensors").write_bytes(content)

    hold(name, b"one")
    (distilling / "my.yaml").write_text(DISTILLING.replace("TEACHER", name))
    first, key = digests(distilling), nodes(distilling)["tuned"].key
    shutil.copytree(distilling, tmp_path / "elsewhere")
    assert digests(tmp_path / "elsewhere") == first
    (distilling / name).rename(distilling / f"renamed-{name}")
    (distilling / "my.yaml").write_text(DISTILLING.replace("TEACHER", f"renamed-{name}"))
    assert digests(distilling) == first
    hold(f"renamed-{name}", b"two")
    second = digests(distilling)
    assert {n for n in first if first[n] != second[n]} == {
        "tuned", "tuned.onnx", "bundle:tuned@cpu", "measure:cpu"
    }  # fmt: skip
    why = list(explain(key, nodes(distilling)["tuned"].key))
    assert why == ["the teacher's content changed"]


def test_factors_depend_on_the_recipes_own_targets(project: Path) -> None:
    """They are measured there; `--target` reuses what a whole run has made."""
    text = TEXT.replace("prune: {name: small, ratio: 0.5}", "lowrank: {name: small}")
    (project / "my.yaml").write_text(text)
    assert "small" not in changed(project, targets=["cpu"])
    before = digests(project)["small"]
    (project / "my.yaml").write_text(text.replace("[cpu, openvino,", "[cpu,"))
    assert digests(project)["small"] != before


def test_what_is_pinned_of_an_onnx_file_is_part_of_its_key(project: Path) -> None:
    (project / "net.onnx").write_bytes(b"one network")
    text = """
model: {onnx: net.onnx, input: {x: 1x3x8x8}, output: [a, b], layout: NHWC}
data: {train: 'npz:set.npz', test: 'npz:set.npz', size: 8, crop_pct: 1.0}
stages: [quantize]
targets: [cpu]
"""
    (project / "my.yaml").write_text(text)
    key = nodes(project)["model"].key
    assert key["pins"] == {"input": {"x": [1, 3, 8, 8]}, "output": ["a", "b"], "layout": "NHWC"}
    before = digests(project)
    for setting in ("model.until=neck", "model.batch=2", "model.output=a", "model.layout=NCHW"):
        assert digests(project, setting)["model"] != before["model"]
    with pytest.raises(RecipeError, match=r"unknown key 'untill'.*did you mean 'until'"):
        nodes(project, "model.untill=neck")
    with pytest.raises(RecipeError, match=r"model\.input\.x: '3xHxW' is no shape"):
        nodes(project, "model.input={x: 3xHxW}")


def test_a_file_of_weights_is_part_of_the_networks_key(project: Path) -> None:
    import torch

    from edgecv.models import zoo

    def made(weights: str) -> Expansion:
        named = "{zoo: resnet8, width: 16" + (f", weights: {weights}" if weights else "") + "}"
        (project / "my.yaml").write_text(TEXT.replace("{zoo: resnet8, width: 16}", named))
        return Expansion(recipe.load(project / "my.yaml"))

    module = zoo.build("resnet8", width=16)
    torch.save(module.state_dict(), project / "best.pt")
    without, first = made("").nodes["model"], made("best.pt").nodes["model"]
    assert "weights" not in without.key
    assert first.key["weights"] == file_digest(project / "best.pt")
    torch.nn.init.ones_(next(iter(module.parameters())))
    torch.save(module.state_dict(), project / "best.pt")
    again = made("best.pt").nodes["model"]
    assert list(explain(first.key, again.key)) == ["the file of weights changed"]
    with pytest.raises(RecipeError, match=r"model.weights: none.pt: no such file"):
        made("none.pt")


@pytest.mark.parametrize(
    ("task", "own"), [("", "classification"), ("task: segmentation", "segmentation")]
)
def test_the_code_of_another_task_does_not_count(project: Path, task: str, own: str) -> None:
    """What changes how boxes are judged trains no classifier again."""
    path = project / "my.yaml"
    path.write_text(f"{TEXT}\n{task}\n")
    if task:
        text = TEXT.replace("npz:set.npz", "shapes-maps:8").replace("zoo: resnet8", "zoo: unet")
        path.write_text(f"{text.replace('size: 8', 'size: 64')}\n{task}\n")
    nodes = Expansion(recipe.load(path)).nodes
    code = {m for n in ("dense", "small") for m in nodes[n].key["code"] if ".tasks." in m}
    assert f"edgecv.tasks.{own}" in code
    assert not {m for m in code if ".detection" in m}
    assert "pycocotools" not in nodes["dense"].key["versions"]


def test_int8_of_another_task_hangs_on_how_it_is_read(project: Path) -> None:
    """Its answers are judged by the task, and labels to judge by say which classes there are."""
    text = TEXT.replace("npz:set.npz", "shapes-maps:8").replace("zoo: resnet8", "zoo: unet")
    text = text.replace("size: 8", "size: 64")

    def int8(task: str) -> Node:
        (project / "my.yaml").write_text(f"{text}\n{task}\n")
        return Expansion(recipe.load(project / "my.yaml")).nodes["small-int8@cpu"]

    plain, said = int8("task: segmentation"), int8("task: {name: segmentation, holds: scores}")
    assert "edgecv.tasks.segmentation" in plain.key["code"]
    assert plain.digest != said.digest
    assert "test" not in plain.inputs
    text = text.replace("train: 'shapes-maps:8'", "train: 'synthetic:8'").replace(
        "  - train: ", "  # "
    )
    text = text.replace("  - prune: {name: small, ratio: 0.5}\n", "")
    text = text.replace("{name: small-int8}", "{name: small-int8, from: model}")
    text = text.replace(", from: dense}", ", from: model}")
    assert int8("task: segmentation").inputs["test"] == "data:test"


def test_one_float_network_is_judged_for_each_engine(project: Path) -> None:
    """Beside what ships, where nothing is timed: not again for a target of the same engine."""
    made = recipe.load(project / "my.yaml")
    plain = Expansion(made, compare=False).nodes.keys()
    judged = Expansion(made, compare=False, judge=True).nodes.keys()
    assert judged - plain == {"bundle:dense@cpu", "bundle:dense@openvino", "bundle:dense@tflite"}
    made = recipe.load(project / "my.yaml", targets=ALIKE)
    beside = Expansion(made, compare=False, judge=True).nodes.keys()
    assert "bundle:dense@openvino" in beside
    assert "bundle:dense@desk" not in beside
