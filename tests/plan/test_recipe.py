"""A recipe is checked before anything runs; every error names file, line and key, and a way out."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgecv import yaml_validation
from edgecv.errors import EdgecvError, RecipeError, TargetError
from edgecv.models import model_source
from edgecv.plan import recipe
from edgecv.plan.graph import Expansion

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
GOOD = """\
model: {zoo: resnet8, width: 16}
data: {train: fashion-mnist-sample, test: fashion-mnist-sample, size: 28}
stages:
  - train: {name: dense, epochs: 2}
  - prune: {name: small, ratio: 0.5}
  - quantize: {name: small-int8}
  - quantize: {name: dense-int8, from: dense}
targets: [cpu, openvino]
"""


@pytest.fixture
def load(tmp_path: Path):
    """load(text, **options) -> Recipe, from a file called my.yaml."""

    def loaded(text: str, **options) -> recipe.Recipe:
        path = tmp_path / "my.yaml"
        path.write_text(text)
        return recipe.load(path, **options)

    return loaded


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_steps_read_the_one_before_or_the_one_they_name(load) -> None:
    found = load(GOOD)
    assert [(s.name, s.source, s.stage.word) for s in found.steps] == [
        ("dense", "model", "train"),
        ("small", "dense", "prune"),
        ("small-int8", "small", "quantize"),
        ("dense-int8", "dense", "quantize"),
    ]
    assert [t.name for t in found.targets] == ["cpu", "openvino"]
    assert (found.seed, found.threads, found.data.height_width) == (0, 1, (28, 28))


def test_leaves_are_shipped_and_what_says_so(load) -> None:
    assert [s.name for s in load(GOOD).shipped()] == ["small-int8", "dense-int8"]
    text = changed("ratio: 0.5}", "ratio: 0.5, ship: true}")
    assert [s.name for s in load(text).shipped()] == ["small", "small-int8", "dense-int8"]


def test_a_step_without_a_name_is_called_by_its_word(load) -> None:
    text = GOOD[: GOOD.index("  - train")]
    text += "  - train\n  - quantize\n  - quantize: {from: train}\ntargets: [cpu]\n"
    assert [s.name for s in load(text).steps] == ["train", "quantize", "quantize-2"]


WRONG = [
    # old, new, where, what or hint
    ("train: {name: dense", "trian: {name: dense", "my.yaml:4: stages[0]", "did you mean 'train'?"),
    ("ratio: 0.5", "rtaio: 0.5", "my.yaml:5: stages[1].prune.rtaio", "did you mean 'ratio'?"),
    ("ratio: 0.5", "ratio: 1.5", "my.yaml:5: stages[1].prune.ratio", "less than 1"),
    ("ratio: 0.5", "ratio: 0", "my.yaml:5: stages[1].prune.ratio", "greater than 0"),
    ("ratio: 0.5", "ratio: half", "my.yaml:5: stages[1].prune.ratio", "found 'half'"),
    ("ratio: 0.5", "ratio: .nan", "my.yaml:5: stages[1].prune.ratio", "finite"),
    ("epochs: 2", "epochs: 2.5", "my.yaml:4: stages[0].train.epochs", "found 2.5"),
    ("epochs: 2", "lr: .inf", "my.yaml:4: stages[0].train.lr", "finite"),
    ("epochs: 2", "optimizer: adam", "my.yaml:4: stages[0].train.optimizer", "'adamw' or 'sgd'"),
    ("{name: small-int8}", "{name: dense}", "my.yaml:6: stages[2].quantize.name", "already"),
    ("{name: small-int8}", "{name: model}", "my.yaml:6: stages[2].quantize.name", "already"),
    ("{name: small-int8}", "{name: a/b}", "my.yaml:6: stages[2].quantize.name", "pattern"),
    ("{name: small-int8}", "{name: a.onnx}", "my.yaml:6: stages[2].quantize.name", "graph file"),
    ("from: dense", "from: dens", "my.yaml:7: stages[3].quantize.from", "did you mean 'dense'?"),
    ("name: small,", "name: small, from: small-int8,", "my.yaml:5: stages[1].prune.from", ""),
    ("from: dense", "from: small-int8", "my.yaml:7: stages[3].quantize", "already quantized"),
    ("from: dense", "from: dense-int8", "my.yaml:7: stages[3].quantize.from", "no earlier step"),
    ("quantize: {name: dense-int8, from: dense", "train: {from: small-int8",
     "my.yaml:7: stages[3].train", "'small-int8' is a graph file"),
    ("quantize: {name: dense-int8, from: dense", "export: {from: small-int8",
     "my.yaml:7: stages[3].export", "graph file already"),
    ("[cpu, openvino]", "[cpu, openvinno]", "my.yaml:8: targets[1]", "did you mean 'openvino'?"),
    ("[cpu, openvino]", "[[cpu]]", "my.yaml:8: targets[0]", "unknown target"),
    ("[cpu, openvino]", "[]", "my.yaml:8: targets", "at least one"),
    ("[cpu, openvino]", "cpu", "my.yaml:8: targets", "list"),
    ("size: 28", "sise: 28", "my.yaml:2: data.sise", "did you mean 'size'?"),
    ("size: 28", "size: 0", "my.yaml:2: data.size", "between 1 and 4096"),
    ("size: 28", "size: [28]", "my.yaml:2: data.size", ""),
    (", size: 28", "", "my.yaml:2: data", "'size' is missing"),
    ("size: 28", "size: 28, mean: [127], std: [0.5]", "my.yaml:2: data", "looks like 0..255 and"),
    ("size: 28", "size: 28, std: [2]", "my.yaml:2: data", "may be units of 0..1 or of 0..255"),
    ("size: 28", "size: 28, std: [58], units: 0..1", "my.yaml:2: data", "0..1 are asked for"),
    ("size: 28", "size: 28, units: 1", "my.yaml:2: data.units", "0..255"),
    ("size: 28", "size: 28, resize: fit", "my.yaml:2: data.resize", "letterbox"),
    ("size: 28", "size: 28, pad_value: 3", "my.yaml:2: data.pad_value", "only with letterbox"),
    ("size: 28", "size: 28, resize: none, pad_at: corner", "my.yaml:2: data.pad_at", "resize none"),
    ("size: 28", "size: 28, resize: stretch, crop_pct: 1", "my.yaml:2: data.crop_pct", "h crop"),
    ("size: 28", "size: 28, color: grey, channels: 3", "my.yaml:2: data.channels", "of 1 channel"),
    ("size: 28", "size: 28, color: bgr, channels: 1", "my.yaml:2: data.channels", "of 3 channel"),
    ("size: 28", "size: 28, color: yuv", "my.yaml:2: data.color", "bgr"),
    ("size: 28", "size: 28, std: [0]", "my.yaml:2: data.std", "above 0"),
    ("size: 28", "size: 28, mean: [.nan]", "my.yaml:2: data.mean", "finite"),
    ("size: 28", "size: 28, mean: [0.1, 0.2]", "my.yaml:2: data.mean", "one per channel"),
    ("size: 28", "size: 28, channels: 0", "my.yaml:2: data.channels", ""),
    ("size: 28", "size: 28, channels: 4, mean: [1, 2, 3]", "my.yaml:2: data.mean", "per channel"),
    ("size: 28", "size: 28, crop_pct: 0.01", "my.yaml:2: data.crop_pct", ""),
    ("zoo: resnet8", "zoo: resnet9", "my.yaml:1: model", "did you mean 'resnet8'?"),
    ("{zoo: resnet8, width: 16}", "resnet9", "my.yaml:1: model", "did you mean 'resnet8'?"),
    ("width: 16", "widht: 16", "my.yaml:1: model.widht", "did you mean 'width'?"),
    ("zoo: resnet8", "zo: resnet8", "my.yaml:1: model", "'zo'"),
    ("zoo: resnet8, width", "onnx: net.onnx, width", "my.yaml:1: model.width", "no arguments"),
    ("{zoo: resnet8, width: 16}", "~nobody-of-that-name/net", "", "is no path"),
    ("{zoo: resnet8, width: 16}", "some/where", "some/where", "no such file or folder"),
    ("model: ", "modle: ", "my.yaml:1: modle", "did you mean 'model'?"),
    ("targets: ", "seed: -1\ntargets: ", "my.yaml:8: seed", "found -1"),
    ("targets: ", f"seed: {10**30}\ntargets: ", "my.yaml:8: seed", "whole number"),
    ("targets: ", "seed: true\ntargets: ", "my.yaml:8: seed", "found True"),
    ("targets: ", "threads: 0\ntargets: ", "my.yaml:8: threads", "found 0"),
    ("targets: ", "bench: {rounds: 1}\ntargets: ", "my.yaml:8: bench.rounds", "found 1"),
    ("targets: ", "bench: 3\ntargets: ", "my.yaml:8: bench", "found 3"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "where", "said"), WRONG, ids=[w[1][:40] for w in WRONG])
def test_what_is_wrong_is_named(load, old: str, new: str, where: str, said: str) -> None:
    with pytest.raises((RecipeError, TargetError)) as e:
        load(changed(old, new))
    assert e.value.where.startswith(where)
    assert said in str(e.value)
    assert e.value.exit_code == 2


@pytest.mark.parametrize("key", ["model", "data", "stages", "targets"])
def test_a_missing_key_is_named(load, key: str) -> None:
    data = yaml.safe_load(GOOD)
    del data[key]
    with pytest.raises(RecipeError, match=f"'{key}' is missing"):
        load(yaml.safe_dump(data))


def test_a_precision_that_the_target_does_not_offer(load) -> None:
    text = "\n".join(line for line in GOOD.splitlines() if "quantize" not in line)
    with pytest.raises(TargetError, match=r"prune.*'edgetpu' does not offer fp32.*offers int8"):
        load(text.replace("[cpu, openvino]", "[cpu, edgetpu]"))
    assert load(GOOD.replace("[cpu, openvino]", "[edgetpu]")).targets[0].name == "edgetpu"


@pytest.mark.parametrize(
    ("more", "mean", "std"),
    [
        ("", [127.5], [127.5]),
        (", mean: [0], std: [1]", [0], [255]),
        (", mean: [0], std: [1], units: 0..255", [0], [1]),
        (", mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375]",
         [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        (", mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]",
         [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        (", mean: [127]", [127], [127.5]),
    ],
)  # fmt: skip
def test_mean_and_std_in_either_unit_are_held_in_one(load, more, mean, std) -> None:
    found = load(changed("size: 28", f"size: 28{more}"))
    made = Expansion(found, compare=False).input()
    assert (made["mean"], made["std"]) == (pytest.approx(mean), pytest.approx(std))
    assert bool(found.notes) == any(said in more for said in ("0..255", "12", "std: [1]"))


def test_geometry_and_colour_are_what_the_recipe_says(load) -> None:
    plain = Expansion(load(changed("size: 28", "size: 28")), compare=False).input()
    assert plain.keys() == {"size", "mean", "std", "crop_pct", "interpolation"}
    more = "size: [24, 28], resize: letterbox, pad_value: 0, pad_at: corner, color: bgr"
    found = Expansion(load(changed("size: 28", more)), compare=False).input()
    assert found["size"] == [24, 28]
    assert (found["resize"], found["pad_value"], found["pad_at"]) == ("letterbox", 0, "corner")
    assert found["color"] == "bgr"
    assert "crop_pct" not in found
    assert load(changed("size: 28", "size: 28, color: grey")).data.channels == 1


def test_a_graph_cannot_be_trained(load) -> None:
    text = changed("{zoo: resnet8, width: 16}", "net.onnx")
    with pytest.raises(RecipeError, match=r"stages\[0\].train: needs a PyTorch network"):
        load(text)


def test_an_onnx_file_joins_at_quantize_or_export(load, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    text = GOOD.replace("{zoo: resnet8, width: 16}", "net.onnx")
    text = text[: text.index("  - train")] + "  - export\n  - quantize\ntargets: [cpu]\n"
    found = load(text)
    assert (found.model.kind, found.model.name) == ("onnx", str(tmp_path / "net.onnx"))
    assert [s.name for s in found.shipped()] == ["quantize"]


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("resnet8", "zoo", "resnet8"),
        ("zoo:resnet8", "zoo", "resnet8"),
        ("{zoo: resnet8}", "zoo", "resnet8"),
        ("mynet:make", "module", "mynet:make"),
        ("{module: 'mynet:make', depth: 3}", "module", "mynet:make"),
    ],
)
def test_what_a_model_can_be(load, text: str, kind: str, name: str) -> None:
    found = load(changed("{zoo: resnet8, width: 16}", text)).model
    assert (found.kind, found.name) == (kind, name)
    assert found.args == ({"depth": 3} if "depth" in text else {})


def test_a_folder_with_a_model_in_it_is_a_model(load, tmp_path: Path) -> None:
    (tmp_path / "dense").mkdir()
    (tmp_path / "dense" / "model.json").write_text("{}")
    found = load(changed("{zoo: resnet8, width: 16}", "dense")).model
    assert (found.kind, found.name) == ("folder", str(tmp_path / "dense"))


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("prune.ratio=0.4", lambda r: r.step("small").stage.ratio == 0.4),
        ("small.ratio=0.4", lambda r: r.step("small").stage.ratio == 0.4),
        ("seed=7", lambda r: r.seed == 7),
        (" seed = 7", lambda r: r.seed == 7),
        ("data.size=[20, 24]", lambda r: r.data.height_width == (20, 24)),
        ("model.width=8", lambda r: r.model.args == {"width": 8}),
        ("model=resnet20", lambda r: (r.model.name, r.model.args) == ("resnet20", {})),
        ("bench.rounds=5", lambda r: r.bench.rounds == 5),
        ("quantize.samples=9", lambda r: [s.stage.samples for s in r.steps[2:]] == [9, 9]),
        ("dense-int8.samples=9", lambda r: [s.stage.samples for s in r.steps[2:]] == [256, 9]),
    ],
)
def test_set_changes_one_thing(load, setting: str, read) -> None:
    found, before = load(GOOD, settings=[setting]), load(GOOD)
    assert read(found)
    assert not read(before)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("prune.ratio", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("prnue.ratio=0.4", "did you mean 'prune'?"),
        ("prune=0.4", "names no parameter of 'prune'"),
        ("prune.ratio.x=0.4", "names no parameter of 'prune'"),
        ("prune.rtaio=0.4", "did you mean 'ratio'?"),
        ("prune.ratio=1.5", "less than 1"),
        ("prune.ratio=[", "not valid YAML"),
        ("seed.x=1", "seed is 0 and has no keys"),
        ("data.sise=3", "did you mean 'size'?"),
        ("data=3", "expected keys and values, found 3"),
        ("stages=[]", "the recipe has no 'stages'"),
        ("targets=[cpu]", "the recipe has no 'targets'"),
    ],
)
def test_a_wrong_setting_is_named(load, setting: str, said: str) -> None:
    with pytest.raises(RecipeError) as e:
        load("seed: 0\n" + GOOD, settings=[setting])
    assert said in str(e.value)


def test_targets_of_the_command_line_replace_the_recipes(load) -> None:
    found = load(GOOD, targets=["tflite"])
    assert [t.name for t in found.targets] == ["tflite"]
    assert found.alignment == load(GOOD).alignment, "a pruned network is reused with --target"
    with pytest.raises(TargetError, match="'tflit': unknown target"):
        load(GOOD, targets=["tflit"])


def test_a_recipe_of_edgecvs_own_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe.load(Path("quickstart")).name == "quickstart"
    assert recipe.load(Path("quickstart.yaml")).name == "quickstart"
    with pytest.raises(RecipeError, match="no such file"):
        recipe.load(Path("quickstrat.yaml"))


KEYS = [  # every key of the quickstart recipe, as paths
    path
    for path in yaml_validation.line_numbers(
        yaml.compose(QUICKSTART.read_text(), Loader=yaml.SafeLoader)
    )
    if isinstance(path[-1], str)
]


def typo(word: str, data: st.DataObject) -> str:
    """One letter dropped, doubled, exchanged or replaced."""
    i = data.draw(st.integers(0, len(word) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_0"))
    swapped = word[:i] + word[i + 1 : i + 2] + word[i] + word[i + 2 :]
    kinds = [word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:], swapped]
    return data.draw(st.sampled_from([*kinds, word[:i] + letter + word[i + 1 :]]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_typo_in_a_key_is_an_error_that_names_it(data: st.DataObject) -> None:
    content = yaml.safe_load(QUICKSTART.read_text())
    *path, key = data.draw(st.sampled_from(KEYS))
    wrong = typo(key, data)
    parent = content
    for part in path:
        parent = parent[part]
    if wrong in parent:
        return
    parent[wrong] = parent.pop(key)
    with pytest.raises((RecipeError, TargetError)) as e:
        recipe.check(content, QUICKSTART, {})
    assert repr(wrong) in str(e.value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_junk_in_any_place_is_an_error_or_means_something(data: st.DataObject) -> None:
    content = copy.deepcopy(yaml.safe_load(QUICKSTART.read_text()))
    *path, key = data.draw(st.sampled_from(KEYS))
    parent = content
    for part in path:
        parent = parent[part]
    parent[key] = data.draw(JUNK)
    with suppress(RecipeError, TargetError):
        recipe.check(content, QUICKSTART, {})


TEXTS = ["a: &a [*a]", "a: 2001-13-40", "a: !!int ''", "a: !!bool x", "a: !!timestamp x",
         "? [a]\n: b", "? {a: b}\n: c", "\0", "- - -", "[" * 3000, "a: b: c", "&a", "!!python/x y",
         "<<: 3", "{model: ~, data: ~, stages: ~, targets: ~}"]  # fmt: skip


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.one_of(st.text(max_size=40), st.text("{}[]:,-&*!?|>'\"\n ab0.", max_size=60)))
@example("")
def test_any_text_is_an_error_in_one_line(load, text: str) -> None:
    with pytest.raises(EdgecvError) as e:
        load(text.encode("utf-8", "replace").decode())
    assert e.value.exit_code == 2


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_yaml_that_python_chokes_on_is_an_error(load, text: str) -> None:
    with pytest.raises(RecipeError) as e:
        load(text)
    assert "\n" not in str(e.value)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from([*recipe.TOP, "train", "prune", "dense", "x"]), st.text(".=a [{", max_size=8)
)
def test_any_setting_is_an_error_or_means_something(load, head: str, rest: str) -> None:
    with suppress(RecipeError, TargetError):
        load(GOOD, settings=[head + rest])


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read"):
        recipe.load(tmp_path / "my.yaml")


# teachers and students

TAUGHT = """\
model: {zoo: resnet8, width: 16}
data: {train: fashion-mnist-sample, test: fashion-mnist-sample, size: 28}
stages:
  - train: {name: big}
  - train: {name: other, from: model, teacher: big}
  - distill: {name: small, from: big, student: {zoo: resnet8, width: 8}}
  - quantize: {name: int8}
