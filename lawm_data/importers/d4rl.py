"""D4RL's layout: one HDF5 file of flat arrays `observations, actions, rewards, terminals, timeouts`, cut at the ends.

Row t holds o_t, a_t and r_t; a file without `actions` holds trajectories without. The last observation of an episode is
in `next_observations`; without that array the last step of every episode is dropped, and with it the knowledge that its
end was terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from lawm_data.errors import UserError
from lawm_data.hdf5 import opened
from lawm_data.importers.recording import (
    Layout,
    Trajectory,
    attempt,
    check_lengths,
    check_state,
    column,
    digest_of,
    flags,
    present,
    rows,
    values,
    width,
)

ACTIONS = "actions"
KEYS = ("observations", ACTIONS, "rewards", "terminals", "timeouts")
NEXT = "next_observations"
FLAG_ROWS = 1 << 20  # read at a time
BLOCK_BYTES = 16_000_000


class D4rl:
    """The episodes of all files, one file after the other."""

    env: str | None = None
    credits: str | None = None
    action_key = ACTIONS
    action_bounds: list[list[float]] | None = None

    def __init__(self, paths: list[Path]) -> None:
        self.notes: list[str] = []
        self.spans: list[tuple[Path, np.ndarray]] = []  # [episodes, 2]: first row and the row after the last
        self.action_size: int | None = None
        for path in paths:
            with opened(path, str(path)) as file:
                self.spans.append((path, self._episodes_of(file, path)))
                self.layout: Layout = (("observation", width(file["observations"])),)
                check_state(file["observations"], "observations", str(path))
                size = width(file[ACTIONS]) if ACTIONS in file else None
            if None not in (size, self.action_size) and size != self.action_size:
                raise UserError(
                    f"{path}: '{ACTIONS}' has size {size}, in a file before {self.action_size}; check --env"
                )
            self.action_size = self.action_size or size
        self.count = sum(len(spans) for _, spans in self.spans)
        self.digest = digest_of(paths)

    def trajectories(self, layout: Layout) -> Iterator[Trajectory | UserError]:
        for path, spans in self.spans:
            with opened(path, str(path)) as file:
                observations = file["observations"]
                for block in _blocks(spans, observations.dtype.itemsize * width(observations)):
                    begin, end = block[0, 0], block[-1, 1]
                    steps = _read(file, begin, end, str(path))
                    for start, stop in block.tolist():
                        part = {key: array[start - begin : stop - begin] for key, array in steps.items()}
                        yield attempt(_trajectory, part, start, f"{path}, rows {start}..{stop - 1}")

    def _episodes_of(self, file: h5py.File, path: Path) -> np.ndarray:
        ends = _ends(file, str(path))
        spans = np.stack([np.concatenate([[0], ends])[:-1], ends], axis=1)
        if not len(spans):
            raise UserError(f"{path}: no whole episode: no row of terminals or timeouts is true; mark the ends")
        if NEXT in file and width(file[NEXT]) != width(file["observations"]):
            sizes = f"{width(file[NEXT])}, 'observations' {width(file['observations'])}"
            raise UserError(f"{path}: '{NEXT}' has size {sizes}; give both the same numbers, or leave '{NEXT}' out")
        shortest = 1 if NEXT in file else 2
        usable = spans[spans[:, 1] - spans[:, 0] >= shortest]
        if not len(usable):
            raise UserError(f"{path}: all {len(spans)} episodes have one row and there is no {NEXT}; check the ends")
        if short := len(spans) - len(usable):
            self.notes.append(f"{path.name}: left out {short} episodes of one row, which hold no step without {NEXT}")
        if tail := len(file["rewards"]) - ends[-1]:
            self.notes.append(f"{path.name}: left out the last {tail} steps, an unfinished episode")
        if NEXT not in file:
            self.notes.append(
                f"{path.name}: no {NEXT}, so the last step of each of {len(usable)} episodes is left out, with any end"
            )
        return usable


def _ends(file: h5py.File, where: str) -> np.ndarray:
    """The rows after the last of each episode, int64 [episodes]."""
    arrays = present(file, KEYS, ACTIONS, where) | present(file, [NEXT], NEXT, where)
    length = check_lengths(arrays, where)
    found = [np.zeros(0, np.int64)]
    for start in range(0, length, FLAG_ROWS):
        ends = [flags(arrays[key], where, start, start + FLAG_ROWS) for key in ("terminals", "timeouts")]
        found.append(np.flatnonzero(ends[0] | ends[1]) + start + 1)
    return np.concatenate(found)


def _blocks(spans: np.ndarray, row_bytes: int) -> list[np.ndarray]:
    """Consecutive spans together, as many as start within BLOCK_BYTES of observations: few reads of many rows."""
    place = spans[:, 0] // max(1, BLOCK_BYTES // row_bytes)
    return np.split(spans, np.flatnonzero(np.diff(place)) + 1)


def _read(file: h5py.File, start: int, stop: int, where: str) -> dict[str, np.ndarray]:
    wide = {key: values(file[key], start, stop) for key in ("observations", NEXT) if key in file}
    wide |= {key: rows(file[key], start, stop) for key in (ACTIONS,) if key in file}
    steps = {"rewards": column(file["rewards"], where, start, stop)}
    return wide | steps | {"terminals": flags(file["terminals"], where, start, stop)}


def _trajectory(steps: dict[str, np.ndarray], start: int, where: str) -> Trajectory:
    observation, action, reward = steps["observations"], steps.get(ACTIONS), steps["rewards"]
    if NEXT not in steps:
        action = None if action is None else action[:-1]
        return Trajectory(where, observation, action, reward[:-1], False, (start, start))
    _check_continuous(observation, steps[NEXT], start, where)
    observation = np.concatenate([observation, steps[NEXT][-1:]])
    return Trajectory(where, observation, action, reward, bool(steps["terminals"][-1]), (start, start))


def _check_continuous(observation: np.ndarray, following: np.ndarray, start: int, where: str) -> None:
    """A reset that no flag marks would join two trajectories."""
    lost = ~np.isfinite(following).all(axis=1)
    lost[:-1] &= np.isfinite(observation[1:]).all(axis=1)  # else the observation itself is told
    if lost.any():
        row = start + int(np.argmax(lost))
        raise UserError(f"{where}: {NEXT} row {row} is not finite (NaN or infinity); remove or repair this episode")
    spread = np.ptp(np.where(np.isfinite(observation), observation, 0), axis=0)
    near = 1e-3 * np.clip(spread, 1e-3 * spread.max(), 1)
    same = np.isclose(following[:-1], observation[1:], rtol=1e-3, atol=near, equal_nan=True)
    same = (same | ~np.isfinite(observation[1:])).all(axis=1)  # the episode is refused for that
    if not same.all():
        row = start + int(np.argmin(same))
        raise UserError(
            f"{where}: {NEXT} of row {row} is not the observation of row {row + 1}, "
            "and neither terminals nor timeouts marks an end there; mark it"
        )
