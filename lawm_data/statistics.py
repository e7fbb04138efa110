"""What a workspace holds: the raw history by (env, source, seed), and the returns of the slices (Table 4, Figure 3)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lawm_data import card, files, shards, table4
from lawm_data.errors import UserError
from lawm_data.manifest import Manifest, folders
from lawm_data.slicing import TRAILING
from lawm_data.store import Row, Store

RAW_COLUMNS = ("env", "source", "seed", "episodes", "with_actions", "steps", "mean", "min", "max", "last20")
SLICE_COLUMNS = ("env", "slice", "episodes", "labeled", *table4.COLUMNS, "complete")
DIFFERENCE_COLUMNS = ("env", "slice", *table4.COLUMNS)

Found = dict[str, list[dict[str, Any]]]


def collect_stats(root: Path) -> Found:
    """The tables `raw` and `slices` of a workspace, as JSON-able rows; returns are sums of raw rewards.

    `table4` of a slice is its row in the paper's Table 4, None where the paper has no such slice.
    """
    store = Store(root / "raw")
    raw = [group for env in store.envs() for group in _raw_groups(store.rows(env))]
    return {"raw": raw, "slices": [row for path in folders(root / "dataset") for row in _slice_rows(path)]}


def as_text(found: Found, root: Path) -> str:
    """Both tables, aligned; where one is empty, the command that fills it."""
    collect, recorded, split = (files.typed(f"lawm-data {step}", root) for step in ("collect", "import", "split"))
    raw = _table(found["raw"], RAW_COLUMNS) or f"no raw history; run: {collect}, or {recorded}"
    slices = _table(found["slices"], SLICE_COLUMNS) or f"no slices; run: {split}"
    known = [row for row in found["slices"] if row["table4"]]
    differences = [{"env": row["env"], "slice": row["slice"], **table4.difference(row, row["table4"])} for row in known]
    compared = f"\n\nminus the paper's Table 4\n{_table(differences, DIFFERENCE_COLUMNS, '+')}" if known else ""
    return f"{raw}\n\n{slices}{compared}"


def draw(root: Path, path: Path) -> None:
    """Write Figure 3 as PNG: histograms of the returns, a row for each dataset of the workspace."""
    found = folders(root / "dataset")
    if not found:
        raise UserError(f"{root / 'dataset'}: no dataset there; run `{files.typed('lawm-data split', root)}` first")
    files.write_bytes(path, card.figure(*map(_returns, found)))


def _returns(folder: Path) -> dict[str, card.Returns]:
    """The returns of each slice, of all trajectories and of the labeled."""
    manifest = Manifest.load(folder)
    found: dict[str, card.Returns] = {}
    for name, entry in manifest.slices.items():
        own: dict[str, list[float]] = {"labeled": [], "unlabeled": []}
        for split, values in own.items():
            for path in entry.splits.get(split, []):
                shards.check_file(folder / path, manifest.files[path])
                values += shards.returns(folder, path, manifest)
        found[f"{manifest.env} {name}"] = (own["labeled"] + own["unlabeled"], own["labeled"])
    return found


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
            "last20": float(returns[-TRAILING:].mean()),
        }


def _slice_rows(folder: Path) -> Iterable[dict[str, Any]]:
    manifest = Manifest.load(folder)
    for name, entry in manifest.slices.items():
        known = {"env": manifest.env, "slice": name, "complete": entry.complete, **entry.statistics}
        yield {key: known[key] for key in SLICE_COLUMNS} | {"table4": table4.paper(manifest.env, name)}


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...], sign: str = "") -> str:
    if not rows:
        return ""
    cells = [columns, *([_cell(row[column], sign) for column in columns] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    return "\n".join(_line(line, widths, rows[0], columns) for line in cells)


def _line(cells: Iterable[str], widths: list[int], example: dict[str, Any], columns: tuple[str, ...]) -> str:
    """Names to the left, numbers to the right."""
    aligned = (
        cell.ljust(width) if isinstance(example[column], str) else cell.rjust(width)
        for cell, width, column in zip(cells, widths, columns, strict=True)
    )
    return "  ".join(aligned).rstrip()


def _cell(value: Any, sign: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:{sign}.1f}" if isinstance(value, float) else str(value)
