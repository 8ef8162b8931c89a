"""`--device` on the command line: bench and gate on a real SSH server, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecv.binary import build
from edgecv.runtime.archive import write_bundle
from tests.device.server import Server, wait
from tests.runtime.conftest import described, golden, network

pytest.importorskip("onnxruntime")


@pytest.fixture
def there(board: Server) -> tuple[str, ...]:
    """The options that lead to the device."""
    return (
        "--device", str(board.address), "--ssh-config", str(board.config), "--python", board.python,
    )  # fmt: skip


def test_bench(edgecv: Callable, board: Server, there: tuple, make_bundle: Callable) -> None:
    paths = (make_bundle(file="a"), make_bundle(file="b"))
    done = edgecv("bench", *paths, "--rounds", "4", "--budget", "1s", "--json", *there)
    assert done.code == 0, done.err
    data = json.loads(done.out)
    assert [b["bundle"] for b in data["bundles"]] == ["a.edgecv", "b.edgecv"]
    assert all(b["memory_mb"]["peak"] > 0 for b in data["bundles"])
    assert board.idle()


def test_profile(edgecv: Callable, board: Server, there: tuple, make_bundle: Callable) -> None:
    done = edgecv("bench", make_bundle(), "--profile", *there)
    assert done.code == 0, done.err
    assert "Conv" in done.out
    assert board.idle()


def one_bit(path: Path) -> Path:
    """The bundle of `make_bundle` with signs before its convolution and in its weights."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    from edgecv.binary.lowering import lower

    model, manifest = onnx.load_model_from_string(network()), described()
    graph, constant = model.graph, numpy_helper.from_array
    held = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for name, value in (
        ("least", np.zeros((1, 3, 1, 1))), ("one", np.ones(())), ("minus", -np.ones(())),
        ("w", np.where(held["w"] < 0, -0.5, 0.5)),
    ):  # fmt: skip
        if name in held:
            graph.initializer.remove(next(t for t in graph.initializer if t.name == name))
        graph.initializer.append(constant(value.astype(np.float32), name))
    graph.node[0].input[0] = "signs"
    graph.node.insert(0, helper.make_node("GreaterOrEqual", ["image", "least"], ["above"]))
    graph.node.insert(1, helper.make_node("Where", ["above", "one", "minus"], ["signs"]))
    inputs, outputs = golden(model.SerializeToString(), manifest)
    assert len(lower(model)) == 1
    files = {"model.onnx": model.SerializeToString()}
    return write_bundle(path, manifest, files, inputs, outputs)


@pytest.mark.skipif(build.compiler() is None, reason="no C compiler")
def test_a_device_builds_the_kernels_of_one_bit_layers(
    edgecv: Callable, board: Server, there: tuple, tmp_path: Path
) -> None:
    done = edgecv("bench", one_bit(tmp_path / "bits.edgecv"), "--profile", *there)
    assert done.code == 0, done.err
    (line,) = (line for line in done.out.splitlines() if "BinaryConv" in line)
    assert "binary" in line
    assert "slowly" not in done.err
    assert board.idle()


def test_gate(edgecv: Callable, board: Server, there: tuple, make_bundle: Callable) -> None:
    path = make_bundle()
    options = ("--max-slowdown", "200%", "--max-memory-growth", "none", "--budget", "5s")
    done = edgecv("gate", path, path, *options, *there)
    assert done.code == 0, done.out + done.err
    assert done.out.splitlines()[-1] == "pass"
    assert board.idle()


def test_a_wrong_host_key(
    edgecv: Callable, board: Server, make_bundle: Callable, tmp_path: Path
) -> None:
    unknown = tmp_path / "known_hosts"
    unknown.write_text("")
    config = board.variant("unknown", UserKnownHostsFile=str(unknown))
    done = edgecv(
        "bench", make_bundle(), "--device", str(board.address), "--ssh-config", config,
        "--python", board.python,
    )  # fmt: skip
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert "host key" in line


def test_a_cut_connection(
    board: Server, started: Callable, there: tuple, make_bundle: Callable, edgecv: Callable
) -> None:
    """The client is killed while it measures: the work there ends, and its room goes."""
    path = make_bundle()
    process: subprocess.Popen[bytes] = started(
        "bench", path, "--budget", "60s", "--precision", "0.6", "--rounds", "100000", *there,
        cwd=path.parent,
    )  # fmt: skip
    wait(board.jobs, 20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(["pkill", "-KILL", "-f", str(board.config)], check=False)  # its ssh
    wait(lambda: not board.jobs(), 20)
    done = edgecv("bench", path, "--rounds", "4", "--budget", "0.5s", *there)
    assert done.code == 0, done.err
    assert board.idle()


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("ssh://me:secret@host", "password"),
        ("http://host", "ssh://"),
        ("ssh://-oProxyCommand=x", "host"),
        ("rpi5", "device"),
    ],
)
def test_addresses_that_are_refused(
    edgecv: Callable, make_bundle: Callable, device: str, said: str
) -> None:
    done = edgecv("bench", make_bundle(), "--device", device)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert said in line
    assert "secret" not in line
