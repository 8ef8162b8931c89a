"""Every command as a real process: what it prints, where, and the code it ends with."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecv import __version__
from edgecv.cli import build_parser, main
from edgecv.installation import cure

COMMANDS = ("run", "plan", "export", "bench", "why", "parity", "gate", "report", "inspect",
            "verify", "predict", "targets", "stages", "doctor", "completion")  # fmt: skip
HEAVY = ("torch", "pydantic", "rich", "yaml", "PIL")
BLOCK = f"import sys\nsys.modules.update(dict.fromkeys({HEAVY!r}))\n"


def one_line(err: str) -> str:
    """The only line on stderr, which is no traceback."""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


# help


@pytest.mark.parametrize("arguments", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_is_shown(edgecv: Callable, arguments: tuple[str, ...]) -> None:
    run = edgecv(*arguments, "--help")
    assert run.code == 0
    assert run.out.startswith("usage: edgecv")
    assert "--help" in run.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_no_library(name: str) -> None:
    """What makes it quick, on any machine: no library is imported, numpy neither."""
    code = (
        "import sys\nfrom edgecv.cli import main\ntry:\n    main([sys.argv[1], '--help'])\n"
        "except SystemExit: pass\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, check=True
    )
    loaded = {m for m in done.stderr.split() if not m.startswith("_")}
    assert loaded <= {"edgecv", "sitecustomize"} | set(sys.stdlib_module_names)


def test_help_names_every_command_and_every_exit_code(edgecv: Callable) -> None:
    shown = edgecv("--help").out
    for name in COMMANDS:
        assert re.search(rf"^    {name}\s", shown, re.MULTILINE)
    text = " ".join(shown.split())
    for code in ("0 done", "1 a gate", "2 the input", "3 something is not installed"):
        assert code in text


def test_every_option_of_every_command_is_explained(edgecv: Callable) -> None:
    for name in COMMANDS:
        lines = edgecv(name, "--help").out.splitlines()
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            if line.startswith("  -"):
                explained = len(line.strip().split("  ")) > 1 or after.startswith(" " * 12)
                assert explained, f"edgecv {name}: {line}"


def test_a_command_s_file_is_named_by_its_word() -> None:
    (parsers,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    rooms = {w: p.get_default("handler").__module__ for w, p in parsers.choices.items()}
    assert rooms == {word: f"edgecv.commands.{word}" for word in COMMANDS}


def test_without_a_command_it_shows_its_help(edgecv: Callable) -> None:
    done = edgecv()
    assert done.code == 2
    assert done.out.startswith("usage: edgecv")


def test_version(edgecv: Callable) -> None:
    assert edgecv("--version").out == f"edgecv {__version__}\n"


# what there is


def test_targets(edgecv: Callable) -> None:
    found = json.loads(edgecv("targets", "--json").out)
    names = [target["name"] for target in found]
    assert {"cpu", "openvino", "tflite", "edgetpu", "tensorrt", "rpi5", "jetson-orin"} <= {*names}
    done = edgecv("targets")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()[2:]] == names


def test_stages(edgecv: Callable) -> None:
    found = json.loads(edgecv("stages", "--json").out)
    assert {"train", "prune", "quantize", "export"} <= found.keys()
    assert found["prune"]["ratio"]["default"] == 0.5
    shown = edgecv("stages").out
    for word, parameters in found.items():
        assert f"{word}: " in shown
        for name in parameters:
            assert f"  {name} " in shown


def test_stages_schema_describes_the_recipes(edgecv: Callable) -> None:
    schema = json.loads(edgecv("stages", "--schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"model", "data", "stages", "targets"} <= set(schema["required"])
    assert schema["additionalProperties"] is False
    steps = schema["properties"]["stages"]["items"]["anyOf"]
    words = {word for step in steps for word in step.get("properties", ())}
    assert {"train", "prune", "quantize", "export"} <= words


def test_doctor(edgecv: Callable) -> None:
    found = json.loads(edgecv("doctor", "--json").out)
    engines = {engine["engine"]: engine for engine in found["engines"]}
    assert engines.keys() == {"onnxruntime", "openvino", "tflite", "edgetpu", "tensorrt", "c"}
    assert all(e["available"] or e["reason"] for e in engines.values())
    done = edgecv("doctor")
    assert done.code == 0
    for name in engines:
        (line,) = (x for x in done.out.splitlines() if x.startswith(f"{name} "))
        assert line.split()[1] == ("yes" if engines[name]["available"] else "no")


@pytest.mark.usefixtures("kernels")
def test_doctor_tells_of_the_binary_kernels(
    edgecv: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = json.loads(edgecv("doctor", "--json").out)["binary_kernels"]
    assert found["here"]
    assert found["sets"][-1] == "portable"
    (line,) = (x for x in edgecv("doctor").out.splitlines() if x.startswith("binary kernels "))
    assert line.split()[2] == "yes"
    monkeypatch.setenv("EDGECV_KERNELS", str(tmp_path / "none.so"))
    (line,) = (x for x in edgecv("doctor").out.splitlines() if x.startswith("binary kernels "))
    assert line.split()[2] == "no"
    assert f"EDGECV_KERNELS names {tmp_path / 'none.so'}: unset it" in line


def test_doctor_says_what_a_missing_engine_costs_and_its_cure(
    edgecv: Callable, site: Callable
) -> None:
    done = edgecv("doctor", path=site("import sys\nsys.modules['openvino'] = None\n"))
    assert done.code == 0
    (line,) = (x for x in done.out.splitlines() if x.startswith("openvino "))
    assert line.split()[1] == "no"
    assert "nuc" in line


def test_doctor_fits_the_terminal() -> None:
    """A real terminal: no line is wider."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edgecv", "doctor"]
    environment = os.environ | {"COLUMNS": "80"}
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        read = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 4096):
                read += part
    os.close(ours)
    assert process.returncode == 0
    found = read.decode().splitlines()
    assert max(map(len, found)) <= 80
    assert any(line.startswith("onnxruntime ") for line in found)


