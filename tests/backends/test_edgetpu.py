"""Edge TPU: the file prepared for its compiler, the compiler's process and its log.

The real edgetpu_compiler is closed and was not run here: a shell script stands in for it, for the
process and the log handling only. The logs are in the real compiler's format (version 16).
"""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

import numpy as np
import pytest

from edgecv import target
from edgecv.backends.edgetpu import compile as edgetpu
from edgecv.backends.edgetpu.run import LIBRARY, Session, probe
from edgecv.backends.tflite.run import Session as CpuSession
from edgecv.errors import EngineError, MissingExtraError, UnsupportedError
from edgecv.graphs.tflite import flatbuffer
from edgecv.target import Grid
from tests.backends.tflite_graphs import float_graph, int8_graph

PER_TENSOR = Grid(activations="int8", dense_per_channel=False)
CORAL = target.load("coral-usb")

WHOLE = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 393 ms.

Input model: model.tflite
Input size: 5.10MiB
Output model: model_edgetpu.tflite
Output size: 5.55MiB
On-chip memory used for caching model parameters: 5.40MiB
On-chip memory remaining for caching model parameters: 1.97MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 61
Operation log: model_edgetpu.log

Operator                       Count      Status

QUANTIZE                       1          Mapped to Edge TPU
MEAN                           1          Mapped to Edge TPU
FULLY_CONNECTED                1          Mapped to Edge TPU
ADD                            9          Mapped to Edge TPU
CONV_2D                        33         Mapped to Edge TPU
DEPTHWISE_CONV_2D              16         Mapped to Edge TPU
Compilation child process completed within timeout period.
Compilation succeeded!
"""

PART = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 812 ms.

Input model: model.tflite
Input size: 22.71MiB
Output model: model_edgetpu.tflite
Output size: 23.02MiB
On-chip memory used for caching model parameters: 6.43MiB
On-chip memory remaining for caching model parameters: 768.00B
Off-chip memory used for streaming uncached model parameters: 15.84MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 70
Operation log: model_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of \
the model will instead run on the CPU, which is slower. If possible, consider updating your model \
to use only operations supported by the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 66
Number of operations that will run on CPU: 4

Operator                       Count      Status

CONV_2D                        60         Mapped to Edge TPU
CONV_2D                        2          More than one subgraph is not supported
HARD_SWISH                     1          Operation not supported
SOFTMAX                        1          Operation is otherwise supported, but not mapped due to \
some unspecified limitation
ADD                            6          Mapped to Edge TPU
Compilation child process completed within timeout period.
Compilation succeeded!
"""

REFUSED = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.
Invalid model: model.tflite
Model not quantized
"""


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("EDGETPU_COMPILER", raising=False)


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Make a script that is called in the compiler's place; the file of its arguments."""

    def make(body: str) -> Path:
        script = tmp_path / "edgetpu_compiler"
        script.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/arguments"\n{body}\n')
        script.chmod(0o755)
        monkeypatch.setenv("EDGETPU_COMPILER", str(script))
        return tmp_path / "arguments"

    return make


def tpu_graph():
    return int8_graph("uint8", PER_TENSOR)


@pytest.mark.usefixtures("no_compiler")
def test_without_the_compiler_the_bundle_says_so(tmp_path: Path):
    made = edgetpu.compile(tpu_graph(), CORAL, tmp_path / "out")
    assert made.files == ("model.tflite",)
    assert not made.compiled
    assert made.notes[0].startswith("not compiled for the Edge TPU: edgetpu_compiler not found; ")
    assert made.inputs[0].dtype == "uint8"
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["model.tflite"]


@pytest.mark.usefixtures("no_compiler")
def test_preparing_changes_versions_and_not_one_bit_of_the_answers(tmp_path: Path):
    edgetpu.compile(tpu_graph(), CORAL, tmp_path)
    model = flatbuffer.read(tmp_path / "model.tflite")
    versions = {
        flatbuffer.op_name(model, op): model.operatorCodes[op.opcodeIndex].version
        for op in flatbuffer.graph_of(model).operators
    }
    assert versions == {
        "QUANTIZE": 1,
        "CONV_2D": 3,
        "ADD": 2,
        "PAD": 2,
        "DEPTHWISE_CONV_2D": 3,
        "MEAN": 2,
        "FULLY_CONNECTED": 4,
    }
    before = CpuSession({"m": tpu_graph().path.read_bytes()})
    after = Session({"m": (tmp_path / "model.tflite").read_bytes()})
    noise = np.random.default_rng(0).integers(0, 256, (20, 1, 24, 24, 3), np.uint8)
    for image in noise:
        want = before.run({"input": image})["logits"]
        np.testing.assert_array_equal(after.run({"input": image})["logits"], want)
    assert after.on_device is False
    assert after.executed() == {"int8": 6}


def test_dense_weights_have_one_scale():
    model = flatbuffer.read(tpu_graph().path)
    main = flatbuffer.graph_of(model)
    scales = {
        flatbuffer.op_name(model, op): len(main.tensors[op.inputs[1]].quantization.scale)
        for op in main.operators
        if flatbuffer.op_name(model, op) in ("CONV_2D", "FULLY_CONNECTED")
    }
    assert scales == {"CONV_2D": 32, "FULLY_CONNECTED": 1}


