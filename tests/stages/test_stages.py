"""A walk through the house: what can be named is found by listing, documented, and loads."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from edgecv import backends, stages, target
from edgecv.cli import build_parser, main
from edgecv.errors import RecipeError
from edgecv.models import zoo
from edgecv.plan import recipe, recipe_schema
from edgecv.stages.base import Stage

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SCHEMA = recipe_schema.schema()


def commands() -> dict[str, argparse.ArgumentParser]:
    parser = build_parser()
    (sub,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return sub.choices


def test_the_listing_finds_what_is_there() -> None:
    files = {p.stem for p in (ROOT / "edgecv" / "stages").iterdir() if p.stem[0] not in "_."}
    assert set(stages.words()) == files - {"base"}
    assert {"train", "prune", "quantize", "export"} <= set(stages.words())
    assert {f.stem for f in (ROOT / "targets").glob("*.yaml")} <= set(target.names())
    assert RECIPES


@pytest.mark.parametrize("word", stages.words())
def test_every_stage_is_documented_and_runs(word: str) -> None:
    cls = stages.words()[word]
    opening = (sys.modules[cls.__module__].__doc__ or "").splitlines()[0]
    assert any(sign in opening for sign in "=≈←→"), "a stage opens with its equation"
    assert cls.__doc__
    assert cls.run is not Stage.run
    assert cls().parameters() is not None, "every parameter has a default"
    for name, field in cls.model_fields.items():
        told = field.description or field.annotation is not str
        assert told, f"{word}.{name} is not described"


@pytest.mark.parametrize("word", stages.words())
def test_every_stage_reads_well_in_a_recipe(word: str) -> None:
    assert stages.find(word, "here") is stages.words()[word]
    with pytest.raises(RecipeError, match=f"unknown stage '{word}x' .*did you mean '{word}'"):
        stages.find(f"{word}x", "here")


@pytest.mark.parametrize("name", target.names())
def test_every_profile_has_its_engine(name: str) -> None:
    found = target.load(name)
    assert found.description
    assert found.backend in backends.ENGINES
    assert callable(backends.compile_module(found.backend).compile)
    assert callable(backends.run_module(found.backend).probe)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_every_recipe_loads_and_says_what_it_is(path: Path) -> None:
    assert path.read_text().startswith("# ")
    found = recipe.load(path)
    assert found.shipped()
    if found.model.kind == "zoo":
        assert found.model.name in zoo.names()


@pytest.mark.parametrize("name", commands())
def test_every_command_is_documented(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main([name, "--help"])
    assert e.value.code == 0
    text = capsys.readouterr().out
    assert commands()[name].description
    assert name in text
    assert commands()[name].get_default("handler")


@pytest.mark.parametrize("name", ["targets", "stages"])
def test_what_is_listed_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    listed = target.names() if name == "targets" else list(stages.words())
    assert main([name]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in listed)
    assert main([name, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [d["name"] for d in data] == listed if name == "targets" else list(data) == listed


def test_the_schema_is_valid_json_schema() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


KEYWORDS = {
    "$schema", "$defs", "$ref", "title", "description", "type", "properties", "required",
    "additionalProperties", "items", "minItems", "maxItems", "prefixItems", "anyOf", "enum",
    "const", "default", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern",
}  # fmt: skip


def walk(schema: Any, path: str = "#"):
    """Every sub-schema with its path."""
    yield path, schema
    for key in ("properties", "$defs"):
        for name, inner in schema.get(key, {}).items():
            yield from walk(inner, f"{path}/{key}/{name}")
    for key in ("anyOf", "prefixItems"):
        for i, inner in enumerate(schema.get(key, [])):
            yield from walk(inner, f"{path}/{key}/{i}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}/{key}")


def test_the_schema_holds_only_known_words_of_the_right_kind() -> None:
    paths = dict(walk(SCHEMA))
    for path, inner in paths.items():
        assert set(inner) <= KEYWORDS, path
        assert inner.get("$ref", "#") in paths, path
        assert set(inner.get("required", [])) <= set(inner.get("properties", {})), path
        if "properties" in inner:
            assert inner["additionalProperties"] is False, path
    json.dumps(SCHEMA)


def accepts(schema: dict, value: Any) -> bool:
    """Whether a value fits, for the part of JSON Schema that ours uses."""
    if "$ref" in schema:
        return accepts(dict(walk(SCHEMA))[schema["$ref"]], value)
    if "anyOf" in schema and not any(accepts(s, value) for s in schema["anyOf"]):
        return False
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
             "integer": int, "number": (int, float)}  # fmt: skip
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return set(schema.get("required", [])) <= set(value) <= set(known) and all(
            accepts(known[k], v) for k, v in value.items()
        )
    if isinstance(value, list) and "items" in schema:
        return all(accepts(schema["items"], v) for v in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (
            schema.get("minimum", value) <= value <= schema.get("maximum", value)
            and value > schema.get("exclusiveMinimum", value - 1)
            and value < schema.get("exclusiveMaximum", value + 1)
        )
    return True


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_the_schema_accepts_our_recipes(path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    data = yaml.safe_load(path.read_text())
    assert accepts(SCHEMA, data)
    data["sede"] = 1
    assert not accepts(SCHEMA, data)


@pytest.mark.parametrize(
    "stage", [{"prune": {"ratio": 1.5}}, {"prune": {"rtaio": 0.5}}, {"trian": {}}, {"train": 3}]
)
def test_the_schema_refuses_what_the_recipe_refuses(stage: dict) -> None:
    data = {"model": "resnet8", "data": {"train": "x", "test": "x", "size": 8}, "stages": [stage],
            "targets": ["cpu"]}  # fmt: skip
    assert not accepts(SCHEMA, data)
    assert accepts(SCHEMA, {**data, "stages": [{"train": {}}]})
    with pytest.raises(RecipeError):
        recipe.check(data, Path("my.yaml"), {})


def test_a_bare_word_is_a_stage_in_the_schema_too() -> None:
    data = {"model": "resnet8", "data": {"train": "x", "test": "x", "size": 8},
            "stages": ["train"], "targets": ["cpu"]}  # fmt: skip
    assert recipe.check(data, Path("my.yaml"), {}).steps[0].name == "train"
    assert accepts(SCHEMA, data)
