"""Method x dataset x slice x fraction of labels: one cell after the other, the runs of a cell side by side, resumable.

Run i of a cell has training seed i and label seed i. All cells have the settings of one recipe, so the model-based
methods have the same batch and the same updates. A cell trains in a process of its own: what it costs is its own, and
one that dies takes no other along. `jobs` of them run at a time, each with its share of the threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch

from lawm_data import files, parallel
from lawm_data.config import Count
from lawm_data.errors import UserError
from lawm_data.runs import Run
from lawm_train import methods, results, scoring, stream, train
from lawm_train.cells import title
from lawm_train.data import Labels
from lawm_train.job import Job, check_name
from lawm_train.record import ORACLE, is_prior


@dataclass(frozen=True)
class Config:
    """The recipe's `grid` section: what to run."""

    methods: tuple[str, ...] = ("lawm", "clap", "idm-td3bc", "td3bc", "idm-clap", "bc")
    oracle: tuple[str, ...] = ("td3bc", "clap")  # methods that also run with all actions
    datasets: tuple[str, ...] = ()  # folders or Hub ids; --hub-dataset in their place
    slices: tuple[str, ...] = ()  # none: medium-replay, or the only one there is
    label_fracs: tuple[float, ...] = ()  # none: the dataset's own
    runs: Count = 3
    episodes: Count = scoring.EPISODES  # of the score of a last checkpoint
    jobs: Count = 1  # cells at a time: on a CPU faster than one with all threads, at the memory of as many


class Cell(NamedTuple):
    """One method on one slice of one dataset."""

    dataset: str
    slice: str | None
    method: str
    labels: Labels

    def __str__(self) -> str:
        oracle = ORACLE if self.labels.oracle else ""
        fraction = "" if self.labels.fraction is None else f", {100 * self.labels.fraction:g}% labeled"
        return f"{title(self.method + oracle)} on {self.dataset}, {self.slice or 'default slice'}{fraction}"


def cells(config: Config) -> Iterator[Cell]:
    """In the order in which they run. UserError where there is no dataset or no method, or one is unknown."""
    if not config.datasets:
        raise UserError("the grid has no dataset; name one with --hub-dataset or in the recipe's grid.datasets")
    if not config.methods and not config.oracle:
        raise UserError("the grid has no method; name one in grid.methods or grid.oracle")
    for dataset in config.datasets:
        for slice_name in config.slices or (None,):
            for fraction in config.label_fracs or (None,):
                for method in config.methods:
                    yield _checked(Cell(dataset, slice_name, method, Labels(fraction=fraction, seed="own")))
            for method in config.oracle:
                yield _checked(Cell(dataset, slice_name, method, Labels(oracle=True)))