targets: [cpu]
"""


def test_a_teacher_is_an_earlier_step_and_is_read_by_its_student(load) -> None:
    found = load(TAUGHT)
    assert [(s.teacher, s.student and s.student.args) for s in found.steps] == [
        ("", None), ("big", None), ("", {"width": 8}), ("", None)
    ]  # fmt: skip
    assert [s.name for s in found.shipped()] == ["other", "int8"]
    assert load(TAUGHT.replace("teacher: big", "teacher: model")).step("other").teacher == "model"
    two = load(TAUGHT.replace("from: big, student", "teacher: other, student"))
    assert [s.name for s in two.shipped()] == ["int8"]


def test_a_teacher_may_be_a_folder_or_an_onnx_file_beside_the_recipe(load, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.json").write_text("{}")
    (tmp_path / "net.onnx").write_bytes(b"")
    for name in ("folder", "net.onnx"):
        found = load(TAUGHT.replace("teacher: big", f"teacher: {name}"))
        assert found.step("other").teacher_file == tmp_path / name
        assert found.step("other").teacher == ""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("teacher: big", "teacher: bigg",
         r"my.yaml:5: stages\[1\].train.teacher: no earlier step, Model folder or .onnx file "
         r"'bigg' \(did you mean 'big'\?\)"),
        ("teacher: big", "teacher: small", "no earlier step"),
        ("teacher: big", "teacher: none.onnx", "no earlier step"),
        ("student: {zoo: resnet8, width: 8}", "epochs: 2",
         r"my.yaml:6: stages\[2\].distill: distill needs a teacher that is not its student"),
        ("from: big, student", "teacher: none, student", "distill needs a teacher"),
        ("{zoo: resnet8, width: 8}", "{zoo: resnet9}", r"student: no network named 'resnet9"),
        ("{zoo: resnet8, width: 8}", "{zoo: resnet8, wide: 8}", "unknown key 'wide' .*'width'"),
        ("{zoo: resnet8, width: 8}", "{onnx: a.onnx}", "an .onnx file is not trained"),
    ],
)  # fmt: skip
def test_a_wrong_teacher_or_student_is_an_error(load, old: str, new: str, said: str) -> None:
    assert TAUGHT.count(old) == 1
    with pytest.raises(RecipeError, match=said):
        load(TAUGHT.replace(old, new))


@pytest.mark.parametrize("name", ["best.pt", "runs/best.pth", "weights.safetensors"])
def test_a_checkpoint_is_no_network(name, tmp_path):
    (tmp_path / Path(name).name).write_bytes(b"\x80\x02" + bytes(99))
    with pytest.raises(RecipeError, match="is a checkpoint: weights without the network"):
        model_source.source_of(name, {}, tmp_path)
