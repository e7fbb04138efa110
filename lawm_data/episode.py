"""The one record that crosses boundaries, and the one picture of its time.

    o_0 --a_0--> o_1 (r_0) --a_1--> o_2 (r_1) ... --a_{T-1}--> o_T (r_{T-1})

Row t of `action` leads from row t of `observation` to row t + 1, and row t of `reward` is earned on that way.
Steps are agent steps: with action repeat 2 a reward is the sum over the repeat, in [0, 2].

Shapes: T steps, O observation size, A action size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from lawm_data.errors import UserError

LARGEST = 1e15  # of a number, so that its square is a float32
ACTION_TOLERANCE = 1e-5  # recorded float32 actions may leave [-1, 1] by rounding
_ID = re.compile(r"[A-Za-z0-9_:.-]+/[A-Za-z0-9_.-]+/-?\d+/\d{6,}")


def episode_id(env: str, source: str, seed: int, order: int) -> str:
    """`<env>/<source>/<seed>/<order:06d>`, the name of an episode everywhere."""
    return f"{env}/{source}/{seed}/{order:06d}"


@dataclass(frozen=True, eq=False)
class Episode:
    """One trajectory of T agent steps.

    observation: float32 [T+1, O]; action: float32 [T, A] in [-1, 1], or None where it was stripped;
    reward: float32 [T]; terminal: True when o_T is a true end (a time limit is not);
    order: place in its collector's history.
    """

    observation: np.ndarray
    action: np.ndarray | None
    reward: np.ndarray
    terminal: bool
    env: str
    source: str
    seed: int
    order: int

    @property
    def episode_id(self) -> str:
        return episode_id(self.env, self.source, self.seed, self.order)

    @property
    def length(self) -> int:
        return len(self.reward)

    @property
    def episode_return(self) -> float:
        """Sum of the rewards, accumulated in float64."""
        return float(np.sum(self.reward, dtype=np.float64))

    def stripped(self) -> Episode:
        """The same episode without its actions."""
        return replace(self, action=None)

    def validate(
        self,
        observation_size: int | None = None,
        action_size: int | None = None,
        where: str = "",
        first: tuple[int, int] = (0, 0),
    ) -> Episode:
        """Return self, or raise UserError that names `where` (a file, say), the first bad row and what was expected.

        first: the rows of o_0, and of a_0 and r_0, as `where` counts them.
        """
        place = f"{where or self.episode_id}: "
        observation, action, reward = self.observation, self.action, self.reward
        if not _ID.fullmatch(self.episode_id):
            raise UserError(
                f"{place}'{self.episode_id}' is not <env>/<source>/<seed>/<order>; rename the env or source"
            )
        if observation.ndim != 2 or reward.ndim != 1:
            raise UserError(
                f"{place}observations have {observation.ndim} dimensions and rewards {reward.ndim}, expected 2 and 1"
            )
        if len(reward) < 1 or len(observation) != len(reward) + 1:
            raise UserError(
                f"{place}unequal lengths: {len(observation)} observations and {len(reward)} rewards; "
                "an episode of T steps has T + 1 observations and T rewards"
            )
        if observation_size is not None and observation.shape[1] != observation_size:
            raise UserError(
                f"{place}observation size {observation.shape[1]}, but {self.env} has {observation_size}; "
                "check --env, or import as --env custom:NAME"
            )
        _check_finite(observation, "observation", place, first[0])
        _check_finite(reward, "reward", place, first[1])
        if action is not None:
            if action.ndim != 2 or len(action) != len(reward):
                raise UserError(
                    f"{place}unequal lengths: {len(action)} actions and {len(reward)} rewards; "
                    "one of each a step is expected"
                )
            if action_size is not None and action.shape[1] != action_size:
                raise UserError(f"{place}action size {action.shape[1]}, but {self.env} has {action_size}; check --env")
            _check_finite(action, "action", place, first[1])
            beyond = np.abs(action) > 1 + ACTION_TOLERANCE
            if beyond.any():
                t, dim = np.argwhere(beyond)[0]
                raise UserError(
                    f"{place}action row {first[1] + t}, column {dim} is {action[t, dim]:.6g}, outside [-1, 1]; "
                    "rescale the actions to [-1, 1]"
                )
        return self


def _check_finite(array: np.ndarray, name: str, place: str, start: int) -> None:
    if array.dtype != np.float32:
        raise UserError(f"{place}{name} is {array.dtype}, expected float32")
    usable = np.abs(array) <= LARGEST
    if not usable.all():
        bad = np.argwhere(~usable)[0]
        value = array[tuple(bad)]
        what = f"is {value:.3g}, beyond {LARGEST:g}" if np.isfinite(value) else "is not finite (NaN or infinity)"
        raise UserError(f"{place}{name} row {start + bad[0]} {what}; remove or repair this episode")
