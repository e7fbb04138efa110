"""Cells -> the layout of Table 1, the cells in detail, each run, and paired differences; Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, product
from statistics import fmean, stdev

from lawm_train import paper
from lawm_train.cells import (
    SHORT,
    Cell,
    Cells,
    Column,
    Place,
    beside_oracles,
    distinct,
    fraction,
    is_oracle,
    pairs,
    place_of,
    rank,
    title,
    told_apart,
)
from lawm_train.paired import interval
from lawm_train.record import PRIOR, Record, is_prior

KEPT = 0.85  # of its best evaluation: a run that ends below is marked
NOT_RUN = "not run"
NOT_ALL_RUN = "not all run"  # the rows of an average
OURS = "lawm"


def table_1(found: Cells) -> str:
    """The paper's rows and columns, then whatever else was run; return / 10, mean ± std over runs (paper's).

    A method that a place has with several settings has a column for each of them, and so a gap in its own.
    """
    found = beside_oracles(found)
    columns = _columns(found)
    head = ["environment", "dataset", "labeled", *(column.title for column in columns)]
    rows = []
    for place in _places(found):
        own = found.get(place, {})
        row = [_score(own.get(column, Cell(place, column))) if _asked(own, column) else "" for column in columns]
        rows.append([place.env, place.slice + told_apart(place, found), _labeled(place, own), *row])
    rows.append(["average", "", "", *(_average(found, column) for column in columns)])
    return markdown(head, rows)


def table_1_csv(found: Cells) -> str:
    """The cells of `table_1` one a row, return / 10; settings: their digest; state: finished, unfinished (no run is) or
    not run; updates: after which the last checkpoints were scored; difference: ours - the paper's. Empty fields: none.
    """
    found, text = beside_oracles(found), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = (
        "environment dataset digest label_frac method settings state labeled runs stopped updates last last_std best"
    )
    writer.writerow([*names.split(), "paper", "paper_std", "difference"])
    for place in _places(found):
        own = found.get(place, {})
        for column in _columns(found):
            cell = own.get(column, Cell(place, column))
            if cell.runs or cell.others or (cell.paper and _asked(own, column)):
                share = "" if place.label_frac is None else place.label_frac
                named = [cell.method, cell.settings if cell.runs else ""]
                writer.writerow([*place[:2], place.dataset, share, *named, *_numbers(cell)])
    return text.getvalue()


def cell_table(found: Cells) -> str:
    """By cell: raw returns of the last checkpoints, best-of beside them, what the paper has, and what a run cost."""
    head = [
        "environment", "dataset", "method", "labeled episodes", "runs", "updates", "return of the last checkpoint",
        "episodes", "best-of", f"below {KEPT} of best", "return / 10 minus paper's", "wall time of a run (min)",
        "peak memory (MB)",
    ]  # fmt: skip
    rows = []
    for cell in (cell for own in found.values() for cell in own.values()):
        place = [cell.place.env, cell.place.slice + told_apart(cell.place, found), cell.column.title]
        rows.append([*place, *_detail(cell)])
    return markdown(head, rows)


def run_table(records: Iterable[Record]) -> str:
    """One line a run, finished or not; those that end below KEPT of their best evaluation are marked."""
    records = list(records)
    head = [
        "run", "method", "label seed", "seed", "labeled", "state", "last", "episodes", "best-of (update)",
        "last / best", "settings", "code",
    ]  # fmt: skip
    rows = []
    for run in sorted(records, key=lambda run: (place_of(run)[:2], rank(run.method), run.seed)):
        drawn = "-" if run.label_seed is None else run.label_seed
        name = run.run + told_apart(place_of(run), map(place_of, records))
        place = [name, title(run.method), drawn, run.seed, run.labeled, run.state]
        scores = ["-"] * 4
        if run.evaluations:
            kept = f"{run.kept:.2f}" + (f" **below {KEPT}**" if run.kept < KEPT else "")
            best = f"{run.best.mean:.1f} ({run.best.update})"
            scores = [f"{run.last.mean:.1f}", str(len(run.last.returns)), best, kept]
        rows.append([*place, *scores, run.settings[:SHORT], run.code or "-"])
    return markdown(head, rows)


def evaluation_table(records: Iterable[Record]) -> str:
    """One line a method and settings: mean raw return over runs, after the updates that all were scored after."""
    rows = []
    scored = [run for run in records if run.evaluations]
    ordered = sorted(scored, key=lambda run: (place_of(run)[:2], rank(run.method), *_series(run)))
    for ((name, *_), _), own in groupby(ordered, key=lambda run: (_series(run), run.method)):
        by_update: dict[int, list[float]] = {}
        runs = list(own)
        for evaluation in (evaluation for run in runs for evaluation in run.evaluations):
            by_update.setdefault(evaluation.update, []).append(evaluation.mean)
        full = {update: fmean(means) for update, means in sorted(by_update.items()) if len(means) == len(runs)}
        counts, means = (", ".join(f"{value:.0f}" for value in side) for side in (full, full.values()))
        name += told_apart(place_of(runs[0]), map(place_of, scored))
        rows.append([name, title(runs[0].method), runs[0].settings[:SHORT], len(runs), counts, means])
    return markdown(["runs", "method", "settings", "count", "after updates", "mean return"], rows)


def kept_table(records: Iterable[Record]) -> str:
    """By method, how many finished runs end below KEPT of their best evaluation; prior policies are not trained."""
    runs = [run for run in records if run.state == "finished" and not is_prior(run.method)]
    methods = sorted({run.method for run in runs}, key=rank)
    own = [(title(method), [run for run in runs if run.method == method]) for method in methods]
    rows = [[name, len(of), sum(run.kept < KEPT for run in of)] for name, of in (*own, ("all", runs))]
    return markdown(["method", "finished runs", f"end below {KEPT} of their best"], rows) if runs else ""


def paired_table(found: Cells, ours: str = OURS) -> str:
    """Ours (a `Record.method`) - each other method over runs of the same label seed and training seed, raw returns, and
    of each method that has several settings the others - the first; empty without pairs. A prior policy is compared
    with the agent that it is the control of, alone.

    `updates` and `settings` tell both where they differ: only methods of one kind have the same budget.
    """
    head = [
        "environment", "dataset", "labeled", "difference", "updates", "settings", "pairs", "each", "mean",
        "95% t-interval", "excludes zero",
    ]  # fmt: skip
    rows = []
    for at, own in beside_oracles(found).items():
        for one, other in _compared(own, ours):
            differences = pairs(one.runs, other.runs)
            if not differences:
                continue
            around = interval(differences)
            low, high = around.mean - around.half, around.mean + around.half
            bounds = f"{low:.1f} .. {high:.1f}" if math.isfinite(around.half) else "one pair has none"
            sure = "yes" if around.excludes_zero else "no"
            each = ", ".join(f"{round(value)}" for value in differences)
            alike = [
                " - ".join(dict.fromkeys(pair))
                for pair in ((one.updates, other.updates), (one.settings, other.settings))
            ]
            place = [at.env, at.slice + told_apart(at, found), fraction(at), _difference(one, other), *alike]
            count = f"{len(differences)}{one.stopped}{other.stopped}"
            rows.append([*place, count, each, f"{around.mean:.1f}", bounds, sure])
    return markdown(head, rows) if rows else ""


def markdown(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [[str(field).replace("|", "\\|") for field in line] for line in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_std(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation, which one value has not."""
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _series(run: Record) -> tuple[str, ...]:
    """What runs share that differ by their seed alone."""
    return run.series, run.slice, run.dataset, run.settings, str(run.label_frac)


