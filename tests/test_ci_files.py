"""The files of recipes/ci: every step of theirs is run as its runner would, in a user's repository.

A runner's own actions (checkout, cache, artifacts) are done by hand: the repository has a remote,
and the store that the cache would bring is copied in. `SKIPPED` names the steps that need a network
or a token; their syntax is checked all the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from edgecv.benchmark.baseline import Baseline
from tests.benchmark.judged import entry, timing
from tests.docs import blocks, files

yaml = pytest.importorskip("yaml")
CI = Path(__file__).parents[1] / "recipes" / "ci"
FILES = sorted(CI.glob("*.yml"))
INSTALL = ("install", "before_script")  # tried by a test of their own, without an index
SKIPPED = {
    "comment": "writes to GitHub with the job's token",
    "after_script": "writes to GitLab with a token",
}
RECIPE = """\
model: net.onnx
data: {train: imagefolder:images/train, test: imagefolder:images/test, size: 32}
bench: {rounds: 4, burst_ms: 1, budget_s: 0.3}
stages:
  - quantize: {name: small-int8}
targets: [cpu]
"""


@dataclass
class Step:
    """One shell script of a job. folder: where it runs, in the workspace."""

    job: str
    name: str
    text: str
    folder: str = "."
    environment: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> dict[Any, Any]:
    return dict(yaml.safe_load(path.read_text()))


def steps(path: Path) -> list[Step]:
    """Every script of a file, in its order."""
    return gitlab(read(path)) if path.name.startswith("gitlab") else github(read(path))


def github(workflow: dict[Any, Any]) -> list[Step]:
    variables = {k: str(v) for k, v in workflow["env"].items()}
    return [
        Step(job, s.get("name", ""), s["run"], s.get("working-directory", "."), variables)
        for job, said in workflow["jobs"].items()
        for s in said["steps"]
        if "run" in s
    ]


def gitlab(said: dict[Any, Any]) -> list[Step]:
    found = []
    for job in (name for name in said if not name.startswith(".")):
        whole = {**said[said[job]["extends"]], **said[job]}
        variables = {k: str(v) for k, v in whole["variables"].items()}
        for name in ("before_script", "script", "after_script"):
            if name in whole:
                found.append(Step(job, name, "\n".join(whole[name]), ".", variables))
    return found


def uploads(path: Path) -> list[str]:
    """What a file's jobs keep, as patterns."""
    said, kept = read(path), []
    if path.name.startswith("gitlab"):
        for job in said.values():
            found = job.get("artifacts", {})
            kept += [*found.get("paths", []), *found.get("reports", {}).values()]
    else:
        for job in said["jobs"].values():
            for step in job["steps"]:
                if step.get("uses", "").startswith("actions/upload-artifact"):
                    kept += step["with"]["path"].split()
    return kept


