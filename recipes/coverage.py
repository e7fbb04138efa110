"""How much of the observations' space each collector of an env has seen, at equal steps.

    python recipes/coverage.py WORKSPACE ENV [--out FOLDER]

For the first steps of every (source, seed) in the raw store, as many as the shortest has:
- entropy: mean over observation dimensions of the entropy (bits) of a histogram of 50 bins between the extremes that
  any of the collectors reached; 5.64 would be uniform.
- volume: log10 of the volume of the covariance ellipsoid, sqrt(det), in units of the pooled standard deviations.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import click
import numpy as np

from lawm_data import files
from lawm_data.figures import png
from lawm_data.store import Row, Store

BINS = 50


@click.command()
@click.argument("workspace", type=click.Path(path_type=Path, exists=True))
@click.argument("env")
@click.option("--out", type=click.Path(path_type=Path), default=".", help="folder for coverage.csv and coverage.png")
def main(workspace: Path, env: str, out: Path) -> None:
    """Print and plot the coverage of every collector of ENV in WORKSPACE."""
    store = Store(workspace / "raw")
    groups = {
        f"{source}, seed {seed}": list(rows)
        for (source, seed), rows in groupby(store.rows(env), lambda row: (row.source, row.seed))
    }
    episodes = min(len(rows) for rows in groups.values())
    seen = {name: observations(store, rows[:episodes]) for name, rows in groups.items()}
    pooled = np.concatenate(list(seen.values()))
    center, scale = pooled.mean(0), pooled.std(0).clip(1e-6)
    edges = [np.linspace(low, high, BINS + 1) for low, high in zip(pooled.min(0), pooled.max(0), strict=True)]
    checkpoints = [count for count in (10, 25, 50, 100, 150, 200, 400, 800) if count < episodes] + [episodes]
    per_episode = len(pooled) // (len(seen) * episodes)
    lines = ["collector,episodes,entropy_bits,log10_volume"]
    for name, values in seen.items():
        for count in checkpoints:
            part = values[: count * per_episode]
            line = f"{name},{count},{entropy(part, edges):.3f},{volume((part - center) / scale):.2f}"
            lines.append(line.replace(", seed", " seed"))
    files.write_text(out / "coverage.csv", "\n".join(lines) + "\n")
    files.write_bytes(out / "coverage.png", plot(env, lines[1:]))
    click.echo("\n".join(lines))


def observations(store: Store, rows: Iterable[Row]) -> np.ndarray:
    """[steps, O]; the last observation of an episode is left out, so that all episodes of a task count the same."""
    return np.concatenate([episode.observation[:-1] for episode in store.read(rows)]).astype(np.float64)


def entropy(values: np.ndarray, edges: list[np.ndarray]) -> float:
    """Mean over dimensions of the histogram's entropy in bits."""
    found = []
    for column, bins in zip(values.T, edges, strict=True):
        share = np.histogram(column, bins)[0] / len(column)
        found.append(-(share[share > 0] * np.log2(share[share > 0])).sum())
    return float(np.mean(found))


def volume(values: np.ndarray) -> float:
    """log10 of sqrt(det(covariance))."""
    return float(np.linalg.slogdet(np.cov(values.T) + 1e-9 * np.eye(values.shape[1]))[1] / 2 / np.log(10))


def plot(env: str, lines: list[str]) -> bytes:
    from matplotlib.figure import Figure

    page = Figure(figsize=(10, 4), layout="constrained")
    panels = page.subplots(1, 2)
    table = [line.split(",") for line in lines]
    for name, own in groupby(table, lambda line: line[0]):
        points = list(own)
        episodes = [int(line[1]) for line in points]
        for axes, column in zip(panels, (2, 3), strict=True):
            axes.plot(episodes, [float(line[column]) for line in points], marker="o", label=name)
    for axes, title in zip(panels, ("mean entropy of an observation (bits)", "log10 volume"), strict=True):
        axes.set(title=f"{env}: {title}", xlabel="episodes", xscale="log")
        axes.legend(frameon=False)
    return png(page)


if __name__ == "__main__":
    main()