def _asked(own: Mapping[Column, Cell], column: Column) -> bool:
    """Whether a row of Table 1 has or wants a cell in this column; where it does not, the cell is blank.

    A column of certain settings is wanted only where they were run, one of a method alone where no settings of it are.
    """
    return column in own or not (column.settings or column.method in {there.method for there in own})


def _compared(own: Mapping[Column, Cell], ours: str) -> Iterator[tuple[Cell, Cell]]:
    """Pairs to compare: ours with each other method, of the same settings if there are such; then, of each method with
    several settings, the others with the first.
    """
    by_method: dict[str, list[Cell]] = {}
    for cell in own.values():
        if cell.runs:
            by_method.setdefault(cell.method, []).append(cell)
    against = [
        cells
        for method, cells in by_method.items()
        if method != ours and (not is_prior(method) or method == ours + PRIOR)
    ]
    for others, one in product(against, by_method.get(ours, [])):
        alike = [other for other in others if other.settings == one.settings]
        yield from ((one, other) for other in alike or others)
    yield from ((tried, first) for first, *others in by_method.values() for tried in others)


def _difference(one: Cell, other: Cell) -> str:
    """`LAWM - C-LAP`, or `LAWM [6f0b6c] - LAWM [b53a33] (eps05 - lawm)`: settings are known by what runs are called."""
    named = [cell.runs[0].series for cell in (one, other)]
    tried = one.method == other.method and named[0] != named[1]
    return f"{one.column.title} - {other.column.title}" + (f" ({' - '.join(named)})" if tried else "")