def execute(step: Step, workspace: Path, **more: str) -> int:
    """Run a step as GitHub and GitLab do, measuring for a second where it would for 30: its exit
    code."""
    text = step.text.replace("edgecv gate ", "edgecv gate --budget 1s ")
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        cwd=workspace / step.folder, capture_output=True, text=True, timeout=120, check=False,
        env={
            **blocks.environment(workspace), **step.environment, "GITHUB_REF_NAME": "change",
            "GITHUB_STEP_SUMMARY": str(workspace / "summary.md"), "GIT_CONFIG_GLOBAL": os.devnull,
            **more,
        },
    )  # fmt: skip
    print(f"--- {step.job}: {step.name}\n{done.stdout}{done.stderr}exit code {done.returncode}")
    return done.returncode


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's repository, and what the cache has of it: runs/recipe/store."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("checkout")
    files.tiny(folder)
    (folder / "recipe.yaml").write_text(RECIPE)
    words = ["run", "recipe.yaml", "--out", "runs/recipe", "--no-report"]
    subprocess.run(
        [sys.executable, "-m", "edgecv", *words], cwd=folder, env=blocks.environment(folder),
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    for path in (folder / "runs" / "recipe").iterdir():
        if path.name != "store":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def git(*words: str, cwd: Path) -> str:
    named = ["-c", "user.name=user", "-c", "user.email=user@example.org"]
    done = subprocess.run(
        ["git", *named, *words], cwd=cwd, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def workspace(checkout: Path, tmp_path: Path) -> Path:
    """The repository as a runner checks it out, on branch "change" of a remote of its own."""
    made = Path(shutil.copytree(checkout, tmp_path / "workspace"))
    commit(made, "recipe.yaml", "net.onnx")
    return made


def commit(made: Path, *names: str) -> None:
    """Make a folder a repository on branch "change", with a remote beside it."""
    remote = made.parent / "remote"
    git("init", "--quiet", "--bare", str(remote), cwd=made)
    git("init", "--quiet", "--initial-branch", "change", cwd=made)
    git("remote", "add", "origin", str(remote), cwd=made)
    git("add", *names, cwd=made)
    git("commit", "--quiet", "-m", "A network", cwd=made)


def run_all(path: Path, workspace: Path) -> dict[tuple[str, str], int]:
    """The exit code of every step that is not SKIPPED, by job and name."""
    found = [s for s in steps(path) if s.name not in (*INSTALL, *SKIPPED)]
    return {(s.job, s.name): execute(s, workspace) for s in found}


def check_kept(path: Path, workspace: Path) -> None:
    for pattern in uploads(path):
        assert list(workspace.glob(pattern)), f"{pattern} is kept and was not made"
    suite = ElementTree.parse(workspace / "gate.xml").getroot()
    assert suite.get("errors") == "0"
    assert suite.findall("testcase[@name='latency']")
    assert "edgecv gate: " in (workspace / "gate.md").read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_script_is_bash_and_takes_no_text_from_outside(path: Path) -> None:
    found = steps(path)
    assert {"edgecv run", "edgecv gate"} <= {w for s in found for w in _commands(s.text)}
    for step in found:
        done = subprocess.run(
            ["bash", "-n"], input=step.text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{step.job}, {step.name}: {done.stderr}"
        # A branch's name pasted into a script is run by it: values come by the environment.
        assert "${{" not in step.text, f"{step.job}, {step.name}"


def _commands(text: str) -> set[str]:
    return {w for w in ("edgecv run", "edgecv gate") if w in text}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_what_is_installed_is_pinned_and_the_cache_hangs_on_the_pins(path: Path) -> None:
    installs = [s.text for s in steps(path) if s.name in INSTALL]
    assert installs
    assert all(t.startswith('pip install -c constraints.txt "$(echo $EDGECV)[') for t in installs)
    said = read(path)
    if path.name.startswith("gitlab"):
        assert said[".edgecv"]["cache"]["key"]["files"] == ["constraints.txt"]
        return
    caches = [
        s["with"]
        for job in said["jobs"].values()
        for s in job["steps"]
        if s.get("uses", "").startswith("actions/cache@")
    ]
    assert len(caches) == len(said["jobs"])
    for cache in caches:
        assert "constraints.txt" in cache["restore-keys"]
        assert cache["key"].startswith(cache["restore-keys"])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_wheel_in_the_repository_is_what_pip_takes(
    path: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [s for s in steps(path) if s.name in INSTALL]
    room = tmp_path / found[0].folder
    (room / "wheels").mkdir(parents=True)
    shutil.copy(next(built.glob("*.whl")), room / "wheels")
    shutil.copy(CI.parents[1] / "constraints.txt", room)
    blocks.environment(tmp_path)
    pip = tmp_path / ".bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pip "$@"\n')
    pip.chmod(0o755)
    alone = {f"PIP_{word}": "1" for word in ("DRY_RUN", "NO_DEPS", "NO_INDEX", "FORCE_REINSTALL")}
    for step in found:
        assert execute(step, tmp_path, **alone) == 0
        assert "Would install edgecv-" in capsys.readouterr().out


def test_github_makes_a_baseline_commits_it_and_judges_against_it(workspace: Path) -> None:
    path = CI / "github-actions.yml"
    codes = run_all(path, workspace)
    # 4: another test had the processor; the figures of that bundle are left out
    assert codes.pop(("baseline", "baseline")) in (0, 4)
    assert list(codes) == [
        ("baseline", "build"), ("baseline", "commit"), ("gate", "build"), ("gate", "gate"),
    ]  # fmt: skip
    said = (workspace / "summary.md").read_text()
    slower = "edgecv gate: regression" in said  # another test had the processor at one of the times
    assert codes.pop(("gate", "gate")) == int(slower), said
    assert set(codes.values()) == {0}, codes
    check_kept(path, workspace)
    assert "edgecv gate: " in said
    there = git("show", "--stat", "--format=%an %s", "change", cwd=workspace.parent / "remote")
    assert there.startswith("edgecv-gate Baseline of edgecv gate")
    assert "baseline.json" in there


@pytest.mark.parametrize("kept", [True, False])
def test_github_commits_what_a_busy_runner_kept(
    kept: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The step of a job that the one before it let run. `edgecv` is here a command that leaves what
    --update leaves where others had the processor, of one bundle or of both: file and exit code."""
    made = tmp_path / "workspace"
    made.mkdir()
    (made / "recipe.yaml").write_text(RECIPE)
    commit(made, "recipe.yaml")
    file = Baseline()
    file.put(entry("a"), timing(calibrated=(0.5, 0.003) if kept else None), "" if kept else "busy")
    file.put(entry("b"), timing(calibrated=None), "busy")
    file.write(tmp_path / "busy.json")
    environment = blocks.environment(tmp_path)
    (tmp_path / ".bin" / "edgecv").write_text("#!/bin/sh\ncp ../busy.json baseline.json\nexit 4\n")
    job = read(CI / "github-actions.yml")["jobs"]["baseline"]["steps"]
    assert not any("if" in step or "continue-on-error" in step for step in job)
    found = {s.name: s for s in steps(CI / "github-actions.yml") if s.job == "baseline"}
    code = execute(found["baseline"], made, PATH=environment["PATH"])
    said = capsys.readouterr().out
    assert (code, "::warning::" in said, "::error::" in said) == (0 if kept else 4, kept, not kept)
    if kept:
        assert execute(found["commit"], made, PATH=environment["PATH"]) == 0
        there = git("show", "change:baseline.json", cwd=tmp_path / "remote")
        assert there == (tmp_path / "busy.json").read_text()


def test_gitlab_keeps_what_a_busy_runner_kept() -> None:
    job = read(CI / "gitlab-ci.yml")["edgecv-baseline"]
    assert job["allow_failure"] == {"exit_codes": [4]}
    assert job["artifacts"] == {"when": "always", "paths": ["baseline.json"]}


def test_gitlab_makes_a_baseline_and_judges_against_it(workspace: Path) -> None:
    path = CI / "gitlab-ci.yml"
    codes = run_all(path, workspace)
    assert list(codes) == [("edgecv-baseline", "script"), ("edgecv-gate", "script")]
    assert set(codes.values()) <= {0, 4}, codes  # 4 is allowed to fail: a warning
    assert read(path)["edgecv-gate"]["allow_failure"] == {"exit_codes": [4]}
    check_kept(path, workspace)


def test_two_builds_and_a_network_that_grew_fails(workspace: Path) -> None:
    before, after = workspace / "before", workspace / "after"
    for made in (before, after):
        made.mkdir()
        for name in ("recipe.yaml", "net.onnx"):
            shutil.copy(workspace / name, made)
        shutil.copytree(workspace / "images", made / "images")
    shutil.copytree(workspace / "runs" / "recipe", workspace / "runs" / "before")
    shutil.rmtree(workspace / "runs" / "recipe")
    _grow(after / "net.onnx")
    path = CI / "github-actions-two-builds.yml"
    codes = run_all(path, workspace)
    assert codes == {("gate", "build before"): 0, ("gate", "build after"): 0, ("gate", "gate"): 1}
    check_kept(path, workspace)
    assert "edgecv gate: regression" in (workspace / "summary.md").read_text()


def _grow(path: Path) -> None:
    """Twelve layers more between the first and what reads it."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    graph, rng = model.graph, np.random.default_rng(0)
    first = graph.node[0].output[0]
    weight = next(w for w in graph.initializer if w.name == graph.node[0].input[1])
    width, last = weight.dims[0], first
    for i in range(12):
        kernel = rng.normal(0, width**-0.5, (width, width, 1, 1)).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(kernel, f"grown{i}"))
        made = helper.make_node("Conv", [last, f"grown{i}"], [f"grow{i}"], name=f"grow{i}")
        graph.node.insert(1 + i, made)
        last = f"grow{i}"
    for node in graph.node[13:]:
        node.input[:] = [last if name == first else name for name in node.input]
    onnx.save(model, path)
