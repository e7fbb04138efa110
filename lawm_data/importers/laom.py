"""LAOM's layout: one HDF5 file, groups "0".."N-1" with `states` and `actions`, and in the file's attributes the task.

Row t holds s_t and the a_t taken there, at every control step; the parts of `states` lie in the alphabetical order of
their names. The state after the last action is not in the file, so the last step is dropped. LAOM's own collector
keeps of the rewards only their sum (dunnolab/laom): what is read here is `rewards`, which has to be added, r_t of a_t.
A group without `actions` is a trajectory without.
`actions` were recorded before its environment clipped them to [-1, 1].
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
    dataset,
    digest_of,
    one_env,
    present,
    rows,
    values,
    width,
)

ACTIONS = "actions"


class Laom:
    """The groups of all files in the order of their numbers, one file after the other."""

    credits: str | None = None
    action_key = ACTIONS
    action_bounds: list[list[float]] | None = None

    def __init__(self, paths: list[Path]) -> None:
        self.notes: list[str] = []
        self.paths = paths
        self.count = 0
        self.action_size: int | None = None
        envs = []
        for path in paths:
            with opened(path, str(path)) as file:
                names = _groups_of(file, path)
                steps = _steps(file[names[0]], f"{path}, group {names[0]}")
                self.layout: Layout = (("observation", width(steps["states"])),)
                check_state(steps["states"], "states", str(path))
                places = ((file[name], f"{path}, group {name}") for name in names if ACTIONS in file[name])
                known = (width(dataset(group, ACTIONS, where)) for group, where in places)
                self.action_size = next(known, self.action_size)
                envs.append((path, _env(file)))
            self.count += len(names)
            self.notes.append(
                f"{path.name}: the last step of each of {len(names)} episodes is left out, its end is unknown"
            )
        self.env = one_env(envs)
        self.digest = digest_of(paths)

    def trajectories(self, layout: Layout) -> Iterator[Trajectory | UserError]:
        clipped = count = 0
        for path in self.paths:
            with opened(path, str(path)) as file:
                for name in _groups_of(file, path):
                    found = attempt(_trajectory, file[name], layout, f"{path}, group {name}")
                    if not isinstance(found, UserError) and found.action is not None:
                        beyond = np.isfinite(found.action) & (np.abs(found.action) > 1)  # an infinity is refused later
                        clipped, count = clipped + int(np.sum(beyond)), count + beyond.size
                        found = found._replace(action=np.where(beyond, np.sign(found.action), found.action))
                    yield found
        if clipped:
            self.notes.append(
                f"{clipped} of {count} numbers of actions clipped to [-1, 1], as LAOM's environments execute them; "
                "scale actions of other bounds before"
            )


def _trajectory(group: h5py.Group, layout: Layout, where: str) -> Trajectory:
    steps = _steps(group, where)
    states = values(steps["states"])
    size = sum(size for _, size in layout)
    if states.shape[1] != size:
        raise UserError(f"{where}: 'states' has size {states.shape[1]}, expected {size}; check --env")
    return Trajectory(
        where=where,
        observation=states[:, _columns(layout)],
        action=rows(steps[ACTIONS])[:-1] if ACTIONS in steps else None,
        reward=column(steps["rewards"], where)[:-1],
        terminal=False,
    )


def _steps(group: h5py.Group, where: str) -> dict[str, h5py.Dataset]:
    if "rewards" not in group:
        raise UserError(
            f"{where}: no 'rewards' (LAOM's own files keep only their sum); add to every group an array 'rewards' "
            "with the reward of each row of 'actions'"
        )
    steps = present(group, ("states", ACTIONS, "rewards"), ACTIONS, where)
    check_lengths(steps, where)
    return steps


def _columns(layout: Layout) -> np.ndarray:
    """Where each number of `layout` stands in a vector of the same parts in alphabetical order, int [O]."""
    parts, start = {}, 0
    for name, size in sorted(layout):
        parts[name] = np.arange(start, start + size)
        start += size
    return np.concatenate([parts[name] for name, _ in layout])


def _groups_of(file: h5py.File, path: Path) -> list[str]:
    names = sorted((name for name in file if name.isdecimal() and isinstance(file[name], h5py.Group)), key=int)
    if not names:
        raise UserError(f"{path}: no groups '0', '1', ... in it; check FORMAT")
    return names


def _env(file: h5py.File) -> str | None:
    """The task that the file names, as `domain-task`."""
    if not {"domain_name", "task_name"} <= set(file.attrs):
        return None
    return f"{file.attrs['domain_name']}-{file.attrs['task_name']}"
