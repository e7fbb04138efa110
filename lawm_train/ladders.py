"""How ladders of diagnostics are told: a line a rung, a table, a picture of every figure beside its bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lawm_data.figures import png
from lawm_train import rungs, tables
from lawm_train.rungs import Rung

FILE = "diagnostics.json"  # in a run folder
Ladders = dict[str, list[Rung]]
"""By run."""


def as_text(path: Path, walked: Iterable[Rung]) -> str:
    """One line a rung: passed or FAILED, figures with their bounds, verdict."""
    lines = [str(path)]
    for rung in walked:
        figures = _figures(rung)
        told = {True: "passed", False: "FAILED", None: "  -   "}[rung.passed]
        lines.append(f"  {told}  {rung.name}: " + (f"{figures}. " if figures else "") + rung.verdict)
    return "\n".join(lines)


def as_table(ladders: Ladders) -> str:
    """One line a rung of each run that was diagnosed; empty when none was."""
    told = {True: "passed", False: "**failed**", None: "-"}
    rows = [
        [run, rung.name, told[rung.passed], _figures(rung), rung.verdict]
        for run, own in ladders.items()
        for rung in own
    ]
    return tables.markdown(["run", "rung", "", "figures (bounds)", "verdict"], rows) if rows else ""


def draw(ladders: Mapping[str, Sequence[Rung]]) -> bytes:
    """A PNG: of each run, every figure that decides, as a multiple of its bound; failures are hatched."""
    from matplotlib.figure import Figure

    rows: dict[str, int] = {}
    page = Figure(figsize=(9, 6 + len(ladders)), layout="constrained")
    axes = page.subplots()
    height = 0.8 / len(ladders)
    for k, (run, walked) in enumerate(ladders.items()):
        decisive = [(rung, name) for rung in walked for name in rung.bounds]
        for rung, name in decisive:
            place = rows.setdefault(f"{rung.name}: {name}", len(rows)) + k * height
            limit, value = next(bound for bound in rung.bounds[name] if bound is not None), rung.figures[name]
            share = float(np.clip(1 + (value - limit) / (abs(limit) or 1.0), -1, 4))
            axes.barh(place, share, height, color=f"C{k}", hatch=None if rungs.fits(rung, name) else "///")
            axes.text(share, place, f" {value:.3g}{_bound(rung, name)}", va="center", fontsize=7)
        axes.barh(0, 0, color=f"C{k}", label=run)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks([row + 0.4 - height / 2 for row in rows.values()], list(rows), fontsize=8)
    axes.set(xlabel="multiple of the bound (cut off at -1 and 4); hatched: on its wrong side", xlim=(-1, 5))
    axes.invert_yaxis()
    page.legend(loc="outside lower center", fontsize=8)
    return png(page)


def _figures(rung: Rung) -> str:
    """Each with its bound, where it has one."""
    return ", ".join(f"{name} {value:.3g}{_bound(rung, name)}" for name, value in rung.figures.items())


def _bound(rung: Rung, name: str) -> str:
    pair = zip("><", rung.bounds.get(name, ()), strict=False)
    words = [f"{sign} {limit:.3g}" for sign, limit in pair if limit is not None]
    return f" ({', '.join(words)})" if words else ""