def _columns(found: Cells) -> list[Column]:
    columns = [*map(Column, paper.METHODS), *(column for own in found.values() for column in own)]
    return sorted(dict.fromkeys(columns), key=lambda column: column.rank)  # settings in the order given


def _places(found: Cells) -> list[Place]:
    """Every row of the paper, and every place of ours in its order."""
    there = {(place.env, place.slice) for place in found if place.label_frac == paper.LABEL_FRACTION}
    missing = [Place(*key, paper.LABEL_FRACTION, "") for key in paper.TABLE_1 if key not in there]
    order = {key: number for number, key in enumerate(paper.TABLE_1)}
    return sorted([*found, *missing], key=lambda place: (order.get(place[:2], len(order)), place[:2], str(place[2:])))


def _labeled(place: Place, own: Mapping[Column, Cell]) -> str:
    """`5% (18)`: the fraction, and the number of episodes that it is."""
    counts = distinct(run.labeled for cell in own.values() if not is_oracle(cell.method) for run in cell.runs)
    return fraction(place) + (f" ({counts})" if counts else "")


def _score(cell: Cell) -> str:
    paper_figure = f" ({cell.paper})" if cell.paper else ""
    if cell.runs:
        return mean_std([value / 10 for value in cell.last]) + cell.stopped + paper_figure
    return ("unfinished" + cell.stopped if cell.others else NOT_RUN) + paper_figure


def _average(found: Cells, column: Column) -> str:
    """Over the paper's twelve rows, once all of them were run on one dataset each."""
    rows = [own for place, own in found.items() if place.label_frac in (None, paper.LABEL_FRACTION)]
    runs = [own[column] for own in rows if column in own and own[column].paper and own[column].runs]
    printed = f" ({paper.AVERAGE[column.method]})" if column.method in paper.AVERAGE else ""
    if sorted(cell.place[:2] for cell in runs) != sorted(paper.TABLE_1):
        return (NOT_ALL_RUN if any(column in own for own in rows) else NOT_RUN) + printed
    return f"{fmean(fmean(cell.last) / 10 for cell in runs):.1f}{printed}"


def _numbers(cell: Cell) -> list[object]:
    """The columns of `table_1_csv` from `state` on."""
    known = [cell.paper.mean, cell.paper.std] if cell.paper else ["", ""]
    if not cell.runs:
        return ["unfinished" if cell.others else NOT_RUN, "", 0, cell.lost, "", "", "", "", *known, ""]
    last = [value / 10 for value in cell.last]
    std = f"{stdev(last):.2f}" if len(last) > 1 else ""
    difference = "" if cell.difference is None else f"{cell.difference:.2f}"
    ran = ["finished", cell.labeled, len(last), cell.lost, cell.updates]
    return [*ran, f"{fmean(last):.2f}", std, f"{fmean(cell.best) / 10:.2f}", *known, difference]


def _detail(cell: Cell) -> list[str]:
    """The columns of `cell_table` from `labeled episodes` on."""
    count = str(len(cell.runs)) + (f" (+ {len(cell.others)} not finished)" if cell.others else "") + cell.stopped
    if not cell.runs:
        return ["", count, *[""] * 8]
    episodes = distinct(len(run.last.returns) for run in cell.runs)
    lost = sum(run.kept < KEPT for run in cell.runs)
    difference = "" if cell.difference is None else f"{cell.difference:+.1f}"
    score = [mean_std(cell.last), episodes, mean_std(cell.best), f"{lost} of {len(cell.runs)}"]
    return [cell.labeled, count, cell.updates, *score, difference, *_cost(cell)]


def _cost(cell: Cell) -> list[str]:
    """Wall time and peak memory of the processes that trained the runs; a prior policy is trained with its agent."""
    measured = [run for run in cell.runs if run.seconds is not None and not is_prior(run.method)]
    if not measured:
        return ["", ""]
    beside = distinct(run.beside or 1 for run in measured)
    minutes = fmean(run.seconds or 0.0 for run in measured) / 60
    memory = max(run.memory_mb or 0 for run in measured)
    return [f"{minutes:.1f} ({beside} side by side)", f"{memory}"]