@pytest.mark.parametrize("io", ["fp32", "float32"])
def test_a_graph_that_is_not_full_integer_is_refused(io, tmp_path: Path):
    graph = float_graph() if io == "fp32" else int8_graph("float32")
    with pytest.raises(UnsupportedError, match="not full-integer"):
        edgetpu.compile(graph, CORAL, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_compiled_file_takes_the_place_of_the_other(stand_in, tmp_path: Path):
    arguments = stand_in(f'cp "$6" "$5/model_edgetpu.tflite"\ncat <<\'LOG\'\n{PART}LOG')
    made = edgetpu.compile(tpu_graph(), CORAL, tmp_path / "out")
    assert made.files == ("model_edgetpu.tflite",)
    assert made.compiled
    assert made.versions["edgetpu_compiler"] == "16.0.384591198"
    assert made.notes == (
        "66 operators run on the Edge TPU, 4 on the CPU.",
        "2 CONV_2D on the CPU: More than one subgraph is not supported.",
        "1 HARD_SWISH on the CPU: Operation not supported.",
        "1 SOFTMAX on the CPU: Operation is otherwise supported, but not mapped due to some "
        "unspecified limitation.",
        f"{round(15.84 * 2**20)} bytes of weights are streamed at every inference.",
    )
    assert not (tmp_path / "out" / "model.tflite").exists()
    assert arguments.read_text().split()[:2] == ["-s", "-t"]


def test_a_refusal_is_quoted(stand_in, tmp_path: Path):
    stand_in(f"cat <<'LOG'\n{REFUSED}LOG\nexit 1")
    with pytest.raises(EngineError, match=r"Invalid model: model\.tflite Model not quantized"):
        edgetpu.compile(tpu_graph(), CORAL, tmp_path / "out")


def test_a_crash_without_a_word_has_its_status(stand_in, tmp_path: Path):
    stand_in("kill -SEGV $$")
    with pytest.raises(EngineError, match="failed with status -11"):
        edgetpu.compile(tpu_graph(), CORAL, tmp_path / "out")


def test_success_without_a_file_is_a_failure(stand_in, tmp_path: Path):
    stand_in("echo 'Internal compiler error. Aborting!'")
    with pytest.raises(EngineError, match="Internal compiler error"):
        edgetpu.compile(tpu_graph(), CORAL, tmp_path / "out")


def test_a_hanging_compiler_is_killed_with_its_children(stand_in, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(edgetpu, "GRACE_S", 0.2)
    stand_in(f'sleep 600 &\necho $! > "{tmp_path}/child"\nwait')
    with pytest.raises(EngineError, match="not done in 1 s"):
        edgetpu.run_compiler(edgetpu.find_compiler(), tpu_graph().path, tmp_path, 1)
    child = int((tmp_path / "child").read_text())
    for _ in range(50):  # killed; its new parent may take a moment to reap it
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            break
        time.sleep(0.1)
    else:
        os.kill(child, 9)
        pytest.fail("the compiler's child outlived it")


def test_a_wrong_compiler_path_is_named(monkeypatch):
    monkeypatch.setenv("EDGETPU_COMPILER", "/nowhere/edgetpu_compiler")
    with pytest.raises(EngineError, match=r"/nowhere/edgetpu_compiler is not an executable"):
        edgetpu.find_compiler()


def test_the_log_of_a_whole_mapping():
    log = edgetpu.parse_log(WHOLE)
    assert (log.version, log.tpu_ops, log.cpu_ops) == ("16.0.384591198", 61, 0)
    assert (log.cached_bytes, log.streamed_bytes) == (round(5.4 * 2**20), 0)
    assert log.left == ()
    assert log.notes() == ("61 operators run on the Edge TPU, 0 on the CPU.",)


def test_the_log_of_another_program_says_nothing():
    log = edgetpu.parse_log("hello\n")
    assert (log.version, log.tpu_ops, log.left) == (None, None, ())
    assert log.notes() == ("edgetpu_compiler did not say how many operators it mapped.",)


def test_a_compiled_file_needs_libedgetpu():
    if probe().available:
        pytest.skip("libedgetpu is installed")
    with pytest.raises(OSError):
        ctypes.CDLL(LIBRARY)
    with pytest.raises(MissingExtraError, match=r"libedgetpu.* is not installed"):
        Session({"model_edgetpu.tflite": b"....TFL3....edgetpu-custom-op...."})
    assert LIBRARY in probe().reason


@pytest.mark.parametrize(
    ("system", "processor", "said"),
    [
        (
            "Linux",
            "x86_64",
            "brings it; its package edgetpu-compiler compiles for it",
        ),
        ("Linux", "aarch64", "no compiler for Linux on aarch64: compile on x86-64 Linux"),
        ("Darwin", "arm64", "no compiler for Darwin on arm64: compile on x86-64 Linux"),
    ],
)
def test_what_brings_it_here_is_said(
    monkeypatch: pytest.MonkeyPatch, system: str, processor: str, said: str
) -> None:
    if probe().available:
        pytest.skip("libedgetpu is here")
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: processor)
    assert probe().reason.endswith(said)


def test_an_uncompiled_file_is_profiled_on_the_cpu():
    net = Session({"m": tpu_graph().path.read_bytes()})
    profile = net.profile({"input": np.zeros((1, 24, 24, 3), np.uint8)}, runs=2)
    assert profile.reason == ""
    assert profile.layers[0].op == "QUANTIZE"
    assert profile.layers[0].precision == ""
    assert sum(x.op.startswith(("Conv", "Fully")) for x in profile.layers) == 6


def test_on_the_device_operators_have_no_times_and_that_is_said():
    net = Session({"m": tpu_graph().path.read_bytes()})
    net.on_device = True
    profile = net.profile({"input": np.zeros((1, 24, 24, 3), np.uint8)})
    assert "libedgetpu has no profiler" in profile.reason
    assert {x.time_ms for x in profile.layers} == {None}
