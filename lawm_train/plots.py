"""Records -> the pictures of a report: returns while training, and returns by how many episodes are labeled."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from lawm_data.figures import png
from lawm_train import cells
from lawm_train.evidence import PRIOR, Record


def curves(records: Sequence[Record], reference: float | None = None) -> bytes:
    """A PNG of the returns while training, one curve a cell."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7, 4.2), layout="constrained")
    axes = page.subplots()
    places = cells.of(records).items()
    lines = [(place, method, [*cell.runs, *cell.others]) for place, own in places for method, cell in own.items()]
    for color, (place, method, runs) in enumerate(lines):
        own = [evaluation for run in runs for evaluation in run.evaluations]
        updates = sorted({evaluation.update for evaluation in own})
        at = [[evaluation.mean for evaluation in own if evaluation.update == update] for update in updates]
        label = f"{cells.title(method)} ({place.env} {place.slice}, {cells.fraction(place)})"
        label += "" if all(run.state == "finished" for run in runs) else ", not finished"
        if len(updates) == 1:
            axes.axhline(fmean(at[0]), color=f"C{color}", linestyle=":", label=label)
            continue
        share = [100 * update / updates[-1] for update in updates]  # methods count their updates differently
        axes.plot(share, list(map(fmean, at)), color=f"C{color}", marker=".", label=label)
        axes.fill_between(share, list(map(min, at)), list(map(max, at)), color=f"C{color}", alpha=0.2)
    if reference is not None:
        axes.axhline(reference, color="gray", linestyle="--", label="data mean")
    axes.set(xlabel="share of the training (%)", ylabel="return, mean and range over seeds")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return png(page)


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
        for name, cell in own.items():
            share = 1.0 if cells.is_oracle(name) else place.label_frac
            if cell.runs and share is not None and not name.endswith(PRIOR):
                method = name.replace(cells.ORACLE, "")
                key = Varied(place.env, place.slice, place.dataset, cell.runs[0].settings, method)
                lines.setdefault(key, {})[share] = cell.last
    return {key: dict(sorted(line.items())) for key, line in lines.items() if len(line) > 1}


def fractions(records: Sequence[Record]) -> bytes | None:
    """A PNG of the last returns by fraction of labels, one line a method of `by_fraction`; None where it has none."""
    from matplotlib.figure import Figure

    lines = by_fraction(records)
    if not lines:
        return None
    page = Figure(figsize=(7, 4.2), layout="constrained")
    axes = page.subplots()
    for color, (key, line) in enumerate(lines.items()):
        shares, returns = [100 * share for share in line], list(line.values())
        axes.plot(shares, list(map(fmean, returns)), color=f"C{color}", marker=".")
        axes.fill_between(shares, list(map(min, returns)), list(map(max, returns)), color=f"C{color}", alpha=0.2)
        axes.lines[-1].set_label(f"{cells.title(key.method)} ({key.env} {key.slice})")
    ticks = sorted({100 * share for line in lines.values() for share in line})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labeled episodes (%)", ylabel="last return, mean and range over runs")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return png(page)
