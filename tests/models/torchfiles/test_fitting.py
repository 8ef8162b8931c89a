"""Weights of other people's files find their places, or what does not fit is listed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
from torch import nn

from edgecv.errors import ModelError
from edgecv.models.model import Model
from edgecv.models.torchfiles.fitting import fill
from tests.models.torchfiles import files
from tests.models.torchfiles.files import Net, behind, saved, state, without


def filled(path: Path, module: nn.Module | None = None) -> dict[str, torch.Tensor]:
    module = Net() if module is None else module
    fill(module, path, "mine:make")
    return dict(module.state_dict())


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


FORMS = {
    "plain": state(),
    "DataParallel": {"state_dict": behind("module.", state()), "epoch": 3, "best": 0.9},
    "model": {"model": state(), "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
    "compiled": {"model_state_dict": behind("_orig_mod.", state())},
    "nested": {"checkpoint": {"weights": behind("model.module.", state())}},
    "averaged": {"n_averaged": torch.tensor(3), **behind("module.", state())},
    "old norm": without(state(), "num_batches_tracked"),
    "double": {k: v.double() if v.is_floating_point() else v for k, v in state().items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_they_are_found_where_checkpoints_keep_them(form: str, tmp_path: Path) -> None:
    same(filled(saved(tmp_path / "best.pt", FORMS[form])), without(state(), "tracked"))


@pytest.mark.parametrize("name", ["best.safetensors", "best.bin"])
def test_what_a_file_is_does_not_hang_on_its_name(name: str, tmp_path: Path) -> None:
    same(filled(saved(tmp_path / name, state())), state())
    (tmp_path / name).rename(tmp_path / "other.pth")
    same(filled(tmp_path / "other.pth"), state())


def test_the_format_before_zip_archives(tmp_path: Path) -> None:
    same(filled(saved(tmp_path / "best.pth", state(), legacy=True)), state())


def test_averaged_weights_are_preferred_and_it_is_said(tmp_path: Path, caplog) -> None:
    both = {"model": state(2), "ema": behind("module.", state())}
    with caplog.at_level(logging.WARNING):
        same(filled(saved(tmp_path / "best.pt", both)), state())
    assert "taken is 'ema: module.*', and not 'model', which fits too" in caplog.text
    lightning = {"state_dict": behind("model.", state(2)) | behind("ema_model.", state())}
    same(filled(saved(tmp_path / "best.ckpt", lightning)), state())


def test_what_belongs_to_other_parts_is_left_out_and_said(tmp_path: Path, caplog) -> None:
    data = {"state_dict": behind("model.", state()) | {"criterion.weight": torch.ones(3)}}
    with caplog.at_level(logging.WARNING):
        same(filled(saved(tmp_path / "best.ckpt", data)), state())
    assert "1 tensors beside the network's are left out: 'criterion.weight'" in caplog.text


def test_a_wrapper_around_the_network_itself(tmp_path: Path) -> None:
    found = filled(saved(tmp_path / "best.pt", state()), nn.DataParallel(Net()))
    same(found, behind("module.", state()))


def test_tied_weights_need_be_there_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight

    data = without(dict(Tied().state_dict()), "b.weight")
    same(filled(saved(tmp_path / "best.pt", data), Tied()), data)


def test_weights_behind_a_parametrization(tmp_path: Path, monkeypatch) -> None:
    def made() -> nn.Module:
        net = Net()
        torch.nn.utils.parametrizations.weight_norm(net.head)
        return net

    other = made()
    other.head.parametrizations.weight.original0.data *= 2
    path = saved(tmp_path / "best.pt", other.state_dict())
    monkeypatch.setattr("edgecv.models.model.build", lambda *_: made())
    module = Model("mine:make").build(file=path)
    assert torch.equal(module.head.weight, other.head.weight)


BROKEN = {
    "missing": (
        without(state(), "head.weight"),
        r"does not fit mine:make: 1 of 9 weights are not in it: 'head.weight' 4x8",
    ),
    "shape": (
        state() | {"conv.weight": torch.ones(8, 1, 3, 3)},
        r"1 are of another shape: 'conv.weight' 8x1x3x3, here 8x3x3x3",
    ),
    "extra": (state() | {"x.y": torch.ones(2, 2)}, "1 are not the network's: 'x.y' 2x2"),
    "many": (behind("backbone.", state()), r"'conv.weight' 8x3x3x3, .* and 5 more; .*'backbone."),
    "integers": (
        state() | {"head.bias": torch.ones(4, dtype=torch.int32)},
        "'head.bias' in int32, here in float32",
    ),
    "tensor": (torch.ones(3), "holds a Tensor, not weights by name"),
    "none": ({"lr": 0.1}, "holds no tensors by name"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_listed_and_nothing_is_filled(case: str, tmp_path: Path) -> None:
    data, said = BROKEN[case]
    module = Net()
    with pytest.raises(ModelError, match=said) as refused:
        filled(saved(tmp_path / "best.pt", data), module)
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)
    same(dict(module.state_dict()), dict(Net().state_dict()))


def refusals(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "page.pt").write_text("<!doctype html>" * 9)
    (folder / "empty.pt").write_bytes(b"")
    (folder / "pointer.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")
    torch.jit.script(Net()).save(str(folder / "script.pt"))
    tensors = saved(folder / "cut.safetensors", state())
    return {
        "module": (files.pickled(folder / "module.pt"), "is a pickled module .*Net.*state_dict"),
        "old module": (files.pickled(folder / "old.pt", True), "is a pickled module"),
        "object": (files.beside(folder / "ns.pt"), "objects beside its weights .argparse.Names"),
        "cut": (files.cut(saved(folder / "cut.pt", state()), 0.6), "damaged.*truncated"),
        "cut old": (files.cut(saved(folder / "cut.pth", state(), True), 0.3), "is damaged"),
        "cut tensors": (files.cut(tensors, 0.7), "no whole .safetensors file"),
        "page": (folder / "page.pt", "is text"),
        "empty": (folder / "empty.pt", "has 0 bytes"),
        "pointer": (folder / "pointer.pt", "Git LFS pointer"),
        "script": (folder / "script.pt", "is TorchScript.*edgecv export script.pt"),
        "nothing": (folder / "nothing.pt", "no such file"),
        "folder": (folder, "is a folder"),
    }


def test_files_that_are_no_weights_are_refused_in_a_sentence(tmp_path: Path) -> None:
    for case, (path, said) in refusals(tmp_path).items():
        with pytest.raises(ModelError, match=said) as refused:
            filled(path)
        assert refused.value.exit_code == 2, case
        assert "\n" not in str(refused.value), case


def test_a_damaged_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    whole = saved(tmp_path / "best.pt", state()).read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for at in torch.randint(0, len(whole), (100,), generator=generator).tolist():
        path = tmp_path / "damaged.pt"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        try:
            found = filled(path)
        except ModelError:
            refused += 1
        else:
            same(found, state())
    assert refused > 20


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "best.pt", state())
    finally:
        torch.serialization.set_crc32_options(True)
    same(filled(path), state())
