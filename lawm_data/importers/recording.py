"""What every importer gives: recorded trajectories on the project's time diagram, not yet named."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import h5py
import numpy as np

from lawm_data import files
from lawm_data.errors import UserError

T = TypeVar("T")
Layout = tuple[tuple[str, int], ...]


class Trajectory(NamedTuple):
    """observation [T+1, O] as `values` gives it, action float32 [T, A], reward float32 [T]; `where`: its place.

    An action that is not known is NaN; action is None where none is. first: the rows of o_0, and of a_0 and r_0, as the
    file counts them, for messages.
    """

    where: str
    observation: np.ndarray
    action: np.ndarray | None
    reward: np.ndarray
    terminal: bool
    first: tuple[int, int] = (0, 0)


class Recording(Protocol):
    """One import. The constructor takes the paths and raises UserError when they hold no trajectories."""

    digest: str  # of the content, wherever the files lie
    count: int  # trajectories
    layout: Layout  # names and sizes as recorded
    action_key: str  # what the format calls its actions

    @property
    def action_size(self) -> int | None:
        """Numbers an action, known or not; None where no trajectory has any."""

    action_bounds: list[list[float]] | None  # low and high of each column, which are scaled to [-1, 1]
    env: str | None  # the task that the files name, as `domain-task`
    credits: str | None
    notes: list[str]  # what was left out or changed; the card repeats those of the constructor

    def trajectories(self, layout: Layout) -> Iterator[Trajectory | UserError]:
        """Yield the trajectories in their order, observations concatenated as `layout` says, and in the place of one
        that cannot be read why, see `attempt`.
        """
        ...


def attempt(read: Callable[..., T], *arguments: Any) -> T | UserError:
    """What `read` returns, or the UserError that it raises, without the frames that hold what was read."""
    try:
        return read(*arguments)
    except UserError as error:
        return error.with_traceback(None)


def digest_of(paths: list[Path]) -> str:
    """The sha256 of one file, or of the digests of several. UserError where two are the same."""
    digests = [files.sha256(path) for path in paths]
    for number, digest in enumerate(digests):
        if (first := digests.index(digest)) < number:
            raise UserError(f"{paths[number]}: the same as {paths[first]}; name each file once")
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def one_env(named: Iterable[tuple[Path, str | None]]) -> str | None:
    """The env that the files name, None where none does. UserError where two name different ones."""
    first: tuple[Path, str] | None = None
    for path, env in named:
        if env is None:
            continue
        if first and env != first[1]:
            raise UserError(f"{path}: recorded in {env}, {first[0]} in {first[1]}; import them apart")
        first = first or (path, env)
    return first[1] if first else None


def dataset(file: h5py.Group, key: str, where: str) -> h5py.Dataset:
    """The array of numbers or flags under `key`, unread. Raise UserError when there is none."""
    found = file.get(key)
    if isinstance(found, h5py.Dataset) and found.dtype.kind not in "fiub":
        raise UserError(f"{where}: '{key}' is of type {found.dtype}, expected numbers; convert it")
    if not isinstance(found, h5py.Dataset) or found.ndim < 1 or 0 in found.shape[1:]:
        names = ", ".join(file) or "nothing"
        raise UserError(f"{where}: expected an array of numbers '{key}', found {names}; check FORMAT and --env")
    return found


def present(file: h5py.Group, keys: Iterable[str], optional: str, where: str) -> dict[str, h5py.Dataset]:
    """The arrays under `keys`, as `dataset`, but for `optional`, which may be missing."""
    return {key: dataset(file, key, where) for key in keys if key != optional or key in file}


def width(array: h5py.Dataset) -> int:
    """Numbers a row."""
    return math.prod(array.shape[1:])


def values(array: h5py.Dataset, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows start..stop-1 [rows, width], as recorded."""
    part = array[start:stop]
    return part.reshape(len(part), width(array))


def rows(array: h5py.Dataset, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows start..stop-1 as float32 [rows, width]."""
    return single(values(array, start, stop))


def single(array: np.ndarray) -> np.ndarray:
    """As float32."""
    with np.errstate(over="ignore"):  # an infinity, which is refused later
        return array.astype(np.float32, copy=False)


def scaled(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """From [low, high] to [-1, 1], float32, column by column; 0 in a column without width."""
    half = (high - low) / 2
    return single((action - (high + low) / 2) / np.where(half > 0, half, 1))


def flat_as(layout: Layout) -> str:
    """The note on observations that are one array where `layout` has several."""
    names = ", ".join(name for name, _ in layout)
    return f"observations are one array, taken to be in the order of the simulator: {names}"


def lost_in_single(array: np.ndarray) -> np.ndarray:
    """The columns that vary, and as float32 lose a tenth or more of that beside an offset above 1,000, int [...].

    What varies by less than 1e-11 of its size is rounding, and beside smaller offsets what is lost is below 1e-4.
    """
    if np.can_cast(array.dtype, np.float32) or not np.isfinite(array).all():  # the latter is refused later
        return np.zeros(0, int)
    spread, size = np.ptp(array, axis=0), np.abs(array).max(axis=0)
    error = np.abs(single(array) - array).max(axis=0)
    return np.flatnonzero((size > 1000) & (spread > 1e-11 * size) & (error > 0.1 * spread))


def column(array: h5py.Dataset, where: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows start..stop-1 of an array with one number a row, as float32 [rows]."""
    if width(array) != 1:
        raise UserError(f"{where}: '{array.name.strip('/')}' has {width(array)} numbers a row, expected 1")
    return rows(array, start, stop)[:, 0]


def flags(array: h5py.Dataset, where: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """As `column`, as bool. UserError for one that is not finite, which is neither."""
    found = column(array, where, start, stop)
    if not np.isfinite(found).all():
        row = start + int(np.argmin(np.isfinite(found)))
        raise UserError(f"{where}: '{array.name.strip('/')}' is {found[row - start]} in row {row}, expected 0 or 1")
    return found != 0


def parts_of(file: h5py.Group, layout: Layout, where: str) -> dict[str, h5py.Dataset]:
    """The arrays that `layout` names, in its order. Raise UserError when one is missing or of another size."""
    parts = {key: dataset(file, key, where) for key, _ in layout}
    for key, size in layout:
        check_state(parts[key], key, where)
        if width(parts[key]) != size:
            raise UserError(f"{where}: '{key}' has size {width(parts[key])}, expected {size}; check --env")
    return parts


def check_state(array: h5py.Dataset, name: str, where: str) -> None:
    """UserError for images, which are the arrays of bytes."""
    if array.dtype == np.uint8:
        raise UserError(
            f"{where}: '{name}' is uint8 {array.shape}, as images are, and only numbers of a state can be imported; "
            "convert such to float32"
        )


def check_names(names: Iterable[str], layout: Layout, where: str) -> None:
    """UserError for an array of observations that the recording's own layout, which is its first episode's, lacks."""
    if more := set(names) - {name for name, _ in layout}:
        raise UserError(
            f"{where}: '{min(more)}' is observed here, but not in the first episode; give all the same arrays, or "
            "import them apart"
        )


def check_lengths(arrays: dict[str, h5py.Dataset], where: str) -> int:
    """The number of rows that all `arrays` share. Raise UserError when they differ."""
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        counts = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise UserError(f"{where}: unequal lengths: {counts}; one row a step is expected in each")
    return next(iter(lengths.values()))
