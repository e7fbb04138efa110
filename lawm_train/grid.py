"""Method x dataset x slice x fraction of labels: one cell after the other, the runs of a cell side by side, resumable.

Run i of a cell has training seed i and label seed i. All cells have the settings of one recipe, so the model-based
methods have the same batch and the same updates. A cell trains in a process of its own: what it costs is its own, and
one that dies takes no other along.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click

from lawm_data import files, parallel
from lawm_data.config import check_least
from lawm_data.errors import UserError
from lawm_data.runs import Run
from lawm_train import evidence, methods, scoring, stream, tables, train
from lawm_train.data import Labels
from lawm_train.job import Job


@dataclass(frozen=True)
class Config:
    """The recipe's `grid` section: what to run."""

    methods: tuple[str, ...] = ("lawm", "clap", "idm-td3bc", "td3bc", "idm-clap", "bc")
    oracle: tuple[str, ...] = ("td3bc", "clap")  # methods that also run with all actions
    datasets: tuple[str, ...] = ()  # folders or Hub ids; --hub-dataset in their place
    slices: tuple[str, ...] = ()  # none: medium-replay, or the only one there is
    label_fracs: tuple[float, ...] = ()  # none: the dataset's own
    runs: int = 3
    episodes: int = scoring.EPISODES  # of the score of a last checkpoint

    def __post_init__(self) -> None:
        check_least("grid", self, runs=1, episodes=1)


class Cell(NamedTuple):
    """One method on one slice of one dataset."""

    dataset: str
    slice: str | None
    method: str
    labels: Labels

    def __str__(self) -> str:
        oracle = " oracle" if self.labels.oracle else ""
        fraction = "" if self.labels.fraction is None else f", {100 * self.labels.fraction:g}% labeled"
        return f"{tables.title(self.method + oracle)} on {self.dataset}, {self.slice or 'default slice'}{fraction}"


def cells(config: Config) -> Iterator[Cell]:
    """In the order in which they run. UserError where there is no dataset or a method is unknown."""
    if not config.datasets:
        raise UserError("the grid has no dataset; name one with --hub-dataset or in the recipe's grid.datasets")
    for dataset in config.datasets:
        for slice_name in config.slices or (None,):
            for fraction in config.label_fracs or (None,):
                for method in config.methods:
                    yield _checked(Cell(dataset, slice_name, method, Labels(fraction=fraction, seed="own")))
            for method in config.oracle:
                yield _checked(Cell(dataset, slice_name, method, Labels(oracle=True)))


def run(config: Config, settings: dict[str, Any], recipe: str, root: Path) -> list[str]:
    """Run what is not done yet, one line a cell; returns a line for each cell and seed that failed.

    settings: the other sections of the recipe, see policy.SECTIONS.
    """
    plan, failed = list(cells(config)), []
    for number, cell in enumerate(plan, 1):
        began = time.perf_counter()
        try:
            state, stopped = _run(cell, config, settings, recipe, root)
            failed += stopped
        except UserError as error:
            state = f"failed: {error}"
            failed.append(f"{cell}: {error}")
        click.echo(f"cell {number} of {len(plan)}, {cell}: {time.perf_counter() - began:.0f} s, {state}")
    return failed


def _checked(cell: Cell) -> Cell:
    methods.check(cell.method, cell.labels)
    return cell


def _run(cell: Cell, config: Config, settings: dict[str, Any], recipe: str, root: Path) -> tuple[str, list[str]]:
    """Train and score a cell unless that is done; how it stands, and a line for each seed that was stopped."""
    dataset = stream.open_dataset(cell.dataset)
    chosen = dataset.default_slice(cell.slice)
    job = Job(dataset, chosen, cell.method, range(config.runs), settings, recipe, cell.labels)
    name = job.name
    if cell.labels.fraction is not None:
        name += f"-frac{cell.labels.fraction:g}"
    folders = job.folders(root / "runs", name)
    job = job.as_begun(folders.values())
    state = "was done"
    if not all(_is_done(job, run, seed, config.episodes) for seed, run in folders.items()):
        state = "done"
        parallel.run(_train_and_score, [(job, root, name, config.episodes)], apart=True)
    stopped = [train.why_stopped(run) for run in folders.values() if run.stopped]
    returns = [f"{record.last.mean:.1f}" for run in folders.values() for record in evidence.of_run(run.path)[:1]]
    state += f", {len(stopped)} of {len(folders)} stopped" if stopped else ""
    return state + (f", returns {', '.join(returns)}" if returns else ""), stopped


def _is_done(job: Job, run: Run, seed: int, episodes: int) -> bool:
    """Whether a run has ended with these very settings and has its scores."""
    if run.stopped:
        return True
    if not run.finished or not job.is_of(run, seed):
        return False
    return all(scoring.is_scored(run, episodes, policy) for policy in _policies(job))


def _train_and_score(job: Job, root: Path, name: str, episodes: int) -> None:
    with files.lock(root):
        for run in train.train(job, root / "runs", name):
            for policy in _policies(job) if not run.stopped else ():
                if not scoring.is_scored(run, episodes, policy):
                    scoring.score(run.path, episodes, policy)


def _policies(job: Job) -> tuple[str, ...]:
    """Whose scores a report wants: none without a simulator, the prior's too where there is a world model."""
    if job.dataset.manifest.repeat is None:
        return ()
    return ("agent", "prior") if methods.kind_of(job.method).windows else ("agent",)
