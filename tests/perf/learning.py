"""Reading, windows, updates, evaluation: timed in this process, through the functions that training calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from datasets import load_dataset

from lawm_data import config
from lawm_data.bench import Row, median_seconds
from lawm_data.episode import Episode
from lawm_train import policy
from lawm_train.bench import Training, each, matrix_rate, rate_row
from lawm_train.data import Batches, Windowed
from lawm_train.evaluate import Evaluator
from lawm_train.job import Job, build, load_data
from lawm_train.methods import Method
from lawm_train.stream import open_dataset

RECIPE, METHOD = "cpu", "lawm"
TARGET_UPDATES = 10_000
PLAIN_ROWS = 200  # that `datasets` reads each time
BATCHES = 200  # drawn each time
EPISODES, CONTROL_STEPS = 20, 1_000  # a suite episode's, before action repeat


class Bench:
    """Figures on one slice of the dataset in `folder`; each is a median of `repeats` after a warm-up."""

    def __init__(self, folder: Path, slice_: str, repeats: int):
        self.folder, self.slice, self.repeats = folder, slice_, repeats
        self.dataset = open_dataset(str(folder))

    def rows(self) -> Iterator[Row]:
        yield from self.reading()
        yield from self.windows()
        yield from self.updates()
        yield self.evaluation()

    def reading(self) -> Iterator[Row]:
        def read() -> int:
            for shard in self.folder.rglob("*.arrow"):
                shard.touch()  # one that has not changed is hashed only once per process
            return sum(_copied(episode) for episode in self.dataset.episodes(self.slice, "unlabeled"))

        def read_plainly() -> int:
            return sum(1 for _ in plain.take(PLAIN_ROWS))

        plain = load_dataset(str(self.folder), self.slice, split="unlabeled", streaming=True)
        count, manifest = read(), self.dataset.manifest
        how = f"each {count:,} of 501 x {manifest.observation_size}, from hashing the file to arrays in memory"
        yield self._rate("shards read", count, "trajectories", read, "≥ 1,500", how)
        how = f"`load_dataset(..., streaming=True)`, the first {PLAIN_ROWS} of the same, for comparison"
        yield self._rate("shards read by plain `datasets`", PLAIN_ROWS, "trajectories", read_plainly, "", how)

    def windows(self) -> Iterator[Row]:
        for batch in (16, 256):
            windows = self._windows(batch)
            how = f"{BATCHES} batches of {batch} windows of {windows.window}, half labeled, 1 seed"
            draw = each(windows.batch, BATCHES)
            yield self._rate(
                f"windows from the pool, batch {batch}", BATCHES * batch, "windows", draw, "≥ 100,000", how
            )

    def updates(self) -> Iterator[Row]:
        """Each phase of the recipe, alone and joint; from one seed's, the whole recipe and the share of its batches."""
        rate = matrix_rate("cpu", self.repeats)
        yield rate_row(rate, "cpu", self.repeats)
        for seeds in (1, 3):
            cost = {}
            for joint in (False, True):
                training = Training(self._job(seeds, METHOD, f"train.joint={str(joint).lower()}"), self.repeats)
                for phase in training.phases:
                    measured = training.cost(phase)
                    cost[phase.name] = measured.seconds
                    yield from training.cost_rows(phase, measured, rate)
            if seeds == 1:
                yield from self._recipe(cost)

    def evaluation(self) -> Row:
        manifest = self.dataset.manifest
        assert manifest.repeat is not None
        acting = self.built(1)[0].policy()
        evaluator = Evaluator(manifest.env, manifest.repeat, 1, EPISODES)
        how = f"{manifest.env}, {EPISODES} episodes in step, action repeat {manifest.repeat}, the agent acts"
        steps = EPISODES * CONTROL_STEPS
        return self._rate("evaluation", steps, "control steps", lambda: evaluator.returns(acting), "", how)

    def _recipe(self, cost: dict[str, float]) -> Iterator[Row]:
        """cost: seconds of one update, by phase."""
        apart, minutes = cost["model"] + cost["agent"], TARGET_UPDATES / 60
        yield self._row(
            f"{TARGET_UPDATES:,} updates of model and agent",
            f"{minutes * apart:.1f} min; joint {minutes * cost['joint']:.1f} min",
            "≤ 30 min",
            "from the single updates above, 1 seed; joint training is one phase of both",
        )
        size = self._job(1).configs["train"].batch
        batch = self._seconds(each(self._windows(size).batch, BATCHES)) / BATCHES
        yield self._row(
            "share of the update loop spent in its next batch",
            f"{200 * batch / apart:.2f}%",
            "< 2%",
            f"two batches of {size} windows ({1000 * batch:.2f} ms each) in one update of model and one of agent",
        )

    def built(self, seeds: int, name: str = METHOD, *settings: str, recipe: str = RECIPE) -> tuple[Method, Windowed]:
        """A method of the recipe and the data that it trains on."""
        job = self._job(seeds, name, *settings, recipe=recipe)
        data = load_data(job)
        return build(job, data), data

    def _job(self, seeds: int, name: str = METHOD, *settings: str, recipe: str = RECIPE) -> Job:
        configs = config.load(recipe, settings, policy.SECTIONS, {})
        return Job(self.dataset, self.slice, name, range(seeds), configs, recipe)

    def _windows(self, batch: int, seeds: int = 1) -> Batches:
        """Windows for each seed, half of them labeled."""
        job = self._job(seeds)
        return load_data(job).windows(job.seeds, [batch // 2, batch // 2], "cpu")

    def _rate(self, what: str, count: int, unit: str, action: Callable[[], object], target: str, how: str) -> Row:
        goal = f"{target} {unit}/s" if target else ""
        return self._row(what, f"{count / self._seconds(action):,.0f} {unit}/s", goal, how)

    def _row(self, what: str, figure: str, target: str, how: str) -> Row:
        return Row(what, figure, target, f"{how}; median of {self.repeats}")

    def _seconds(self, action: Callable[[], object]) -> float:
        return median_seconds(action, self.repeats)


def _copied(episode: Episode) -> int:
    """1, once every value has been read: the arrays are views of a mapped file."""
    for array in (episode.observation, episode.reward):
        array.copy()
    return 1
