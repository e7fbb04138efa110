"""Records -> cells. A place is a row of Table 1: one slice of one dataset with one fraction of labels. A cell is a
method in a place; it counts the runs that are finished, by their last checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from statistics import fmean
from typing import NamedTuple

from lawm_data.errors import UserError
from lawm_train import paper
from lawm_train.record import ORACLE, STOPPED, Record

SHORT = 6  # digits of a digest that tell settings, or datasets, apart in a table
NAMES = {"lawm": "LAWM", "clap": "C-LAP", "td3bc": "TD3+BC", "bc": "BC"}


class Place(NamedTuple):
    env: str
    slice: str
    label_frac: float | None  # None: every episode that has actions keeps them
    dataset: str  # digest; empty in a row of the paper that no run is of


class Column(NamedTuple):
    """A method, and the digest of its settings in a place that has it with several."""

    method: str  # as in `Record`
    settings: str = ""

    @property
    def title(self) -> str:
        """`LAWM`, or `LAWM [6f0b6c]`"""
        return title(self.method) + (f" [{self.settings}]" if self.settings else "")

    @property
    def rank(self) -> tuple[int, str]:
        """The same for all settings of a method."""
        return rank(self.method)


class Cell(NamedTuple):
    """The finished runs of a column in a place, all of the same settings, and those that are not finished."""

    place: Place
    column: Column
    runs: Sequence[Record] = ()
    others: Sequence[Record] = ()

    @property
    def method(self) -> str:
        return self.column.method

    @property
    def last(self) -> list[float]:
        return [run.last.mean for run in self.runs]

    @property
    def best(self) -> list[float]:
        return [run.best.mean for run in self.runs]

    @property
    def lost(self) -> int:
        """How many seeds diverged; they are in no mean, which flatters the method."""
        return sum(run.state == STOPPED for run in self.others)

    @property
    def stopped(self) -> str:
        """` (1 stopped)`, or nothing."""
        return f" ({self.lost} stopped)" if self.lost else ""

    @property
    def labeled(self) -> str:
        """How many episodes, each number once."""
        return distinct(run.labeled for run in self.runs)

    @property
    def updates(self) -> str:
        """After how many the last checkpoints were scored, each number once."""
        return distinct(run.last.update for run in self.runs)

    @property
    def settings(self) -> str:
        """Their digest, of which all finished runs of a cell have the same."""
        return self.runs[0].settings[:SHORT]

    @property
    def difference(self) -> float | None:
        """Return / 10 minus the paper's, where both are there."""
        return fmean(self.last) / 10 - self.paper.mean if self.runs and self.paper else None

    @property
    def paper(self) -> paper.Figure | None:
        """The paper's figure, where it has one for this fraction of labels."""
        of_table = is_oracle(self.method) or self.place.label_frac == paper.LABEL_FRACTION
        return paper.TABLE_1.get((self.place.env, self.place.slice), {}).get(self.method) if of_table else None


Cells = dict[Place, dict[Column, Cell]]


def of(records: Sequence[Record]) -> Cells:
    """By place and method, both in order. UserError where runs of a cell had the same seeds.

    A method that a slice of a dataset has with several settings has a cell for each: first the settings of the runs
    that are called as by default, then as they were given.
    """
    by_slice: dict[tuple[Place, str], list[Record]] = {}
    for record in records:
        by_slice.setdefault((place_of(record)._replace(label_frac=None), record.method), []).append(record)
    grouped: dict[Place, dict[Column, list[Record]]] = {}
    for (_, method), alike in by_slice.items():
        by_settings = _by_settings(alike)
        for settings, runs in by_settings.items():
            column = Column(method, settings[:SHORT] if len(by_settings) > 1 else "")
            for run in runs:
                grouped.setdefault(place_of(run), {}).setdefault(column, []).append(run)
    return _in_order(
        {place: {column: _cell(place, column, runs) for column, runs in own.items()} for place, own in grouped.items()}
    )


def _cell(place: Place, column: Column, runs: Sequence[Record]) -> Cell:
    _check_distinct(runs)
    ordered = sorted(runs, key=lambda run: (run.seed, run.run))
    finished = [run for run in ordered if run.state == "finished"]
    return Cell(place, column, finished, [run for run in ordered if run.state != "finished"])


