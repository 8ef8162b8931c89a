"""docs/reference: commands, recipe, results, errors, operators and variables, from the code.

PAGES gives each page's text by its name; `make_docs.py` writes and checks them.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecv import backends, errors
from edgecv.cli import build_parser
from edgecv.plan import recipe_schema, results

ROOT = Path(__file__).resolve().parent.parent
MADE = "Generated from {} by `make docs`."

# What a variable is for; `environment_page` fails for one that the code reads and this leaves out.
VARIABLES = {
    "EDGECV_DATA": "folder in which data sets such as Fashion-MNIST are looked for and kept",
    "EDGECV_KERNELS": "file of the one-bit kernels, in place of the one that was installed",
    "EDGECV_SSH_CONFIG": "OpenSSH client configuration of `--device`, as `--ssh-config FILE`",
    "EDGECV_TRUST_SOURCE": "`1`: run the code that a bundle of C source or a Model folder names "
    "([trust](../concepts/trust.md))",
    "EDGETPU_COMPILER": "the Edge TPU compiler, where it is not on the PATH",
    "CC": "C compiler of the one-bit kernels and of bundles of C source",
    "GITHUB_STEP_SUMMARY": "where `gate --summary` without a file writes",
    "XDG_CACHE_HOME": "folder of caches, default `~/.cache`: what sources import is kept in it",
    "PYTHONPATH": "where engines, stages and tasks of yours are found "
    "([extending](../extending.md))",
}
# What edgecv tells its own child processes; nobody sets them.
INNER = {"EDGECV_LIFELINE", "EDGECV_RECIPE_FOLDERS", "EDGECV_ROOM"}


def cli_page() -> str:
    parser = build_parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    about = {a.dest: a.help or "" for a in commands._choices_actions}
    rows = ["| command | |", "|---|---|"]
    rows += [f"| [`{name}`](#{name}) | {about[name]} |" for name in commands.choices]
    common = {"--help", "--traceback", "--verbose", "--json"}
    parts = [
        "# Commands", MADE.format("the parser"),
        "Every command takes `--help`, `--traceback` (show where an error was raised) and `-v`; "
        "those that print a table take `--json`. Exit codes: [errors](errors.md).", "\n".join(rows),
    ]  # fmt: skip
    for name, command in commands.choices.items():
        options = [a for a in command._actions if not common & set(a.option_strings)]
        usage = " ".join(["edgecv", name, *(_shown(a) for a in options if _needed(a))])
        parts += [f"## {name}", about[name], f"```text\n{usage}\n```", _options(options)]
    return "\n\n".join(parts) + "\n"


def _needed(action: argparse.Action) -> bool:
    return action.required or not action.option_strings


def _shown(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else _value(action)
    if not action.option_strings:
        return f"[{value}]" if action.nargs in ("?", "*") else value
    return f"{action.option_strings[-1]} {value}".strip()


def _value(action: argparse.Action) -> str:
    if action.metavar:
        return str(action.metavar)
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    return action.dest if not action.option_strings else action.dest.upper()


def _options(actions: list[argparse.Action]) -> str:
    rows = ["| | |", "|---|---|"]
    for a in actions:
        text = _cell((a.help or "").replace("%%", "%"))
        rows.append(f"| `{_cell(_shown(a))}` | {text} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def recipe_page() -> str:
    schema = recipe_schema.schema()["properties"]
    parts = [
        "# Recipe", MADE.format("`edgecv.plan.recipe`"),
        "A recipe is a YAML file of these keys. Paths and modules are looked up in the working "
        "folder, then beside the recipe. Editors complete it by its [JSON Schema]"
        "(../recipe.schema.json); `edgecv plan` checks it and writes nothing. What it means: "
        "[recipe, step and key](../concepts/recipe.md).",
        "| key | |\n|---|---|\n"
        "| `model` | a zoo name, a file, `{zoo: NAME, ...}`, `{module: file:function, weights: "
        "FILE, ...}` or `{onnx: FILE}` ([networks](../networks.md), [zoo](../zoo.md)) |\n"
        "| `data` | [below](#data) |\n"
        "| `task` | what outputs mean: " + ", ".join(f"`{t}`" for t in _tasks(schema)) + ", or "
        "`{name: ..., ...}` ([detection](../detection.md), [data](../data.md)) |\n"
        f"| `seed` | {schema['seed']['default']} unless said |\n"
        f"| `threads` | of the engines, {schema['threads']['default']} unless said |\n"
        "| `bench` | [below](#bench) |\n"
        "| `stages` | a list: `- word: {parameters}` ([stages](../stages.md)) |\n"
        "| `targets` | a list of device profiles ([targets](../targets.md)) |",
    ]  # fmt: skip
    for key in ("data", "bench"):
        about = schema[key]["description"].split("\n\n")[0]
        parts += [f"## {key}", about, _fields(schema[key]["properties"])]
    return "\n\n".join(parts) + "\n"


def _tasks(schema: dict[str, Any]) -> list[str]:
    return [str(t) for t in schema["task"]["anyOf"][0]["enum"]]


def _fields(properties: dict[str, Any]) -> str:
    rows = ["| key | default | |", "|---|---|---|"]
    for name, said in properties.items():
        words = " · ".join(f"`{v}`" for v in said.get("enum", []))
        text = " ".join(said.get("description", "").split())
        default = json.dumps(said.get("default"))
        shown = "" if default in ("null", '""') else f"`{default}`"
        rows.append(f"| `{name}` | {shown} | {_cell('; '.join(filter(None, (text, words))))} |")
    return "\n".join(rows)


def results_page() -> str:
    text = inspect.cleandoc(results.__doc__ or "")
    first, _, rest = text.partition("\n\n")
    return "\n\n".join([
        "# Results", MADE.format("the docstring of `edgecv.plan.results`"),
        f"`{first.partition(':')[0]}`{first.partition(':')[1]}{first.partition(':')[2]}",
        _literal(rest),
    ]) + "\n"  # fmt: skip


def _literal(text: str) -> str:
    """Indented parts as code; the others' newlines stay."""
    parts = []
    for part in text.split("\n\n"):
        code = part.startswith("    ")
        parts.append(f"```text\n{inspect.cleandoc('    ' + part.strip())}\n```" if code else part)
    return "\n\n".join(parts)


