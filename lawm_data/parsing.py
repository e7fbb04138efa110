"""Parsed JSON -> dataclasses, every type checked."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from lawm_data.errors import UserError

LARGEST = 2**63 - 1  # whole number that other readers of JSON, and numpy, take
DEEPEST = 16  # levels of what any JSON may be; deeper ones exceed the stack where they are copied


def parse(cls: type, value: Any, where: str, cure: str = "run split again") -> Any:
    """A dataclass from parsed JSON; UserError names `where`, the key that is missing, unknown or wrong, the cure.

    A field with a default may be missing.
    """
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object; restore the file, or {cure}")
    check_types(cls, value, where, cure)
    return cls(**value)


def check_types(cls: Any, value: dict[str, Any], where: str, cure: str = "run split again") -> None:
    """Raise UserError as `parse` does; the parts of a field that is a dataclass are left to it."""
    hints = get_type_hints(cls)
    optional = {one.name for one in fields(cls) if (one.default, one.default_factory) != (MISSING, MISSING)}
    for key in sorted((hints.keys() - optional - value.keys()) | (value.keys() - hints.keys())):
        raise UserError(f"{where}: {'missing' if key in hints else 'unknown'} key '{key:.60}'; {cure}")
    for key, hint in hints.items():
        if key in value and not _matches(value[key], hint):
            expected = getattr(hint, "__name__", str(hint)) if not get_args(hint) else str(hint)
            raise UserError(f"{where}: '{key}' is {value[key]!r:.60}, expected {expected}; {cure}")


def _matches(value: Any, hint: Any) -> bool:
    """Whether parsed JSON fits a type; a dataclass is an object here and checked in its turn."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return _is_plain(value, DEEPEST)
    if origin is UnionType:
        return any(_matches(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(_matches(item, args[0]) for item in value)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(args) and all(map(_matches, value, args))
    if origin is dict:
        return isinstance(value, dict) and all(_matches(item, args[1]) for item in value.values())
    if is_dataclass(hint):
        return isinstance(value, dict)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool) and abs(value) <= LARGEST
    return isinstance(value, hint)


def _is_plain(value: Any, levels: int) -> bool:
    """Whether it is finite and not nested deeper than so many levels, so that it can be written as JSON again."""
    if isinstance(value, dict | list):
        return levels > 0 and all(
            _is_plain(one, levels - 1) for one in (value.values() if isinstance(value, dict) else value)
        )
    return not isinstance(value, float) or math.isfinite(value)
