"""TorchScript and programs of torch.export: what they compute comes in, what reaches outside does
not."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor

from edgecv.backends.onnxruntime.run import Session
from edgecv.errors import EdgecvError, ModelError, RecipeError, UnsupportedError
from edgecv.methods.export.torch_program import to_onnx
from edgecv.models.model_source import source_of
from edgecv.models.torchfiles import program, script
from edgecv.models.torchfiles.kinds import kind
from edgecv.outputs import outputs_of
from tests.models.torchfiles.files import Net, cut, saved, state

IMAGE = (1, 3, 12, 12)


class Heads(Net):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = torch.relu(self.norm(self.conv(x)))
        return {"map": y, "row": self.head(y.mean((2, 3)))}


class Chooses(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.norm(self.conv(x)))
        if y.shape[1] > 4:
            y = y * 2
        return self.head(y.mean((2, 3))), y


class Two(Net):
    def forward(self, image: Tensor, pose: Tensor) -> Tensor:
        return self.head(self.conv(image).mean((2, 3))) * pose


def traced(path: Path) -> Path:
    torch.jit.trace(Heads().eval(), torch.zeros(IMAGE), strict=False).save(str(path))
    return path


def scripted(path: Path) -> Path:
    torch.jit.script(Chooses().eval()).save(str(path))
    return path


def exported(path: Path, net: torch.nn.Module | None = None, **options) -> Path:
    example: tuple[Tensor, ...] = (torch.zeros(IMAGE),)
    if isinstance(net, Two):
        example += (torch.ones(1, 4),)
    torch.export.save(torch.export.export((net or Heads()).eval(), example, **options), path)
    return path


def opened(path: Path) -> Path:
    """A program whose height and width are open."""
    sides = {"x": {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}}
    return exported(path, dynamic_shapes=sides)


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], **more: bytes) -> Path:
    """The archive with each member as `change` gives it, and others."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    top = next(iter(files)).partition("/")[0]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, change(name.partition("/")[2], data) or data)
        for name, data in more.items():
            archive.writestr(f"{top}/{name}", data)
    return path


@pytest.mark.parametrize(
    ("write", "net"), [(traced, Heads), (scripted, Chooses), (exported, Heads), (opened, Heads)]
)
def test_the_onnx_file_computes_what_the_network_does(write, net, tmp_path: Path) -> None:
    path = write(tmp_path / "net.file")
    room = tmp_path / "room"
    room.mkdir()
    made = to_onnx(path, room, IMAGE)
    x = np.random.default_rng(0).normal(size=IMAGE).astype(np.float32)
    found = Session({"m": made.read_bytes()}).run({"input": x})
    with torch.no_grad():
        wanted = outputs_of(net().eval()(torch.from_numpy(x))).tensors
    assert list(wanted) == list(found)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value.numpy(), atol=1e-5)


def test_what_a_file_is_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    for write, said in ((traced, "torchscript"), (exported, "program")):
        assert kind(write(tmp_path / f"{said}.pt")) == said
        named = source_of(str(tmp_path / f"{said}.pt"), {}, Path())
        assert (named.kind, named.is_graph) == (said.replace("torch", ""), True)
    with pytest.raises(RecipeError, match=r"is a checkpoint: .*--weights"):
        source_of(str(saved(tmp_path / "best.pt", state())), {}, Path())


def test_the_shapes_of_a_program_are_read_without_loading_it(tmp_path: Path) -> None:
    assert program.shapes(exported(tmp_path / "a.pt2")) == {"x": IMAGE}
    assert program.shapes(opened(tmp_path / "b.pt2")) == {"x": (1, 3, None, None)}
    assert program.image(tmp_path / "a.pt2") == {"channels": 3, "size": [12, 12]}
    assert program.image(tmp_path / "b.pt2") == {"channels": 3}
    with pytest.raises(ModelError, match=r"is 1x3x\?x\?, and 1x1x9x9 is given"):
        to_onnx(tmp_path / "b.pt2", tmp_path, (1, 1, 9, 9))


def test_several_inputs_of_a_program(tmp_path: Path) -> None:
    path = exported(tmp_path / "two.pt2", Two())
    room = tmp_path / "room"
    room.mkdir()
    found = Session({"m": to_onnx(path, room, IMAGE).read_bytes()})
    assert [(t.name, t.shape) for t in found.inputs] == [("image", IMAGE), ("pose", (1, 4))]


def test_a_size_that_a_script_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"fails on an input of 1x1x12x12: .*3 channels"):
        to_onnx(traced(tmp_path / "net.pt"), tmp_path, (1, 1, 12, 12))


