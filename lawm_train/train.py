"""fit(): the only offline loop. Phases of updates, several seeds side by side, resumable to the bit.

Order of windows and noise is a pure function of (seed, update), so a checkpoint is tensors and a position.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from tqdm import tqdm

from lawm_data import config
from lawm_data.errors import UserError
from lawm_data.runs import Position, Run, code_commit, shared_position
from lawm_data.windows import Pool
from lawm_train import methods, policy
from lawm_train.evaluate import Evaluator
from lawm_train.methods import FREE_NATS_SLICES, Data, Method, Phase, Sizes, TrainConfig
from lawm_train.stream import Dataset

TIMED_UPDATES = 3  # of a throwaway copy, to tell the expected time


@dataclass(frozen=True)
class Job:
    """One method on one slice with several seeds, each with a run folder of its own."""

    dataset: Dataset
    slice_name: str
    method: str
    seeds: Sequence[int]
    configs: dict[str, Any]  # recipe sections, see policy.SECTIONS
    recipe: str

    def run_config(self, seed: int, sizes: Sizes, labeled: int) -> dict[str, Any]:
        """What config.json holds; everything that the numbers of a run depend on."""
        return {
            "method": self.method,
            "env": self.dataset.manifest.env,
            "repeat": self.dataset.manifest.repeat,
            "slice": self.slice_name,
            "seed": seed,
            "labeled": labeled,
            "dataset": {"digest": self.dataset.digest, "revision": self.dataset.revision},
            "sizes": asdict(sizes),
            "settings": config.as_dict(self.configs),
            "about": {"dataset": self.dataset.repo, "layout": [list(part) for part in self.dataset.manifest.layout]},
            "code": code_commit(),
        }


def train(job: Job, runs_root: Path, name: str | None = None) -> list[Run]:
    """Train (or continue) a job; returns its run folders, `<name>-s<seed>` under runs_root."""
    runs = [Run(runs_root / f"{name or _default_name(job)}-s{seed}") for seed in job.seeds]
    job = _as_begun(job, runs)
    data = load_data(job)
    method = _build(job, data)
    for run, seed in zip(runs, job.seeds, strict=True):
        run.begin(job.run_config(seed, data.sizes, len(data.labeled[0])))
    phases = method.phases(data)
    start = shared_position(runs)
    if start:
        policy.restore(method, runs, start)
    click.echo(_announcement(job, data, phases, start))
    fit(method, phases, runs, start or Position(0, 0), job)
    return runs


def _as_begun(job: Job, runs: list[Run]) -> Job:
    """The job on the very data that its first run began with; what is new on the Hub is told, and not mixed in."""
    for run in runs:
        if run.exists:
            return replace(job, dataset=job.dataset.as_begun(run.config["dataset"]["revision"]))
    return job


def load_data(job: Job) -> Data:
    """Read the slice into pools, shared by all seeds; the action-free episodes only if the method wants them."""
    manifest, wants_unlabeled = job.dataset.manifest, methods.uses_unlabeled(job.method)
    if not manifest.slices[job.slice_name].splits.get("labeled"):
        raise UserError(
            f"{job.dataset.describe()}: slice {job.slice_name} has no labeled episodes, and method {job.method} needs "
            "some; import episodes with actions and split again"
        )
    sizes = manifest.action_size, methods.shortest_episode(job.method, job.configs["train"])
    labeled = Pool(job.dataset.episodes(job.slice_name, "labeled"), True, *sizes)
    unlabeled = None
    if wants_unlabeled and manifest.slices[job.slice_name].splits.get("unlabeled"):
        unlabeled = Pool(job.dataset.episodes(job.slice_name, "unlabeled"), False, *sizes)
    terminal = bool(labeled.terminal.any() or (unlabeled is not None and unlabeled.terminal.any()))
    free_nats = 1.0 if job.slice_name in FREE_NATS_SLICES else 0.0
    models = len(job.seeds)
    found = Sizes(manifest.observation_size, manifest.action_size, terminal, free_nats)
    return Data(found, [labeled] * models, [unlabeled] * models)


def fit(method: Method, phases: list[Phase], runs: list[Run], start: Position, job: Job) -> None:
    """Run every phase from `start` to its end: log, checkpoint, evaluate."""
    manifest, episodes = job.dataset.manifest, job.configs["evaluate"].episodes
    evaluator = None
    if manifest.repeat is not None:  # else no simulator made the data, so there is none to be evaluated in
        evaluator = Evaluator(manifest.env, manifest.repeat, len(runs), episodes, job.configs["train"].device)
    for number, phase in enumerate(phases):
        if number >= start.phase:
            done = start.update if number == start.phase else 0
            _Loop(method, phase, number, runs, evaluator, job).run(done)


class _Loop:
    """One phase of one job."""

    def __init__(
        self, method: Method, phase: Phase, number: int, runs: list[Run], evaluator: Evaluator | None, job: Job
    ):
        self.method, self.phase, self.number, self.runs, self.evaluator = method, phase, number, runs, evaluator
        self.train: TrainConfig = job.configs["train"]
        self.evaluate_every = job.configs["evaluate"].every
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
        self.began = time.perf_counter()

    def run(self, done: int) -> None:
        phase = self.phase
        with tqdm(total=phase.updates, initial=done, desc=phase.name, unit="update", dynamic_ncols=True) as bar:
            for update in range(done, phase.updates):
                self._add(phase.step(update))
                bar.update()
                self._after(update + 1, bar)

    def _after(self, update: int, bar: tqdm) -> None:
        """What is due after `update` updates of the phase. The checkpoint comes last: what it skips is logged."""
        last = update == self.phase.updates
        save = last or update % self.train.checkpoint_every == 0
        if save or update % self.train.log_every == 0:
            self._log(update)
        if self.evaluator and (last or (self.phase.watched and update % self.evaluate_every == 0)):
            bar.set_postfix_str(self._evaluate(self.evaluator, update))
        if save:
            tensors, state = policy.snapshot(self.method, len(self.runs))
            for run, own in zip(self.runs, tensors, strict=True):
                run.save(Position(self.number, update), own, state)

    def _add(self, metrics: dict[str, Tensor]) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.summed += 1

    def _log(self, update: int) -> None:
        """Means since the last log. UserError when one is not finite, before any checkpoint could hold it."""
        seconds = round(time.perf_counter() - self.began, 1)
        means = {name: (total / self.summed).tolist() for name, total in self.sums.items()}
        self.sums, self.summed = {}, 0
        for k, run in enumerate(self.runs):
            own = {name: values[k] for name, values in means.items()}
            broken = [name for name, value in own.items() if not math.isfinite(value)]
            if broken:
                kept = run.positions()
                raise UserError(
                    f"{run.path}: {broken[0]} is not finite by update {update} of phase {self.phase.name}; "
                    f"last good checkpoint: {f'update {kept[-1].update}' if kept else 'none'}"
                )
            run.log({"kind": "train", "phase": self.phase.name, "update": update, "seconds": seconds, **own})

    def _evaluate(self, evaluator: Evaluator, update: int) -> str:
        returns = evaluator.returns(self.phase.policy())
        for run, own in zip(self.runs, returns, strict=True):
            mean = sum(own) / len(own)
            rounded = [round(value, 3) for value in own]
            row = {"kind": "evaluate", "phase": self.phase.name, "update": update, "mean": mean, "returns": rounded}
            run.log(row)
        return "return " + " ".join(f"{sum(own) / len(own):.0f}" for own in returns)


def _build(job: Job, data: Data) -> Method:
    return methods.build(job.method, job.configs, list(job.seeds), data.sizes, methods.normalizer_of(data))


def _default_name(job: Job) -> str:
    return f"{job.dataset.manifest.env.replace(':', '-')}-{job.slice_name}-{job.method}"


def _announcement(job: Job, data: Data, phases: list[Phase], start: Position | None) -> str:
    """One line: recipe, slice, method, expected time of what is left."""
    scratch = _build(job, data).phases(data)
    left = 0.0
    for number, (phase, copy) in enumerate(zip(phases, scratch, strict=True)):
        done = 0 if start is None or number > start.phase else start.update if number == start.phase else phase.updates
        left += (phase.updates - done) * _seconds_per_update(copy)
    many = "seed" if len(job.seeds) == 1 else "seeds"
    updates = " + ".join(f"{phase.updates} {phase.name} updates" for phase in phases)
    return (
        f"recipe {job.recipe}, slice {job.slice_name} ({job.dataset.describe()}), method {job.method}, "
        f"{len(job.seeds)} {many}, {updates}: about {max(left / 60, 0.1):.1f} min"
        + (f" left, continuing at update {start.update} of phase {phases[start.phase].name}" if start else "")
    )


def _seconds_per_update(phase: Phase) -> float:
    phase.step(0)  # allocations
    began = time.perf_counter()
    for i in range(TIMED_UPDATES):
        phase.step(i)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / TIMED_UPDATES