def run(config: Config, settings: dict[str, Any], recipe: str, root: Path, name: str | None = None) -> list[str]:
    """Run what is not done yet, one line a cell as it ends; returns a line for each cell and seed that failed.

    settings: the other sections of the recipe, see policy.SECTIONS; name: of these settings, behind that of each cell.
    UserError where the name is a path, and as of `cells`.
    """
    check_name(name)
    plan, waiting, failed, taken = list(cells(config)), [], [], set()

    def tell(number: int, how: str, seconds: float = 0.0) -> None:
        click.echo(f"cell {number} of {len(plan)}, {plan[number - 1]}: {seconds:.0f} s, {how}")

    def fail(number: int, error: UserError, seconds: float = 0.0) -> None:
        tell(number, f"failed: {error}", seconds)
        failed.append(f"{plan[number - 1]}: {error}")

    with files.lock(root):
        for number, cell in enumerate(plan, 1):
            try:
                task = _Task.of(cell, config, settings, recipe, root / "runs", name)
                if task.name in taken:
                    raise UserError(f"another cell has the runs {task.name}-s*; give each dataset a --root of its own")
                taken.add(task.name)
                done = task.is_done
                if not done:
                    task.check()  # of every cell, before the first one trains
            except UserError as error:
                fail(number, error)
                continue
            if done:
                tell(number, f"was done{task.returns}")
                failed += task.stopped
            else:
                waiting.append((number, task))
        jobs = max(1, min(config.jobs, len(plan)))  # of all cells: one that is continued has the threads that it had
        work = [(task, torch.get_num_threads() // jobs) for _, task in waiting]
        with closing(parallel.outcomes(_train_and_score, work, jobs)) as ended:
            for outcome in ended:
                number, task = waiting[outcome.number]
                if outcome.error:
                    fail(number, outcome.error, outcome.seconds)
                else:
                    tell(number, f"done{task.returns}", outcome.seconds)
                    failed += task.stopped
    return failed


def _checked(cell: Cell) -> Cell:
    methods.check(cell.method, cell.labels)
    return cell


@dataclass(frozen=True)
class _Task:
    """A cell as it trains: its job, and where its runs are."""

    job: Job
    runs_root: Path
    name: str
    episodes: int  # of a score

    @classmethod
    def of(
        cls, cell: Cell, config: Config, settings: dict[str, Any], recipe: str, runs_root: Path, suffix: str | None
    ) -> _Task:
        """UserError where there is no such data."""
        dataset = stream.open_dataset(cell.dataset)
        chosen = dataset.choose_slice(cell.slice)
        job = Job(dataset, chosen, cell.method, range(config.runs), settings, recipe, cell.labels)
        task = cls(job, runs_root, f"{job.name}-{suffix}" if suffix else job.name, config.episodes)
        return replace(task, job=_evaluated_as_begun(job.as_begun(task.folders.values()), task.folders.values()))

    @property
    def folders(self) -> dict[int, Run]:
        return self.job.folders(self.runs_root, self.name)

    @property
    def is_done(self) -> bool:
        """Whether its runs have ended with these very settings and have their scores."""
        return all(self._is_done(run, seed) for seed, run in self.folders.items())

    def check(self) -> None:
        """UserError for what is known to lack of the data of the seeds that are still to be trained."""
        for job, _ in train.left(self.job, self.folders):
            job.check()

    def _is_done(self, run: Run, seed: int) -> bool:
        if not (run.finished or run.stopped) or not self.job.is_of(run, seed):
            return False
        policies = () if run.stopped else _policies(self.job)
        return all(scoring.is_scored(run, self.episodes, policy) for policy in policies)

    @property
    def stopped(self) -> list[str]:
        """A line for each seed that was given up."""
        return [train.why_stopped(run) for run in self.folders.values() if run.stopped]

    @property
    def returns(self) -> str:
        """What there is to tell of runs that have ended."""
        stopped, runs = len(self.stopped), self.folders.values()
        records = [record for run in runs for record in results.of_run(run.path)]
        agents = [record for record in records if record.evaluations and not is_prior(record.method)]
        means = [f"{record.last.mean:.1f}" for record in agents]
        said = f", {stopped} of {len(runs)} stopped" if stopped else ""
        return said + (f", returns {', '.join(means)}" if means else "")


def _evaluated_as_begun(job: Job, runs: Iterable[Run]) -> Job:
    """The job with the `train.updates` of its first run, if they only decide how often the method is evaluated.

    So a grid that is asked for more of them leaves the finished cells of such methods as they are.
    """
    begun = next((run.config["settings"].get("train", {}).get("updates") for run in runs if run.exists), None)
    if methods.trains_by_updates(job.method) or type(begun) is not int or begun < 1:
        return job
    return replace(job, configs={**job.configs, "train": replace(job.configs["train"], updates=begun)})


def _train_and_score(task: _Task, threads: int, place: int) -> None:
    torch.set_num_threads(max(1, threads))
    for run in train.train(task.job, task.runs_root, task.name, place):
        for policy in _policies(task.job) if not run.stopped else ():
            if not scoring.is_scored(run, task.episodes, policy):
                scoring.score(run.path, task.episodes, policy)


def _policies(job: Job) -> tuple[str, ...]:
    """Whose scores a report wants: none without a simulator, the prior's too where there is a world model."""
    if job.dataset.manifest.repeat is None:
        return ()
    return ("agent", "prior") if methods.kind_of(job.method).model_based else ("agent",)
