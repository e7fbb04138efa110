"""What a workspace holds: the raw history by (env, source, seed), and the return statistics of every slice."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lawm_data import files
from lawm_data.errors import UserError
from lawm_data.store import Row, Store

RAW_COLUMNS = ("env", "source", "seed", "episodes", "with_actions", "steps", "mean", "min", "max")
SLICE_COLUMNS = ("env", "slice", "episodes", "labeled", "mean", "std", "min", "p25", "median", "p75", "max", "complete")

Found = dict[str, list[dict[str, Any]]]


def collect_stats(root: Path) -> Found:
    """The tables `raw` and `slices` of a workspace, as JSON-able rows; returns are sums of raw rewards."""
    store = Store(Path(root) / "raw")
    raw = [group for env in store.envs() for group in _raw_groups(store.rows(env))]
    manifests = sorted((Path(root) / "dataset").glob("*/lawm.json"))
    return {"raw": raw, "slices": [row for path in manifests for row in _slice_rows(path)]}


def as_text(found: Found) -> str:
    """Both tables, aligned; where one is empty, the command that fills it."""
    raw = _table(found["raw"], RAW_COLUMNS) or "no raw history; run: lawm-data collect, or lawm-data import"
    slices = _table(found["slices"], SLICE_COLUMNS) or "no slices; run: lawm-data split"
    return f"{raw}\n\n{slices}"


def _raw_groups(rows: Iterable[Row]) -> Iterable[dict[str, Any]]:
    for (env, source, seed), group in groupby(rows, lambda row: (row.env, row.source, row.seed)):
        members = list(group)
        returns = np.array([row.episode_return for row in members])
        yield {
            "env": env,
            "source": source,
            "seed": seed,
            "episodes": len(members),
            "with_actions": sum(row.has_action for row in members),
            "steps": sum(row.length for row in members),
            "mean": float(returns.mean()),
            "min": float(returns.min()),
            "max": float(returns.max()),
        }


def _slice_rows(path: Path) -> Iterable[dict[str, Any]]:
    manifest = files.read_json(path)
    try:
        for name, one in manifest["slices"].items():
            known = {"env": manifest["env"], "slice": name, "complete": one["complete"], **one["statistics"]}
            yield {key: known[key] for key in SLICE_COLUMNS}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: no manifest of a dataset ({error}); run lawm-data split again") from error


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    if not rows:
        return ""
    cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    return "\n".join(_line(line, widths, rows[0], columns) for line in cells)


def _line(cells: Iterable[str], widths: list[int], example: dict[str, Any], columns: tuple[str, ...]) -> str:
    """Names to the left, numbers to the right."""
    aligned = (
        cell.ljust(width) if isinstance(example[column], str) else cell.rjust(width)
        for cell, width, column in zip(cells, widths, columns, strict=True)
    )
    return "  ".join(aligned).rstrip()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
