"""Which episodes of a slice keep their actions."""

from __future__ import annotations

from collections.abc import Collection

from lawm_data.draw import labels_of, rank
from lawm_data.errors import UserError


def check_fraction(fraction: float) -> None:
    """UserError for what is no fraction of episodes."""
    if not 0 < fraction < 1:
        raise UserError(
            f"--label-frac {fraction}: expected a fraction between 0 and 1, such as 0.05; to keep all, leave it out of "
            "`split`, or train with --oracle"
        )


def drawn(with_actions: Collection[str], count_all: int, fraction: float | None, seed: int) -> set[str]:
    """Of the ids `with_actions` in a slice of `count_all` episodes, those that keep them; without `fraction` all.

    `fraction` is of all episodes, rounded half up, at least one and at least one not. The draw is nested: a smaller
    fraction's episodes lie inside a larger one's. UserError when fewer episodes have actions than are asked for.
    """
    if fraction is None:
        return set(with_actions)
    check_fraction(fraction)
    count = labels_of(fraction, count_all)
    if count > len(with_actions):
        raise UserError(
            f"--label-frac {fraction}: {count} of {count_all} episodes should be labeled, but {len(with_actions)} have "
            "actions; ask for a smaller fraction"
        )
    return set(sorted(with_actions, key=lambda name: rank("label", seed, name))[:count])
