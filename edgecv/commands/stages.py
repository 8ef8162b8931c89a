"""`edgecv stages`: the words of a recipe, and its schema."""

from __future__ import annotations

import argparse
import json
from typing import Any

from edgecv.errors import missing
from edgecv.terminal import print_json


def register(command: Any) -> None:
    made = command("stages", stages, "List the stages of a recipe with their parameters.")
    made.add_argument("--schema", action="store_true", help="print the recipe's JSON Schema")


def stages(options: argparse.Namespace) -> int:

    try:
        from edgecv.plan import recipe_schema
        from edgecv.stages import words
    except ImportError as e:
        raise missing(e.name or "pydantic", "compress", "edgecv stages") from None
    if options.schema:
        print_json(recipe_schema.schema())
        return 0
    found = {word: cls.model_json_schema()["properties"] for word, cls in words().items()}
    if options.json:
        print_json(found)
        return 0
    for word, cls in words().items():
        print(f"{word}: {(cls.__doc__ or '').splitlines()[0]}")
        for name, field in found[word].items():
            kind = (
                field.get("enum")
                or field.get("type")
                or "/".join(str(t.get("type")) for t in field.get("anyOf", []))
            )
            shown = "|".join(map(str, kind)) if isinstance(kind, list) else kind
            about = field.get("description", "")
            print(f"  {name:<21} {shown:<22}default {json.dumps(field.get('default')):<10}{about}")
    return 0