def test_a_command_that_is_folded_runs_as_it_is_pasted() -> None:
    from edgecv.commands import doctor

    cure = "pip install -c /a/very/long/folder/constraints.txt -e '/a/very/long/folder[openvino]'"
    rows = [["openvino", "no", "", "much", cure], ["c", "yes", "cc 1", "", ""]]
    *_, head, first, second = doctor.lines(rows, 60)
    assert head == "openvino: without it you lose much"
    assert first.endswith(" \\")
    assert (first.removesuffix("\\") + second.lstrip()).strip() == cure
    assert len(doctor.lines(rows, 0)) == 4


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(edgecv: Callable, shell: str) -> None:
    pytest.importorskip("shtab")
    done = edgecv("completion", shell)
    assert done.code == 0
    assert "edgecv" in done.out
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.out, text=True, check=True)
        assert all(name in done.out for name in COMMANDS)


# bundles and Model folders


def test_inspect_a_bundle(edgecv: Callable, shelf) -> None:
    found = json.loads(edgecv("inspect", "--json", shelf.int8).out)
    assert (found["target"], found["engine"], found["precision"]) == ("cpu", "onnxruntime", "int8")
    shown = edgecv("inspect", shelf.int8).out
    assert "precision: int8" in shown
    assert "engine/model.onnx" in shown


def test_a_metric_of_classes_is_told_in_lines() -> None:
    from edgecv.commands.inspect import _of_classes

    metric = {"name": "map50_95", "value": 0.25, "samples": 3, "more": {"ap50": 0.5},
              "per_class": {"cat": 0.4, "dog": None, "hen": 0.1}}  # fmt: skip
    assert list(_of_classes(metric)) == [
        "metric: mAP 25.00 (AP50 50.00) on 3 images", "of 2 of 3 classes:", "  hen 10.00",
        "  cat 40.00",
    ]  # fmt: skip


def test_inspect_a_model_folder_prints_its_history(edgecv: Callable, finished) -> None:
    folder = finished.out / "models" / "small"
    found = json.loads(edgecv("inspect", "--json", folder).out)
    built, trained, pruned, tuned = found["history"]
    assert built.startswith("built by mynet:make(")
    assert trained.startswith("dense: 2 epochs")
    assert "small" in pruned
    assert "MACs" in tuned
    shown = edgecv("inspect", folder).out
    assert f"  1. {built}" in shown
    assert f"  3. {pruned}" in shown


def test_verify_a_good_bundle(edgecv: Callable, shelf) -> None:
    done = edgecv("verify", shelf.fp32, shelf.int8)
    assert done.code == 0
    assert [line.split(": ")[1].startswith("ok") for line in done.out.splitlines()] == [True, True]
    reports = json.loads(edgecv("verify", "--json", shelf.fp32, shelf.int8).out)
    assert [(r["bundle"], r["ok"]) for r in reports] == [
        ("fp32.edgecv", True),
        ("int8.edgecv", True),
    ]


