"""Code is imported from the working folder where it was named, and from nowhere else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgecv import child, user_code
from edgecv.data.function import items
from edgecv.models.model import Model, check_reference, source_digest

NET = """import own_part
from torch import nn

def make():
    from own_later import WIDTH
    return nn.Sequential(nn.Flatten(), nn.Linear(own_part.INPUTS, WIDTH))
"""
TRAP = "open('caught.txt', 'a').write(__name__ + chr(10))\nraise ImportError('caught')\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder, and nothing that stays of what was imported from it."""
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_named_module_imports_its_neighbours(folder):
    (folder / "mynet_here.py").write_text(NET)
    (folder / "own_part.py").write_text("INPUTS = 12\n")
    (folder / "own_later.py").write_text("WIDTH = 3\n")
    check_reference("mynet_here:make", {})
    assert source_digest("mynet_here:make")
    assert Model("mynet_here:make").build()[1].weight.shape == (3, 12)


def test_a_named_package_and_a_folder_beside_the_recipe(folder):
    package = folder / "recipes" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .net import make\n")
    (package / "net.py").write_text("from torch import nn\ndef make(): return nn.Identity()\n")
    user_code.beside(folder / "recipes")
    assert type(Model("mine:make").build()).__name__ == "Identity"


def test_a_data_function_imports_its_neighbours(folder):
    (folder / "mydata.py").write_text(
        "def make(split):\n    from own_arrays import ROWS\n    return ROWS\n"
    )
    (folder / "own_arrays.py").write_text(
        "import numpy as np\nROWS = [(np.zeros((4, 4), np.uint8), 0)] * 3\n"
    )
    assert items("mydata:make", "train").count == 3


def test_what_nobody_named_is_not_found(folder):
    (folder / "bystander.py").write_text(TRAP)
    with pytest.raises(ModuleNotFoundError):
        import bystander  # noqa: F401


def test_what_is_installed_is_never_taken_from_the_folder(folder):
    """Neither by the user's own code nor by what it imports."""
    (folder / "mynet2.py").write_text(
        "import mailbox, rich\ndef make(): return mailbox.__file__, rich.__file__\n"
    )
    for name in ("mailbox", "rich"):
        (folder / f"{name}.py").write_text(TRAP)
    for name in ("mailbox", "rich"):
        sys.modules.pop(name, None)
    from edgecv.models.model import resolve

    found = resolve("mynet2:make")()
    assert not any(str(folder) in file for file in found)
    assert not (folder / "caught.txt").exists()


def test_a_library_does_not_find_its_extras_there(folder):
    """A library tries to import what is not installed while the user's module imports it."""
    (folder / "mynet3.py").write_text("import library_stand_in\ndef make(): pass\n")
    (folder / "absent_extra.py").write_text(TRAP)
    away = folder / "site"
    away.mkdir()
    (away / "library_stand_in.py").write_text(
        "try:\n    import absent_extra\nexcept ImportError:\n    pass\n"
    )
    sys.path.append(str(away))
    try:
        from edgecv.models.model import resolve

        resolve("mynet3:make")
    finally:
        sys.path.remove(str(away))
    assert not (folder / "caught.txt").exists()


def trapped(folder):
    """Modules that the command, its children and libraries import, as traps."""
    names = "numpy json yaml onnx onnxruntime PIL rich pydantic torch openvino tempfile hashlib"
    for name in f"{names} zipfile struct ctypes subprocess".split():
        (folder / f"{name}.py").write_text(TRAP)


def environment():
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {
        "PYTHONPATH": str(Path(user_code.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }


def test_a_child_and_its_own_children_search_no_working_folder(folder):
    trapped(folder)
    (folder / "grandchild.py").write_text(TRAP)
    command = child.command("tests.crashing", Path("/dev/null"))
    assert command[1] == "-P"
    code = "import sys, json, numpy, subprocess; print(json.dumps(sys.path)); "
    code += "subprocess.run([sys.executable, '-m', 'grandchild'], stderr=-3)"
    made = subprocess.run(
        [*command[:2], "-c", code],
        env=child.variables("edgecv.bundling.build"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(folder) not in json.loads(made.stdout)
    assert not (folder / "caught.txt").exists()


def test_the_command_imports_nothing_from_the_working_folder(folder):
    """A whole export: recipe, decoding, torch-free graph, compiling child, verifying child."""
    trapped(folder)
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "w"),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("GlobalAveragePool", ["a"], ["b"]),
            helper.make_node("Flatten", ["b"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    command = [
        sys.executable,
        "-m",
        "edgecv",
        "export",
        "net.onnx",
        "--target",
        "cpu",
        "--out",
        "out",
    ]
    made = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert not (folder / "caught.txt").exists()
    (bundle,) = (folder / "out").glob("*.edgecv")
    for name in ("numpy", "json"):  # beside a bundle, and standing there
        (folder / "out" / f"{name}.py").write_text(TRAP)
    command = [sys.executable, "-m", "edgecv", "verify", bundle.name]
    made = subprocess.run(
        command, env=environment(), capture_output=True, text=True, cwd=folder / "out"
    )
    assert made.returncode == 0, made.stderr
    assert not (folder / "out" / "caught.txt").exists()
