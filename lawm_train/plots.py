"""Records -> the pictures of a report: returns while training, and returns by how many episodes are labeled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from lawm_data.figures import png
from lawm_train import cells, paper
from lawm_train.cells import Cell, Column
from lawm_train.record import ORACLE, PRIOR, Record, is_prior

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def curves(records: Sequence[Record], reference: float | None = None) -> bytes:
    """A PNG of the returns while training, a panel for each dataset, slice and fraction of labels.

    One curve a method, which has one color everywhere, its oracle a lighter one; its prior policy, and what has one
    evaluation only, is dotted.
    """
    from matplotlib.figure import Figure

    panels = cells.beside_oracles(cells.of(records))
    colors = _colors(column for own in panels.values() for column in own)
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    page = Figure(figsize=(max(7, 5 * columns), 4.2 * rows), layout="constrained")
    grid = page.subplots(rows, columns, squeeze=False).flat
    for (place, own), axes in zip(panels.items(), grid, strict=False):
        for column, cell in own.items():
            _curve(axes, cell, colors[column])
        if reference is not None:
            axes.axhline(reference, color="gray", linestyle="--", label="data mean")
        dataset = f"{place.env} {place.slice}{cells.told_apart(place, panels)}"
        axes.set_title(f"{dataset}, {cells.fraction(place)} labeled", fontsize=10)
        axes.set(xlabel="share of the training (%)", ylabel="return, mean and range over seeds")
        if axes.lines:
            axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    for axes in grid:  # what is left of the last row
        axes.set_axis_off()
    return png(page)


def _curve(axes: Axes, cell: Cell, color: Any) -> None:
    """The evaluations of all runs of a cell, by share of the training: methods count their updates differently."""
    runs = [*cell.runs, *cell.others]
    own = [evaluation for run in runs for evaluation in run.evaluations]
    updates = sorted({evaluation.update for evaluation in own})
    if not updates:
        return
    at = [[evaluation.mean for evaluation in own if evaluation.update == update] for update in updates]
    label = cell.column.title
    if not cell.runs:
        label += f", not finished: its first {updates[-1]} updates"
    elif cell.others:
        label += ", not all finished"
    if len(updates) == 1:
        axes.axhline(fmean(at[0]), color=color, linestyle=":", label=label)
        return
    share = [100 * update / updates[-1] for update in updates]
    line = ":" if is_prior(cell.method) else "-"
    axes.plot(share, list(map(fmean, at)), line, color=color, marker=".", label=label)
    axes.fill_between(share, list(map(min, at)), list(map(max, at)), color=color, alpha=0.2)


def _colors(columns: Iterable[Column]) -> dict[Column, Any]:
    """Those of the paper's methods come first, so that they are the same in every picture; then several settings."""
    from matplotlib import colormaps

    wanted = {*columns}
    trained = {
        column: column._replace(method=column.method.replace(PRIOR, "").replace(ORACLE, ""))
        for column in wanted | {*map(Column, paper.METHODS)}
    }
    order = sorted({*trained.values()}, key=lambda column: (column.settings, column.rank))
    pairs = colormaps["tab20"]  # a color and a lighter one, ten times
    return {c: pairs(order.index(trained[c]) % 10 * 2 + cells.is_oracle(c.method)) for c in wanted}


class Varied(NamedTuple):
    """What is the same along a line of `fractions`."""

    env: str
    slice: str
    dataset: str
    settings: str
    method: str


def by_fraction(records: Sequence[Record]) -> dict[Varied, dict[float, list[float]]]:
    """The last returns by fraction of labels, of what was run with several; an oracle has 1."""
    lines: dict[Varied, dict[float, list[float]]] = {}
    for place, own in cells.of(records).items():
        for cell in own.values():
            share = 1.0 if cells.is_oracle(cell.method) else place.label_frac
            if cell.runs and share is not None and not is_prior(cell.method):
                method = cell.method.replace(ORACLE, "")
                key = Varied(place.env, place.slice, place.dataset, cell.runs[0].settings, method)
                lines.setdefault(key, {})[share] = cell.last
    return {key: dict(sorted(line.items())) for key, line in lines.items() if len(line) > 1}


def fractions(records: Sequence[Record]) -> bytes | None:
    """A PNG of the last returns by fraction of labels, one line a method of `by_fraction`; None where it has none."""
    from matplotlib.figure import Figure

    lines, places = by_fraction(records), set(map(cells.place_of, records))
    if not lines:
        return None
    page = Figure(figsize=(7, 4.2), layout="constrained")
    axes = page.subplots()
    for color, (key, line) in enumerate(lines.items()):
        shares, returns = [100 * share for share in line], list(line.values())
        axes.plot(shares, list(map(fmean, returns)), color=f"C{color}", marker=".")
        axes.fill_between(shares, list(map(min, returns)), list(map(max, returns)), color=f"C{color}", alpha=0.2)
        several = sum(other._replace(settings=key.settings) == key for other in lines) > 1
        settings = f" [{key.settings[: cells.SHORT]}]" if several else ""
        dataset = cells.told_apart(cells.Place(key.env, key.slice, None, key.dataset), places)
        axes.lines[-1].set_label(f"{cells.title(key.method)}{settings} ({key.env} {key.slice}{dataset})")
    ticks = sorted({100 * share for line in lines.values() for share in line})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labeled episodes (%)", ylabel="last return, mean and range over runs")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return png(page)
