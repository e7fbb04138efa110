"""Returns against control steps, one line a collector: a picture, and the numbers in it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from lawm_data import files
from lawm_data.envs import Spec
from lawm_data.figures import png
from lawm_data.slicing import TRAILING
from lawm_data.store import Row


def write(rows: Sequence[Row], spec: Spec, path: Path) -> None:
    """Write `path`, a PNG, and a CSV beside it. Rows of the env of `spec`, sorted."""
    lines = ["env,source,seed,order,control_steps,return"]
    for row in rows:
        steps = _control_steps(row, spec)
        lines.append(f"{row.env},{row.source},{row.seed},{row.order},{steps},{row.episode_return:.3f}")
    files.write_text(path.with_suffix(".csv"), "\n".join(lines) + "\n")
    files.write_bytes(path, draw(rows, spec))


def draw(rows: Sequence[Row], spec: Spec) -> bytes:
    """A PNG: each episode's return as a dot, the moving mean as a line."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7, 4), layout="constrained")
    axes = page.subplots()
    for k, ((source, seed), group) in enumerate(groupby(rows, lambda row: (row.source, row.seed))):
        own = list(group)
        steps = np.cumsum([_control_steps(row, spec) for row in own])
        returns = np.array([row.episode_return for row in own])
        axes.plot(steps, returns, ".", markersize=2, color=f"C{k}", alpha=0.4)
        axes.plot(steps, _moving_mean(returns), color=f"C{k}", label=f"{source}, seed {seed}")
    axes.set(title=rows[0].env, xlabel="control steps", ylabel="return")
    axes.legend(frameon=False)
    return png(page)


def _control_steps(row: Row, spec: Spec) -> int:
    """The last agent step before the time limit may be shorter than the rest."""
    return min(row.length * spec.repeat, spec.control_steps)


def _moving_mean(values: np.ndarray) -> np.ndarray:
    """Over the last TRAILING values, or as many as there are."""
    return np.array([values[max(end - TRAILING, 0) : end].mean() for end in range(1, len(values) + 1)])
