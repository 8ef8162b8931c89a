"""YAML: a key once, aliases that cannot blow up, brackets that cannot end the process."""

import sys
import tracemalloc

import pytest
import yaml

from edgecv import strict_yaml, target
from edgecv.errors import RecipeError, TargetError
from edgecv.plan import pipeline, recipe
from edgecv.plan.store import Store

GOOD = """model: resnet8
data: {train: fashion-mnist-sample, test: fashion-mnist-sample, size: 28}
stages:
  - train: {epochs: 1}
targets: [cpu]
"""


def refusal(text):
    with pytest.raises(RecipeError) as caught:
        strict_yaml.load(text, "a.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3: key 'a' is there twice: in line 1 and line 3"),
        ("- x: {a: 1, a: 1}\n", "key 'a' is there twice: in line 1 and line 1"),
        ("on: 1\ntrue: 2\n", "key 'true' is there twice: in line 1 and line 2"),
        ("1: a\n'1': b\n0x1: c\n", "key '0x1' is there twice: in line 1 and line 3"),
        ("a: &x {k: 1}\nb:\n  <<: *x\n  <<: *x\n", "key '<<' is there twice: in line 3 and line 4"),
    ],
)
def test_a_key_twice_is_an_error_with_both_lines(text, says):
    assert says in refusal(text)


def test_a_duplicate_in_a_recipe_and_in_a_profile(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(GOOD.replace("{epochs: 1}", "{epochs: 1, epochs: 30}"))
    with pytest.raises(RecipeError, match=r"r\.yaml:4: key 'epochs' is there twice"):
        recipe.load(path)
    profile = tmp_path / "board.yaml"
    profile.write_text("extends: cpu\nalignment: 8\nalignment: 16\n")
    with pytest.raises(TargetError, match="'alignment' is there twice: in line 2 and line 3"):
        target.load(str(profile))


def test_a_merged_key_may_be_written_anew():
    data, _ = strict_yaml.load("a: &x {k: 1, m: 2}\nb: {<<: *x, k: 3}\n", "a.yaml")
    assert data["b"] == {"k": 3, "m": 2}


def bomb(levels, width=10):
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


def merging(levels):
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize("text", [bomb(30), bomb(40, 2), merging(12)])
def test_an_alias_bomb_is_refused_before_it_unfolds(text):
    tracemalloc.start()
    try:
        assert "once its aliases are written out" in refusal(text)
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


def test_an_alias_bomb_as_a_recipe_is_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(f"{bomb(30)}\n{GOOD}")
    with pytest.raises(RecipeError, match="aliases are written out"):
        recipe.load(path)


@pytest.mark.parametrize("text", ["&a [*a]", "&a {k: *a}", "a: &a [[[*a]]]", "&a {<<: *a}"])
def test_an_alias_that_holds_itself_is_refused(text):
    assert "holds itself" in refusal(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 5000 + "x"])
def test_depth_is_refused_and_does_not_end_the_process(text):
    assert "nested more than" in refusal(text)


def test_size_is_refused_before_it_is_parsed(tmp_path):
    assert "bytes of YAML" in refusal("# " + "x" * strict_yaml.MAX_BYTES)
    (tmp_path / "a.yaml").write_bytes(b"x" * (strict_yaml.MAX_BYTES + 1))
    with pytest.raises(RecipeError, match="bytes of YAML"):
        strict_yaml.read(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "text",
    ["a: 2001-13-40", "a: 1" + "0" * 5000, "a: [", "a: !!python/tuple [1]", "a: \x00",
     "? [a]\n: b", "\udcff: 1", "a: !!int x", "a: !!binary é", "? {a: b}\n: c", "a: *none",
     "!!set {a, a}", "--- a\n--- b", "%YAML 9.9\n---\na", "a: !!timestamp x",
     "!!omap [a]", "!!map [a]", "!!float []"],
)  # fmt: skip
def test_what_is_no_yaml_is_one_sentence(text):
    said = refusal(text)
    assert said.startswith("a.yaml")
    assert not any(word in said for word in ("Error", "unicode string", "object", "<"))


def test_it_reads_what_pyyaml_reads():
    text = GOOD + "bench: {rounds: 3, budget_s: 1.5}\nseed: 0x10\nx: &a [1, 2.5, null, yes, 'no']\n"
    assert strict_yaml.load(text, "a.yaml")[0] == yaml.safe_load(text)


def many(kind, count):
    steps = {
        "chain": [f"  - train: {{epochs: {i + 1}}}" for i in range(count)],
        "fan": [
            f"  - quantize: {{from: train, name: q{i}, samples: {i + 16}}}" for i in range(count)
        ],
    }[kind]
    return GOOD.replace("targets", "\n".join(steps) + "\ntargets")


def calls(path, folder):
    """Function calls, Python's and C's, that planning a recipe takes."""
    count = 0

    def counted(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        planned = pipeline.plan(recipe.load(path), Store(folder))
    finally:
        sys.setprofile(None)
    return count, len(planned)


@pytest.mark.parametrize("kind", ["chain", "fan"])
def test_planning_takes_work_in_proportion_to_its_stages(tmp_path, kind):
    found = []
    for count in (50, 50, 150, 250):  # the first fills caches
        path = tmp_path / f"{count}.yaml"
        path.write_text(many(kind, count))
        found.append(calls(path, tmp_path / "store"))
    assert [nodes - found[1][1] for _, nodes in found[2:]] in ([100, 200], [200, 400])
    first, second, third = (work for work, _ in found[1:])
    assert third - second < 1.1 * (second - first)  # a square would be 1.67


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 0x" + "f" * 5000, "is a number of 20000 bits"),
        ("- 010", "010 is 8 to YAML, which counts in eights or sixties here (write 8"),
        ("lr: 1:30", "1:30 is 90 to YAML"),
        ("lr: 1:30.5", "1:30.5 is 90.5 to YAML"),
    ],
)
def test_numbers_that_are_others_to_yaml_are_refused(text, says):
    assert says in refusal(text)
    numbers, _ = strict_yaml.load("[0, -0, 0.10, 0x10, 1_000, '010', 10]", "a.yaml")
    assert numbers == [0, 0, 0.1, 16, 1000, "010", 10]


def test_a_mapping_of_too_many_keys_is_refused_before_it_is_read():
    assert "holds more than 100,000 values" in refusal("".join(f"k{i}: 1\n" for i in range(60_000)))


@pytest.mark.parametrize(("was", "now", "field"), [
    ("epochs: 1", "epochs: true", "epochs"),
    ("size: 28", "size: 28, mean: [yes]", "mean"),
    ("epochs: 1", "epochs: 1, lr: on", "lr"),
])  # fmt: skip
def test_a_truth_value_is_no_number(tmp_path, was, now, field):
    path = tmp_path / "r.yaml"
    path.write_text(GOOD.replace(was, now))
    with pytest.raises(RecipeError, match=rf"{field}: takes a number, found \[?true"):
        recipe.load(path)


def test_a_name_of_a_step_fits_into_a_file_name(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(GOOD.replace("epochs: 1", f"epochs: 1, name: {'x' * 300}"))
    with pytest.raises(RecipeError, match="name: String should match pattern"):
        recipe.load(path)