def is_oracle(method: str) -> bool:
    return ORACLE in method


def title(method: str) -> str:
    """`idm-td3bc oracle` -> `IDM-TD3+BC oracle`"""
    name, *rest = method.split()
    parts = [NAMES.get(part, part.upper()) for part in name.split("-")]
    return " ".join(["-".join(parts), *rest])


def fraction(place: Place) -> str:
    """`5%`, or `all`"""
    return "all" if place.label_frac is None else f"{100 * place.label_frac:g}%"


def beside_oracles(found: Cells) -> Cells:
    """With each oracle, which draws no labels, in every place of its slice and dataset where others were run."""
    spread: Cells = {place: {} for place, own in found.items() if not all(is_oracle(column.method) for column in own)}
    for place, own in found.items():
        everywhere = [other for other in spread if other._replace(label_frac=place.label_frac) == place]
        for column, cell in own.items():
            for at in everywhere if everywhere and is_oracle(column.method) else [place]:
                spread.setdefault(at, {})[column] = cell._replace(place=at)
    return _in_order(spread)


def _in_order(found: Cells) -> Cells:
    ordered = sorted(found.items(), key=lambda item: (item[0][:2], str(item[0][2:])))  # str: a fraction may be None
    return {place: dict(sorted(own.items(), key=lambda item: item[0].rank)) for place, own in ordered}


def _check_distinct(runs: Sequence[Record]) -> None:
    """UserError where two runs have the same seeds: one training would count twice."""
    seen: dict[tuple[int, int | None], Record] = {}
    for run in runs:
        other = seen.setdefault((run.seed, run.label_seed), run)
        if other is not run:
            raise UserError(f"{other.run} and {run.run}: {title(run.method)} with the same seeds; report one of them")


def _by_settings(runs: Sequence[Record]) -> dict[str, list[Record]]:
    """Runs of a method by the digest of their settings.

    A seed that was stopped is not continued when others get more updates; it stays with those of its name.
    """
    found: dict[str, list[Record]] = {}
    for run in sorted(runs, key=lambda run: (run.state == STOPPED, not run.has_default_name)):
        settings = run.settings
        if run.state == STOPPED and settings not in found:
            settings = next((own for own, others in found.items() if _is_one_of(run, others)), settings)
        found.setdefault(settings, []).append(run)
    return found


def _is_one_of(run: Record, others: Sequence[Record]) -> bool:
    """Whether a run is called as these runs are, but for its seed, which none of them has."""
    names = {other.run for other in others}
    return run.series in {other.series for other in others} and run.run not in names


def pairs(ours: Iterable[Record], theirs: Iterable[Record]) -> list[float]:
    """Differences of the last returns, of runs with the same training seed and labels.

    An oracle draws no labels: against it the runs of one training seed, each with labels of its own, count as one.
    """
    found: dict[tuple[int, int | None], list[float]] = {}
    for a, b in product(ours, theirs):
        drawn = {a.label_seed, b.label_seed} - {None}
        if a.seed == b.seed and len(drawn) <= 1:
            common = a.label_seed if a.label_seed == b.label_seed else None
            found.setdefault((a.seed, common), []).append(a.last.mean - b.last.mean)
    return [fmean(own) for own in found.values()]


def told_apart(place: Place, places: Iterable[Place]) -> str:
    """The digest of a place's dataset in brackets, where several datasets have its slice; else nothing."""
    several = {other.dataset for other in places if other[:2] == place[:2]} - {place.dataset}
    return f" ({place.dataset[:SHORT]})" if several and place.dataset else ""


def distinct(counts: Iterable[int]) -> str:
    """Each number once, in order."""
    return ", ".join(map(str, sorted(set(counts))))


def place_of(record: Record) -> Place:
    return Place(record.env, record.slice, record.label_frac, record.dataset)


def rank(method: str) -> tuple[int, str]:
    """The paper's methods in its order, then the others by name."""
    return paper.METHODS.index(method) if method in paper.METHODS else len(paper.METHODS), method