def test_verify_says_how_many_golden_inputs_it_replayed(
    edgecv: Callable, shelf, tmp_path: Path
) -> None:
    from edgecv.runtime.archive import read_bundle, write_bundle

    good = read_bundle(shelf.fp32)
    count = len(next(iter(good.golden_inputs.values())))
    assert count > 1
    assert f", {count} golden inputs, " in edgecv("verify", shelf.fp32).out
    path = tmp_path / "one.edgecv"
    taken, given = (
        {n: a[:1] for n, a in g.items()} for g in (good.golden_inputs, good.golden_outputs)
    )
    write_bundle(path, dict(good.manifest), dict(good.files), taken, given)
    assert ", 1 golden input, " in edgecv("verify", path).out


def test_verify_a_bundle_whose_answers_are_not_the_golden_ones(
    edgecv: Callable, shelf, tmp_path: Path
) -> None:
    from edgecv.runtime import open_bundle
    from edgecv.runtime.archive import read_bundle, write_bundle

    good = read_bundle(shelf.fp32)
    assert open_bundle(shelf.fp32).manifest == good.manifest
    wrong = {name: -array for name, array in good.golden_outputs.items()}
    path = tmp_path / "wrong.edgecv"
    write_bundle(path, dict(good.manifest), dict(good.files), good.golden_inputs, wrong)
    done = edgecv("verify", path)
    assert done.code == 1
    assert "FAILED: " in done.out


@pytest.mark.parametrize("command", ["verify", "inspect", "bench"])
def test_a_damaged_bundle_is_refused(edgecv: Callable, damaged: Path, command: str) -> None:
    done = edgecv(command, damaged)
    assert done.code == 2
    assert done.out == ""
    line = one_line(done.err)
    assert "damaged.edgecv" in line
    assert "damaged: copy it again" in line


def test_bench(edgecv: Callable, shelf) -> None:
    options = ("--rounds", "3", "--burst-ms", "1", "--budget", "0.2s")
    data = json.loads(edgecv("bench", shelf.fp32, shelf.int8, "--json", *options).out)
    first, second = data["bundles"]
    assert (first["bundle"], second["bundle"]) == ("fp32.edgecv", "int8.edgecv")
    assert first["latency_ratio"] == 1.0
    assert second["latency_ratio"] > 0
    assert data["threads"] == 1
    assert data["machine"]["cores"] >= 1
    done = edgecv("bench", shelf.fp32, shelf.int8, *options)
    assert done.code == 0
    head, _, *rows = done.out.splitlines()
    assert head.split()[:3] == ["bundle", "p50", "ms"]
    assert [row.split()[0] for row in rows[:2]] == ["fp32.edgecv", "int8.edgecv"]
    assert re.search(r"^\d+ rounds in \d+ sittings", done.out, re.MULTILINE)


def test_bench_against_another(edgecv: Callable, shelf) -> None:
    options = ("--rounds", "3", "--burst-ms", "1", "--budget", "0.2s", "--json")
    done = edgecv("bench", shelf.int8, shelf.fp32, "--against", shelf.fp32, *options)
    names = [(b["bundle"], b["latency_ratio"] == 1.0) for b in json.loads(done.out)["bundles"]]
    assert names[0] == ("fp32.edgecv", True)
    assert [name for name, _ in names] == ["fp32.edgecv", "int8.edgecv"]


def test_bench_offline_shares_a_batch_out(edgecv: Callable, shelf) -> None:
    options = ("--rounds", "3", "--burst-ms", "1", "--budget", "0.2s", "--json")
    done = edgecv(
        "bench", shelf.fp32, "--scenario", "offline", "--threads", "2", "--batch", "8", *options
    )
    data = json.loads(done.out)
    assert (data["scenario"], data["batch"], data["threads"]) == ("offline", 8, 2)
    found = data["bundles"][0]
    assert found["throughput"] == pytest.approx(8e3 / found["latency_ms"]["p50"])


def test_bench_offline_has_work_for_every_thread(edgecv: Callable, shelf) -> None:
    options = ("--rounds", "3", "--burst-ms", "1", "--budget", "0.2s", "--json")
    offline = ("bench", shelf.fp32, "--scenario", "offline", "--threads", "3")
    assert json.loads(edgecv(*offline, *options).out)["batch"] == 3
    done = edgecv(*offline, "--batch", "2", *options)
    assert done.code == 2
    assert "--batch 3 or more" in done.err


