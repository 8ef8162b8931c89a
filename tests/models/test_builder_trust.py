"""A Model folder whose builder is code is asked about, and what builds no network never runs."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from edgecv.cli import main
from edgecv.errors import ModelError, TrustError
from edgecv.models.builder_trust import check_function, named
from edgecv.models.model import Model, check_reference
from edgecv.plan import pipeline, recipe
from edgecv.plan.store import Store

NET = """import os
from os import system, path
from subprocess import run
from torch import nn

open("imported.txt", "w").close()

def make() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))

def text() -> str:
    open("called.txt", "w").close()

def unsaid(width=2):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, width))

class Part(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))

class Data:
    pass
"""
NAMES = iter(f"net_of_trust_{i}" for i in range(100))


@pytest.fixture
def net(tmp_path, monkeypatch):
    """The name of a module that nobody imported before, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGECV_TRUST_SOURCE", raising=False)
    name = next(NAMES)
    (tmp_path / f"{name}.py").write_text(NET)
    return name


def saved(builder, folder="model", **args):
    """A Model folder that names `builder`, as somebody else might have made it."""
    model = Model("zoo:lenet5", {"channels": 3})
    model.save(Path(folder), model.build())
    data = json.loads(Path(folder, "model.json").read_text())
    Path(folder, "model.json").write_text(json.dumps({**data, "builder": builder, "args": args}))
    return Path(folder)


def trusted(monkeypatch):
    monkeypatch.setenv("EDGECV_TRUST_SOURCE", "1")


def test_a_builder_outside_the_zoo_is_not_even_imported(net, tmp_path):
    with pytest.raises(TrustError, match=f"{net}:make, which opening imports and runs"):
        Model.load(saved(f"{net}:make"))
    assert not (tmp_path / "imported.txt").exists()


@pytest.mark.usefixtures("net")
def test_the_zoo_needs_no_word():
    model = Model("zoo:lenet5", {"channels": 1})
    model.save(Path("zoo"), model.build())
    assert Model.load(Path("zoo"))[0] == model


@pytest.mark.parametrize("how", ["variable", "recipe"])
def test_the_users_word_opens_it(net, tmp_path, monkeypatch, how):
    model = Model(f"{net}:make")
    model.save(tmp_path / "m", model.build())
    if how == "variable":
        trusted(monkeypatch)
        Model.load(tmp_path / "m")
    else:
        with named([f"{net}:make"]):
            Model.load(tmp_path / "m")
        with pytest.raises(TrustError):
            Model.load(tmp_path / "m")


@pytest.mark.usefixtures("net")
@pytest.mark.parametrize("builder", ["os:system", "subprocess:run", "builtins:exec", "posix:system",
                                     "edgecv.child:call", "importlib.util:find_spec"])  # fmt: skip
def test_python_and_edgecv_build_no_network_whoever_asks(monkeypatch, builder):
    trusted(monkeypatch)
    ran = []
    monkeypatch.setattr(os, "system", lambda *a: ran.append(a))
    with pytest.raises(ModelError, match="builds no network"):
        Model.load(saved(builder, command="touch called.txt"))
    with pytest.raises(ModelError, match="builds no network"):
        check_reference(builder, {"command": "touch called.txt"})
    assert not ran


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("system", "Python itself"),
        ("run", "Python itself"),
        ("path.join", "no function"),
        ("text", "says that it returns str"),
        ("Data", "no torch.nn.Module"),
        ("missing", "no function"),
    ],
)
def test_what_a_trusted_file_only_passes_on_is_refused_before_it_runs(
    net, tmp_path, monkeypatch, function, says
):
    trusted(monkeypatch)
    with pytest.raises(ModelError, match=says):
        Model.load(saved(f"{net}:{function}"))
    assert not (tmp_path / "called.txt").exists()


def test_functions_and_classes_of_the_users_own_file_build(net, tmp_path, monkeypatch):
    trusted(monkeypatch)
    for function in ("make", "unsaid", "Part"):
        model = Model(f"{net}:{function}")
        model.save(tmp_path / function, model.build())
        assert Model.load(tmp_path / function)[0] == model


def test_arguments_are_checked_before_the_call(net, monkeypatch):
    trusted(monkeypatch)
    with pytest.raises(ModelError, match="its parameters"):
        Model.load(saved(f"{net}:unsaid", width=2, height=3))
    with pytest.raises(ModelError, match="width must be"):
        Model.load(saved("zoo:resnet8", width="x" * 10))
    with pytest.raises(ModelError, match="at most"):
        Model.load(saved("zoo:resnet8", classes=10**9))


def test_an_installed_function_says_that_it_returns_a_network_or_is_named():
    with pytest.raises(ModelError, match="installed"):
        check_function("yaml:safe_load", yaml.safe_load)
    with named(["yaml:safe_load"]):
        check_function("yaml:safe_load", yaml.safe_load)


RECIPE = """model: {{module: "{name}:make"}}
data: {{train: synthetic:4, test: synthetic:4, size: 8, channels: 3}}
stages:
  - export: {{name: first}}
targets: [cpu]
"""


def test_a_recipe_that_names_the_builder_runs_and_its_own_folders_do_not_ask(net, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.format(name=net))
    store = Store(tmp_path / "store")
    made = pipeline.run(recipe.load(tmp_path / "r.yaml"), tmp_path, store=store, compare=False)
    assert "model" in made.made
    shutil.copytree(made.folders["model"], tmp_path / "copy")
    (tmp_path / "r.yaml").write_text(
        RECIPE.format(name=net).replace(f'module: "{net}:make"', "folder: copy")
    )
    loaded = recipe.load(tmp_path / "r.yaml")
    with pytest.raises(TrustError, match="--trust"):
        pipeline.run(loaded, tmp_path, store=Store(tmp_path / "other"), compare=False)


def test_export_asks_and_trust_is_an_answer_for_that_command_alone(net, tmp_path, capsys):
    model = Model(
        f"{net}:make", input={"size": [8, 8], "channels": 3, "mean": [0.0], "std": [255.0]}
    )
    model.save(tmp_path / "m", model.build())
    command = ["export", "m", "--target", "cpu", "--out", "out"]
    assert main(command) == 2
    assert "--trust" in capsys.readouterr().err
    assert main([*command, "--trust"]) == 0
    assert "EDGECV_TRUST_SOURCE" not in os.environ
