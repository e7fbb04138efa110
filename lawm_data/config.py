"""Settings: dataclass defaults <- recipe file <- --set <- flags. Every value is checked against the dataclass's types.

A recipe is a YAML file of the sections below; a section is a dataclass beside the code that uses it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml

from lawm_data.errors import UserError

SECTIONS = ("collect", "split", "model", "agent", "train", "evaluate", "grid")


class Bounds(NamedTuple):
    """What a number may be, in the type of its setting; checked where a recipe, --set or a flag gives it."""

    least: float = -math.inf
    most: float = math.inf


Count = Annotated[int, Bounds(1)]
NonNegative = Annotated[float, Bounds(0)]
Positive = Annotated[float, Bounds(1e-6, 10**9)]  # a standard deviation, the bound of a norm: float32 can square it
Share = Annotated[float, Bounds(0, 1)]
Part = Annotated[float, Bounds(0, 0.99)]  # a share that leaves something


def load(
    recipe: str, settings: Sequence[str], sections: Mapping[str, type], flags: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """One instance of each dataclass in `sections`, by section name.

    recipe: a name or a path; settings: `section.key=value`, the value in YAML; flags: by section, None where not given.
    Sections of a recipe that the caller does not know are left unread. UserError names the key and where it stands.
    """
    path = recipe_path(recipe)
    layers = [(str(path), _read(path)), *((f"--set {setting}", _parse(setting, sections)) for setting in settings)]
    given = {name: {key: value for key, value in flags[name].items() if value is not None} for name in flags}
    layers.append(("command line", given))
    merged: dict[str, Any] = {}
    for where, values in layers:
        merged = _merge(merged, _check_sections(values, sections, where))
    return {name: _build(kind(), merged.get(name, {})) for name, kind in sections.items()}


def from_dict(saved: Mapping[str, Any], sections: Mapping[str, type], where: str) -> dict[str, Any]:
    """The inverse of `as_dict`, for the settings saved with a run; `where` is their file."""
    checked = _check_sections(saved, sections, where)
    return {name: _build(kind(), checked.get(name, {})) for name, kind in sections.items()}


def as_dict(configs: Mapping[str, Any]) -> dict[str, Any]:
    """By section name, in the types of JSON: tuples become lists."""
    return json.loads(json.dumps({name: dataclasses.asdict(config) for name, config in configs.items()}))


def recipe_path(name: str) -> Path:
    """A recipe's file, given its path or, without a suffix, the name of one that comes with the package."""
    if Path(name).suffix or len(Path(name).parts) > 1:
        if not Path(name).is_file():
            raise UserError(f"{name}: no such recipe file; check the path")
        return Path(name)
    folder = _recipe_folder()
    found = {path.stem: path for path in folder.glob("*.yaml")}
    if name not in found:
        raise UserError(f"no recipe '{name}' in {folder}; {_near(name, found)}, or give the path of a .yaml file")
    return found[name]


def _recipe_folder() -> Path:
    package = Path(__file__).parent
    installed = package / "recipes"  # a wheel carries them inside the package; a checkout has them beside it
    return installed if installed.is_dir() else package.parent / "recipes"


def _read(path: Path) -> Any:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except Exception as error:  # see _parse
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    return {} if values is None else values  # an empty file is a recipe of defaults


def _parse(setting: str, sections: Iterable[str]) -> dict[str, Any]:
    """`a.b=1` -> {"a": {"b": 1}}; UserError for a section that this command does not read."""
    key, equals, text = setting.partition("=")
    if not equals or "." not in key:
        raise UserError(f"--set {setting}: expected SECTION.KEY=VALUE, such as split.quota=200")
    section = key.partition(".")[0].strip()
    if section in SECTIONS and section not in sections:
        raise UserError(
            f"--set {setting}: this command does not read {section}, only {', '.join(sections)}; leave it out"
        )
    try:
        value = yaml.safe_load(text)
    except Exception:  # PyYAML raises more than its own of a date, a number or a tag that is none
        raise UserError(f"--set {setting}: {key}: '{text}' is not a YAML value; put quotes around text") from None
    for name in reversed(key.strip().split(".")):
        value = {name: value}
    return value


def _check_sections(values: Any, sections: Mapping[str, type], where: str) -> dict[str, Any]:
    for name in _mapping(values, "", where):
        if name not in SECTIONS:
            raise UserError(f"{where}: unknown section '{name}'; {_near(name, SECTIONS)}")
    return {name: _check(sections[name], part, name, where) for name, part in values.items() if name in sections}


def _check(cls: type, values: Any, key: str, where: str) -> dict[str, Any]:
    """`values` in the types of the dataclass `cls`, nested as it is."""
    kinds = get_type_hints(cls, include_extras=True)
    checked = {}
    for name, value in _mapping(values, key, where).items():
        inner = f"{key}.{name}"
        if name not in kinds:
            raise UserError(f"{where}: unknown key '{inner}'; {_near(name, kinds)}")
        kind = kinds[name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            checked[name] = _check(kind, value, inner, where)
            continue
        try:
            checked[name] = _fit(kind, value)
        except ValueError as error:
            raise UserError(f"{where}: {inner} is {value!r}, expected {str(error) or _describe(kind)}") from None
    return checked


def _mapping(values: Any, key: str, where: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: {key or 'the recipe'} is {values!r}, expected keys and values")
    return values


def _fit(kind: Any, value: Any) -> Any:
    """`value` as the type `kind`, or ValueError, which names a bound that it is beyond.

    Nothing is converted but int to float and list to tuple.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _within(inner[1], _fit(inner[0], value))
    if origin in (Union, types.UnionType):
        return _fit_any(inner, value)
    if origin is Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in inner)
    elif origin is tuple:
        return _fit_tuple(inner[0], value)
    elif kind is float:
        return _fit_float(value)
    else:
        fits = type(value) is kind  # exactly: a bool is no int
    if not fits:
        raise ValueError
    return value


def _within(bounds: Bounds, number: float) -> float:
    if number < bounds.least:
        raise ValueError(f"{bounds.least} or more")
    if number > bounds.most:
        raise ValueError(f"{bounds.most} or less")
    return number


def _fit_any(kinds: Iterable[Any], value: Any) -> Any:
    said = ""
    for kind in kinds:
        try:
            return _fit(kind, value)
        except ValueError as error:
            said = said or str(error)
    raise ValueError(said)


def _fit_tuple(kind: Any, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError
    return tuple(_fit(kind, item) for item in value)


def _fit_float(value: Any) -> float:
    # PyYAML follows YAML 1.1, where 1e-4 without a point is text
    if type(value) not in (int, float, str):
        raise ValueError
    try:
        number = float(value)
    except (ValueError, OverflowError):  # the latter of a whole number
        raise ValueError from None
    if not math.isfinite(number):
        raise ValueError
    return number


def _describe(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _describe(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(_describe, inner))
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin is tuple:
        return f"a list of {_describe(inner[0])}"
    if kind is type(None):
        return "null"
    return {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}[kind]


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=3)
    return f"did you mean {', '.join(near)}?" if near else f"expected one of {', '.join(sorted(known))}"


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {key: _merge(below[key], above[key]) for key in below.keys() & above.keys() if isinstance(above[key], dict)}
    return {**below, **above, **both}


def _build(default: Any, values: Mapping[str, Any]) -> Any:
    changes = {
        name: _build(getattr(default, name), value) if isinstance(value, dict) else value
        for name, value in values.items()
    }
    return dataclasses.replace(default, **changes)