def test_bench_profile(edgecv: Callable, shelf) -> None:
    data = json.loads(edgecv("bench", shelf.int8, "--profile", "--json").out)
    (found,) = data["profiles"]
    assert found["bundle"] == "int8.edgecv"
    assert {layer["precision"] for layer in found["layers"] if layer["precision"]} == {"int8"}
    shown = edgecv("bench", shelf.int8, "--profile").out
    assert "QLinearConv" in shown


def test_bench_of_a_folder_names_a_bundle_in_it(edgecv: Callable, shelf) -> None:
    done = edgecv("bench", shelf.fp32.parent)
    assert done.code == 2
    assert "is a folder" in one_line(done.err)


@pytest.mark.parametrize(
    "option",
    [("--threads", "0"), ("--rounds", "1"), ("--burst-ms", "0"), ("--precision", "0"),
     ("--batch", "0"), ("--precision", "nan")],
)  # fmt: skip
def test_bench_refuses_what_cannot_be_measured(edgecv: Callable, shelf, option: tuple) -> None:
    done = edgecv("bench", shelf.fp32, *option)
    assert done.code == 2
    assert option[0] in one_line(done.err)


# on a device: numpy and one engine, nothing else


@pytest.mark.parametrize(
    "arguments",
    [
        ("bench", "--rounds", "3", "--burst-ms", "1", "--budget", "0.2s", "{fp32}", "{int8}"),
        ("gate", "-q", "{fp32}", "{fp32}", "--max-slowdown", "none"),
        ("verify", "{fp32}"),
        ("inspect", "{fp32}"),
        ("inspect", "{model}"),
        ("doctor",),
    ],
    ids=lambda a: " ".join(a[:1] + a[-1:]),
)
def test_device_commands_need_no_heavy_package(
    edgecv: Callable, shelf, model_folder: Path, site: Callable, arguments: tuple[str, ...]
) -> None:
    places = {"fp32": shelf.fp32, "int8": shelf.int8, "model": model_folder}
    done = edgecv(*(a.format(**places) for a in arguments), path=site(BLOCK))
    assert done.code == 0, done.err
    assert done.out
    assert done.err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "tiny.yaml"),
        ("plan", "tiny.yaml"),
        ("export", "resnet8", "--target", "cpu", "--out", "never"),
        ("targets",),
        ("stages",),
    ],
    ids=lambda a: a[0],
)
@pytest.mark.parametrize("blocked", ["pydantic", "yaml", "rich"])
def test_host_commands_name_the_extra_that_they_need(
    edgecv: Callable, project: Path, site: Callable, arguments: tuple[str, ...], blocked: str
) -> None:
    if blocked == "rich" and arguments[0] in ("targets", "stages"):
        pytest.skip("needs no rich")
    path = site(f"import sys\nsys.modules[{blocked!r}] = None\n")
    done = edgecv(*arguments, cwd=project, path=path)
    assert done.code == 3
    assert f"({cure('compress', blocked)})" in one_line(done.err)
    assert not (project / "never").exists()


# errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rnu",), "no command 'rnu'"),
        (("verify", "nowhere.edgecv"), "nowhere.edgecv: no such file"),
        (("bench", "--rounds", "many", "x"), "--rounds: invalid int value: 'many'"),
        (("export", "resnet8", "--target", "cpu"), "--out"),
        (("run", "nowhere.yaml"), "nowhere.yaml: no such file"),
    ],
)
def test_a_wrong_command_line_is_one_line(edgecv: Callable, arguments: tuple, said: str) -> None:
    done = edgecv(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert said in one_line(done.err)


def test_a_traceback_is_there_for_the_asking(edgecv: Callable, damaged: Path) -> None:
    done = edgecv("verify", damaged, "--traceback")
    assert done.code == 2
    assert "Traceback (most recent call last)" in done.err
    assert done.err.splitlines()[-1].startswith("error: ")


def test_a_reader_that_has_enough_is_no_error(edgecv: Callable) -> None:
    assert edgecv("stages").out.count("\n") > 20
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecv", "stages", "--schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=os.environ,
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


def test_the_beginning_of_an_option_is_not_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    """--size would set a limit of so many MB."""
    for given, near in (("--size", "--input-size"), ("--calibraton", "--calibration")):
        with pytest.raises(SystemExit) as ended:
            main(["export", "net.onnx", "--target", "cpu", "--out", "out", given, "48"])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"{given} 48 (did you mean {near}" in said