def evil(folder: Path) -> bytes:
    """A pickle that makes a folder when it is loaded."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(folder / "pwned"),)

    return pickle.dumps(Evil(), protocol=2)


LINES = {
    "save": "ops.aten.save(x, 'pwned')",
    "file": "torch.from_file('net.pt', True, 9)",
    "another name": "t = torch",
    "by text": "getattr(x, 'sa' 've')",
    "library": "ops.torchvision.nms(x, x, 0.5)",
    "class": "__torch__.torch.classes.dist.Store()",
    "rpc": "ops.prim.rpc_sync(x)",
}


@pytest.mark.parametrize("line", LINES)
def test_scripts_that_reach_outside_are_not_loaded(line: str, tmp_path: Path) -> None:
    changed = []

    def change(name: str, data: bytes) -> bytes | None:
        if not name.endswith(".py") or b"    norm = " not in data:
            return None
        changed.append(name)
        return data.replace(b"    norm = ", f"    _ = {LINES[line]}\n    norm = ".encode(), 1)

    path = rewritten(scripted(tmp_path / "net.pt"), change)
    assert changed
    with pytest.raises(UnsupportedError) as refused:
        script.load(path)
    assert refused.value.exit_code == 2


def test_scripts_with_code_in_their_pickles_are_not_loaded(tmp_path: Path) -> None:
    data = evil(tmp_path)
    path = rewritten(
        scripted(tmp_path / "net.pt"), lambda name, _: data if name == "data.pkl" else None
    )
    with pytest.raises(UnsupportedError, match=r"holds a posix.mkdir|holds a nt.mkdir"):
        script.load(path)
    assert not (tmp_path / "pwned").exists()


def graph(change: Callable[[dict], None]) -> Callable[[str, bytes], bytes | None]:
    def changed(name: str, data: bytes) -> bytes | None:
        if name != program.GRAPH:
            return None
        found = json.loads(data)
        change(found)
        return json.dumps(found).encode()

    return changed


def nodes(data: dict) -> list[dict]:
    return data["graph_module"]["graph"]["nodes"]


CODE = "__import__('os').mkdir({!r})"
EVIL_GRAPHS = {
    "operator": lambda d, _: nodes(d)[0].update(target="torch.hub.load"),
    "file": lambda d, _: nodes(d)[0].update(target="torch.ops.aten.from_file.default"),
    "size": lambda d, p: d["graph_module"]["graph"]["tensor_values"]["x"]["sizes"].__setitem__(
        2, {"as_expr": {"expr_str": CODE.format(p), "hint": None}}
    ),
    "name": lambda d, _: d["graph_module"]["graph"]["inputs"][-1]["as_tensor"].update(
        name="x=print(1)"
    ),
    "class": lambda d, _: d["graph_module"]["module_call_graph"][0]["signature"].update(
        in_spec='{"__enum__": true, "fqn": "antigravity:X", "name": "a"}'
    ),
}


@pytest.mark.parametrize("case", EVIL_GRAPHS)
def test_programs_that_name_more_than_a_graph_are_not_loaded(case: str, tmp_path: Path) -> None:
    pwned = str(tmp_path / "pwned")
    path = rewritten(
        exported(tmp_path / "net.pt2"), graph(lambda data: EVIL_GRAPHS[case](data, pwned))
    )
    with pytest.raises(UnsupportedError) as refused:
        program.load(path)
    assert refused.value.exit_code == 2
    assert not Path(pwned).exists()


def test_guards_and_sample_inputs_are_not_run(tmp_path: Path) -> None:
    pwned, data = str(tmp_path / "pwned"), evil(tmp_path)
    change = graph(lambda found: found.update(guards_code=[CODE.format(pwned)]))
    path = rewritten(
        exported(tmp_path / "net.pt2"),
        lambda name, old: data if name.startswith("data/sample_inputs") else change(name, old),
    )
    assert program.load(path).module()(torch.zeros(IMAGE)).keys() == {"map", "row"}
    assert not Path(pwned).exists()


def test_pickled_constants_are_not_loaded(tmp_path: Path) -> None:
    config = {"config": {"c": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True,
                               "tensor_meta": None}}}  # fmt: skip
    data = evil(tmp_path)
    path = rewritten(
        exported(tmp_path / "net.pt2"),
        lambda name, _: json.dumps(config).encode() if "constants_config" in name else None,
        **{"data/constants/opaque_obj_0": data},
    )
    with pytest.raises(UnsupportedError, match="holds an object, 'c'"):
        program.load(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(("write", "load"), [(traced, script.load), (exported, program.load)])
def test_damaged_files_are_refused_in_a_sentence(write, load, tmp_path: Path) -> None:
    whole = write(tmp_path / "net.pt").read_bytes()
    with pytest.raises(ModelError, match="damaged"):
        load(cut(tmp_path / "net.pt", 0.5))
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 40):
        damaged = whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :]
        (tmp_path / "net.pt").write_bytes(damaged)
        try:
            load(tmp_path / "net.pt")
        except EdgecvError as e:
            one_line(e)


def one_line(error: EdgecvError) -> None:
    assert error.exit_code == 2
    assert "\n" not in str(error)
