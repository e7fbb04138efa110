"""Laws of the labels: how many, nested, independent of order, never more than there are."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import pytest

from lawm_data.draw import rank
from lawm_data.errors import UserError
from lawm_data.labels import drawn
from lawm_data.store import Row


def rows(count: int, with_actions: int | None = None) -> list[Row]:
    known = count if with_actions is None else with_actions
    return [Row("walker-walk", "made", 0, k, 500, 1.0, False, k < known, None) for k in range(count)]


def labeled(rows: list[Row], fraction: float | None, seed: int) -> set[str]:
    return drawn([row.episode_id for row in rows if row.has_action], len(rows), fraction, seed)


@pytest.mark.parametrize(
    ("fraction", "count", "expected"),
    [
        (0.05, 2000, 100),
        (0.05, 385, 19),
        (0.05, 30, 2),  # 1.5
        (0.25, 10, 3),  # 2.5
        (0.29, 50, 15),  # 14.5, which binary fractions put below
        (0.001, 100, 1),  # at least one
        (0.999, 100, 99),  # and at least one not
        (0.99, 2, 1),
    ],
)
def test_the_fraction_is_of_all_rounded_half_up(fraction: float, count: int, expected: int) -> None:
    assert len(labeled(rows(count), fraction, 0)) == expected


def test_without_a_fraction_all_that_have_actions() -> None:
    assert labeled(rows(10, 7), None, 0) == {row.episode_id for row in rows(10)[:7]}


def test_nested() -> None:
    sets = [labeled(rows(200), fraction, 3) for fraction in (0.02, 0.05, 0.1, 0.5, 0.999)]
    assert all(small < large for small, large in zip(sets, sets[1:], strict=False))


def test_independent_of_order_and_of_process() -> None:
    names = labeled(random.Random(1).sample(rows(200), 200), 0.05, 0)
    assert names == labeled(rows(200), 0.05, 0)
    code = (
        "from lawm_data.labels import drawn;"
        "names = [f'walker-walk/made/0/{k:06d}' for k in range(200)];"
        "print(*sorted(drawn(names, 200, 0.05, 0)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert answer.stdout.split() == sorted(names)


def test_another_seed_is_another_draw() -> None:
    draws = [labeled(rows(200), 0.5, seed) for seed in range(20)]
    shared = [len(a & b) for a, b in zip(draws, draws[1:], strict=False)]
    assert all(abs(count - 50) < 25 for count in shared), "two draws of a half share about a quarter"


def test_a_draw_for_another_purpose_is_another_draw() -> None:
    names = [row.episode_id for row in rows(200)]
    one, other = (sorted(names, key=lambda name: rank(purpose, 0, name))[:100] for purpose in ("label", "slice"))
    assert abs(len({*one} & {*other}) - 50) < 25


def test_only_what_has_actions_is_labeled_and_never_more() -> None:
    assert len(labeled(rows(100, 10), 0.1, 0)) == 10
    with pytest.raises(UserError, match=r"11 of 100 episodes.*10 have actions"):
        labeled(rows(100, 10), 0.11, 0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.01, 5.0, math.nan, math.inf])
def test_a_fraction_outside_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="--label-frac .* between 0 and 1"):
        labeled(rows(10), fraction, 0)
