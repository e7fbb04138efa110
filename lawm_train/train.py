"""fit(): the loop of every method. Phases of updates, several seeds side by side, resumable to the bit
(to rounding, where a seed was stopped meanwhile: the others are then fewer side by side).

Order of windows and noise is a pure function of (seed, update), so a checkpoint is tensors and a position.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import torch
from torch import Tensor

from lawm_data.nets import captured
from lawm_data.nets.snapshot import snapshot
from lawm_data.progress import Bar
from lawm_data.runs import START, Position, Run, shared_position, side_by_side
from lawm_train import policy
from lawm_train.bench import peak_memory, seconds_per_update
from lawm_train.cells import distinct
from lawm_train.data import Windowed
from lawm_train.evaluate import Act, Evaluator, check_sizes
from lawm_train.job import Job, build, load_data
from lawm_train.methods import Method, Phase, TrainConfig

TIMED_UPDATES = 2  # of a throwaway copy, after as many to warm up, to tell the expected time


def train(job: Job, runs_root: Path, name: str | None = None, place: int | None = None) -> list[Run]:
    """Train (or continue) a job; returns its run folders, `<name>-s<seed>` under runs_root.

    A seed whose numbers are no longer finite is stopped (`Run.stopped`), and stays so; the others go on. Nothing of a
    finished seed is touched, unless its last phase is to have more updates: then it goes on from its end. Seeds without
    a common checkpoint train one group after the other. place: the line of the progress bar, where other trainings have
    theirs beside it. UserError where a run was begun with other settings.
    """
    runs = job.folders(runs_root, name)
    for own, group in left(job.as_begun(runs.values()), runs):
        _train(own, group, place)
    return list(runs.values())


def left(job: Job, runs: dict[int, Run]) -> list[tuple[Job, list[Run]]]:
    """What of a job is to be trained: seeds that can go on together, and their runs. UserError as of `train`."""
    for run in runs.values():
        run.check_begun()
    longer = {
        seed
        for seed, run in runs.items()
        if run.exists and run.is_extended({**run.config, **job.asked(seed)}, job.length, job.defaults)
    }
    waiting = [run for seed, run in runs.items() if not _is_over(run, seed in longer)]
    groups = [{seed: run for seed, run in runs.items() if run in group} for group in side_by_side(waiting)]
    return [(replace(job, seeds=list(own)), list(own.values())) for own in groups]


def _is_over(run: Run, longer: bool) -> bool:
    """Stopped, or finished with the last checkpoint still there and no more updates asked for."""
    row, last = run.finished, len({row["phase"] for row in run.metrics()}) - 1
    finished = row is not None and run.positions()[-1:] == [Position(last, row["update"])]
    return (finished and not longer) or run.stopped is not None


def why_stopped(run: Run) -> str:
    """One line on a seed that was given up."""
    row = run.stopped
    assert row is not None
    kept = "none" if row["checkpoint"] is None else run.checkpoint(Position(**row["checkpoint"])).name
    return (
        f"stopped: {run.path}: {row['term']} is not finite at update {row['update']} of phase {row['phase']}; "
        f"last good checkpoint: {kept}; remove the folder to begin again, with a lower learning rate for instance"
    )


def _train(job: Job, runs: list[Run], place: int | None) -> None:
    data = load_data(job)
    method = build(job, data)
    phases = method.phases(data)
    evaluator = _evaluator(job)
    for run, seed, labeled in zip(runs, job.seeds, data.labeled_counts, strict=True):
        run.begin(job.run_config(seed, data.sizes, labeled), job.length, job.defaults)
    start, spent = shared_position(runs), [0.0] * len(runs)
    assert start is not None, "see side_by_side"
    for run in runs:
        run.discard(start)
    if start != START:
        spent = [state["seconds"] for state in policy.restore(method, runs, start)]
    click.echo(_announcement(job, data, phases, start))
    fit(_Session(job, method, runs, evaluator, spent, place), phases, start)


def _evaluator(job: Job) -> Evaluator | None:
    """None where no simulator made the data, so that there is none to be evaluated in."""
    manifest = job.dataset.manifest
    if manifest.repeat is None:
        return None
    sizes = manifest.observation_size, manifest.action_size
    check_sizes(job.dataset.describe(), manifest.env, manifest.repeat, *sizes)
    episodes, device = job.configs["evaluate"].episodes, job.configs["train"].device
    return Evaluator(manifest.env, manifest.repeat, len(job.seeds), episodes, device)


@dataclass
class _Session:
    """What the phases of a job share. spent: seconds that each run trained before.

    place: the line of the progress bar, None where it is the only one.
    """

    job: Job
    method: Method
    runs: list[Run]
    evaluator: Evaluator | None
    spent: list[float]
    place: int | None
    alive: list[bool] = field(init=False)  # by seed
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.alive, self.began = [True] * len(self.runs), time.perf_counter()

    def seconds(self, k: int) -> float:
        """Wall time of run k, interruptions left out."""
        return round(self.spent[k] + time.perf_counter() - self.began, 1)

    def bar(self, phase: Phase, done: int) -> Bar:
        name = phase.name if self.place is None else f"{self.runs[0].path.name.rsplit('-s', 1)[0]} {phase.name}"
        own = {"desc": name, "position": self.place, "leave": self.place is None}
        return Bar(total=phase.updates, initial=done, unit="update", **own)

    @property
    def going(self) -> list[tuple[int, Run]]:
        """The seeds that were not stopped, by place and run."""
        return [(k, run) for k, run in enumerate(self.runs) if self.alive[k]]


def fit(session: _Session, phases: list[Phase], start: Position) -> None:
    """Run every phase from `start` to its end: log, checkpoint, evaluate."""
    for number, phase in enumerate(phases[start.phase :], start.phase):
        done = start.update if number == start.phase else 0
        _Loop(session, phase, number).run(done)
    _log_cost(session, phases[-1])


class _Loop:
    """One phase of one job."""

    def __init__(self, session: _Session, phase: Phase, number: int):
        self.session, self.phase, self.number = session, phase, number
        self.train: TrainConfig = session.job.configs["train"]
        self.recent: list[dict[str, Tensor]] = []  # metrics of the updates since the last log

    def run(self, done: int) -> None:
        phase = self.phase
        with self.session.bar(phase, done) as bar:
            for update in range(done, phase.updates):
                if not any(self.session.alive):
                    return
                self.recent.append({name: value.detach() for name, value in phase.step(update).items()})
                bar.update()
                self._after(update + 1, bar)

    def _after(self, update: int, bar: Bar) -> None:
        """What is due after `update` updates of the phase. The checkpoint comes last: what it skips is logged."""
        last, session, phase = update == self.phase.updates, self.session, self.phase
        save = last or update % self.train.checkpoint_every == 0
        acting = phase.policy if last or (phase.watched and self._is_due(update)) else None
        if save or acting or update % self.train.log_every == 0:
            self._log(update, save or acting is not None)
        if acting and session.evaluator and session.going:
            bar.say(self._evaluate(session.evaluator, acting(), update))
        if save:
            tensors, state = snapshot(session.method.modules, len(session.runs))
            for k, run in session.going:
                run.save(Position(self.number, update), tensors[k], state | {"seconds": session.seconds(k)})

    def _is_due(self, update: int) -> bool:
        """Whether to evaluate after it: as often in every phase as in `train.updates`, however many updates it has."""
        before, now = (
            done * self.train.updates // (self.phase.updates * self.session.job.configs["evaluate"].every)
            for done in (update - 1, update)
        )
        return now > before

    def _log(self, update: int, used: bool) -> None:
        """Means since the last log; stops the seeds of which a number was not finite, before a checkpoint holds it.

        used: whether the weights that these updates led to are saved or evaluated now, so that they have to be finite.
        """
        recent, self.recent = self.recent, []
        names = dict.fromkeys(name for metrics in recent for name in metrics)
        values = {name: torch.stack([metrics[name] for metrics in recent if name in metrics]) for name in names}
        finite = torch.stack([value.isfinite().all(0) for value in values.values()]).all(0).tolist()
        if used:
            tensors, _ = snapshot(self.session.method.modules, len(finite))
            finite = [
                good and all(x.isfinite().all() for x in own.values())
                for good, own in zip(finite, tensors, strict=True)
            ]
        means = {name: value.mean(0).tolist() for name, value in values.items()}
        place = {"phase": self.phase.name, "update": update}
        for k, run in self.session.going:
            if finite[k]:
                told = {name: mean[k] for name, mean in means.items()}
                run.log({"kind": "train", **place, "seconds": self.session.seconds(k), **told})
            else:
                self._stop(k, *self._broken(recent, k, update))

    def _broken(self, recent: list[dict[str, Tensor]], k: int, update: int) -> tuple[int, str]:
        """The first update and term of seed k that were not finite; if all were, the weights are not."""
        broken = (
            (offset, name)
            for offset, metrics in enumerate(recent, update - len(recent) + 1)
            for name, value in metrics.items()
            if not math.isfinite(value[k])
        )
        return next(broken, (update, "a weight"))

    def _stop(self, k: int, update: int, term: str) -> None:
        """Give seed k up: `term` was not finite at `update`."""
        self.session.alive[k] = False
        run = self.session.runs[k]
        kept = run.positions()
        checkpoint, seconds = kept[-1]._asdict() if kept else None, self.session.seconds(k)
        place = {"phase": self.phase.name, "update": update}
        run.log({"kind": "stopped", **place, "term": term, "checkpoint": checkpoint, "seconds": seconds})

    def _evaluate(self, evaluator: Evaluator, acting: Act, update: int) -> str:
        alive = torch.tensor(self.session.alive, device=self.train.device)

        def act(observation: Tensor, first: Tensor) -> Tensor:
            action = acting(observation, first)
            alive.logical_and_(action.isfinite().flatten(1).all(1))  # finite weights may overflow
            return torch.where(alive[:, None, None], action, 0.0)

        returns = evaluator.returns(act)
        for k, _ in self.session.going:
            if not alive[k]:
                self._stop(k, update, "an action")
        means = []
        for k, run in self.session.going:
            means.append(sum(returns[k]) / len(returns[k]))
            place = {"phase": self.phase.name, "update": update}
            rounded = [round(value, 3) for value in returns[k]]
            run.log({"kind": "evaluate", **place, "mean": means[-1], "returns": rounded})
        return "return " + " ".join(f"{mean:.0f}" for mean in means)


def _log_cost(session: _Session, phase: Phase) -> None:
    """The last row of a run, once: wall time and peak memory (of this process, which trained so many seeds) in MB."""
    cost = {"seeds": len(session.runs), "threads": torch.get_num_threads(), **peak_memory()}
    for k, run in ((k, run) for k, run in session.going if not run.finished):
        place = {"phase": phase.name, "update": phase.updates, "seconds": session.seconds(k)}
        run.log({"kind": "finished", **place, **cost})


def _announcement(job: Job, data: Windowed, phases: list[Phase], start: Position) -> str:
    """One line: recipe, slice, method, expected time of what is left."""
    few = data.sample()  # to infer the actions of all would take as long as many updates
    scratch, device = build(job, few).phases(few), job.configs["train"].device
    left = 0.0
    for number, (phase, copy) in enumerate(zip(phases, scratch, strict=True)):
        done = 0 if number > start.phase else start.update if number == start.phase else phase.updates
        left += (phase.updates - done) * _seconds(copy, device)
    episodes = job.dataset.manifest.slices[job.slice_name].statistics["episodes"]
    seeds = f"{'seeds' if len(job.seeds) > 1 else 'seed'} {', '.join(map(str, job.seeds))}"
    updates = " + ".join(f"{phase.updates} {phase.name} updates" for phase in phases)
    return (
        f"recipe {job.recipe}, slice {job.slice_name} ({job.dataset.describe()}), "
        f"method {job.described}, {distinct(data.labeled_counts)} of {episodes:g} episodes labeled, "
        f"{seeds}, {data.describe()}, {updates}: "
        f"about {max(left / 60, 0.1):.1f} min"
        + (f" left, continuing at update {start.update} of phase {phases[start.phase].name}" if start != START else "")
    )


def _seconds(phase: Phase, device: str) -> float:
    """Of an update; where updates are recorded (see `Captured`), after a warm-up that has recorded each of a period."""
    turns = phase.period if torch.device(device).type in captured.RECORDERS else 1
    return seconds_per_update(phase, device, TIMED_UPDATES * turns, repeats=1)
