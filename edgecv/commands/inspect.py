"""`edgecv inspect`: what a bundle or a Model folder is. Works on a device."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.commands.common import existing
from edgecv.terminal import print_json

if TYPE_CHECKING:
    from edgecv.runtime.archive import Contents


def register(command: Any) -> None:
    inspect = command("inspect", run_inspect, "Show what a bundle or a Model folder is.")
    inspect.add_argument("path", type=existing, help=".edgecv file or Model folder")


def run_inspect(options: argparse.Namespace) -> int:

    path: Path = options.path
    data = _model(path) if path.is_dir() else _bundle(path)
    if options.json:
        print_json(data)
        return 0
    for key, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], str):
            print(f"{key}:")
            for i, line in enumerate(value):
                print(f"  {i + 1}. {line}" if key == "history" else f"  {line}")
        elif key == "metric" and value and value.get("per_class"):
            for line in _of_classes(value):
                print(line)
        else:
            print(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")
    return 0


def _of_classes(metric: Mapping[str, Any]) -> Iterator[str]:
    """A metric in lines: its figure, and the classes that were judged, the worst first."""
    from edgecv.commands.export_output import metric_line

    judged = {k: v for k, v in metric["per_class"].items() if v is not None}
    yield f"metric: {metric_line(metric)}"
    yield f"of {len(judged)} of {len(metric['per_class'])} classes:"
    for name, value in sorted(judged.items(), key=lambda item: item[1]):
        yield f"  {name} {100 * value:.2f}"


def _bundle(path: Path) -> dict[str, Any]:
    from edgecv.runtime.archive import read_bundle

    return describe(read_bundle(path))


def describe(contents: Contents) -> dict[str, Any]:
    """What `inspect` shows of a bundle: its manifest, long lists in few words."""
    manifest = dict(contents.manifest)
    labels = manifest.pop("labels", None) or []
    shown = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
    members = [f"{digest[:12]} {name}" for name, digest in manifest.pop("members").items()]
    return {**manifest, "classes": f"{len(labels)}: {shown}" if labels else "no labels",
            "members": members}  # fmt: skip


def _model(path: Path) -> dict[str, Any]:
    from edgecv.models import history
    from edgecv.models.model import Model

    model = Model.read(path)
    return {
        "model": str(path),
        "builder": model.builder,
        "args": model.args,
        "input": model.input,
        "labels": ", ".join(model.labels or ()),
        "history": history.of(model),
        "edits": len(model.edits),
    }