def errors_page() -> str:
    text = inspect.cleandoc(errors.__doc__ or "")
    tree = re.search(r"^    EdgecvError.*?(?=\n\n)", text, re.S | re.M)
    assert tree is not None
    codes = [
        (0, "done"), (1, "a gate, a check or a limit was not met; an engine refused"),
        (2, "the input is wrong: a recipe, a file, an option"), (3, "something is not installed"),
        (4, "inconclusive: the machine was too noisy, or a device vanished"),
        (70, "a bug in edgecv: please report it, with `--traceback`"),
        (130, "interrupted (Ctrl-C)"), ("143, 129", "stopped by SIGTERM, SIGHUP"),
    ]  # fmt: skip
    rows = "\n".join(f"| {code} | {about} |" for code, about in codes)
    lines = "\n".join(line.removeprefix("    ") for line in tree[0].splitlines())
    return "\n\n".join([
        "# Errors and exit codes", MADE.format("`edgecv.errors`"),
        "An error is one line: where, what is wrong there, and what to do about it.",
        "```text\nerror: --set prune.ration: unknown key 'ration' (did you mean 'ratio'?)\n```",
        "| exit code | |\n|---|---|\n" + rows,
        "In Python each is an exception with `where`, `what`, `hint` and `exit_code`; all are "
        "`edgecv.errors.EdgecvError`:",
        f"```text\n{lines}\n```",
        "`edgecv verify` adds: 1 an output differs, 2 the bundle is damaged or not trusted, 3 its "
        "engine is not here, 4 it has no golden inputs.",
    ]) + "\n"  # fmt: skip


def operators_page() -> str:
    from onnx import defs

    from edgecv.backends.c.read import _Reader
    from edgecv.models.importing.operators import OPERATORS

    standard = {s.name for s in defs.get_all_schemas()}
    in_c = {n for n in standard if hasattr(_Reader, f"_{n.lower()}")}
    names = sorted(in_c | set(OPERATORS))
    rows = ["| ONNX operator | LiteRT, Edge TPU | plain C |", "|---|---|---|"]
    rows += [
        f"| {n} | {'yes' if n in OPERATORS else ''} | {'yes' if n in in_c else ''} |" for n in names
    ]
    engines = ["| engine | reads | layers that multiply | of these in float |", "|---|---|---|---|"]
    for engine in backends.ENGINES:
        facts = backends.facts(engine)
        engines.append(
            f"| {facts.label} | {', '.join(facts.graphs + facts.also)} | "
            f"{', '.join(p for p in facts.products if p != facts.label)} | "
            f"{', '.join(facts.floating)} |"
        )
    return "\n\n".join([
        "# Operators", MADE.format("the tables of the code"),
        "ONNX Runtime, OpenVINO and TensorRT read what their own releases read, opset 7 and later. "
        "LiteRT and the Edge TPU get an `.onnx` file through PyTorch, plain C is written by "
        "edgecv: the second table lists what these two know. Composite operators (Einsum, "
        "attention, LSTM, contrib ones of ONNX Runtime) are written out in others before. An "
        "operator that a target has not is an error that names operator, layer and file.",
        "How well each form works in fp32 and int8 was measured, 148 forms on every target: "
        "[operators](../../benchmarks/results/operators.md). Opsets 7 to 26: "
        "[opsets](../../benchmarks/results/opsets.md).",
        "\n".join(engines),
        "*of these in float*: kinds that the engine has in float, always or for some shapes and "
        "grids; a bundle says which layers ran in what.",
        "\n".join(rows),
    ]) + "\n"  # fmt: skip


def variables_read() -> set[str]:
    """Environment variables in the code: what it looks up by name, and every EDGECV_*."""
    found: set[str] = set()
    for path in sorted((ROOT / "edgecv").rglob("*.py")):
        text = path.read_text()
        if "environ" not in text and "EDGECV_" not in text:
            continue
        found |= {
            n.value for n in ast.walk(ast.parse(text))
            if isinstance(n, ast.Constant) and isinstance(n.value, str)
            and re.fullmatch(r"EDGECV_[A-Z_]+", n.value)
        }  # fmt: skip
        found |= set(re.findall(r"environ\.get\(\s*\"([A-Z_]+)\"", text))
    return found


def environment_page() -> str:
    unknown = variables_read() - INNER - set(VARIABLES)
    if unknown:
        raise SystemExit(f"scripts/reference_pages.py: VARIABLES does not say {sorted(unknown)}")
    rows = "\n".join(f"| `{name}` | {about} |" for name, about in sorted(VARIABLES.items()))
    return "\n\n".join([
        "# Environment variables", MADE.format("`scripts/reference_pages.py`"),
        "| variable | |\n|---|---|\n" + rows,
        "None is needed. Engines get the threads that a recipe or `--threads` says, one unless "
        "said.",
    ]) + "\n"  # fmt: skip


PAGES: dict[str, Callable[[], str]] = {
    "cli": cli_page,
    "environment": environment_page,
    "errors": errors_page,
    "operators": operators_page,
    "recipe": recipe_page,
    "results": results_page,
}
