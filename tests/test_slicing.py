"""Laws of the slices: what the rules admit, shared equally, drawn by name and not by place."""

from __future__ import annotations

import random

import numpy as np
import pytest

from lawm_data import config
from lawm_data.errors import UserError
from lawm_data.slicing import PAPER, Config, Rule, Rules, cut, distinct, rules_of
from lawm_data.store import Row


def row(order: int, episode_return: float, **other: object) -> Row:
    given = {"env": "walker-walk", "source": "made", "seed": 0, "length": 500, "terminal": False, "has_action": True}
    given |= {"slice_name": None, "order": order, "episode_return": float(episode_return)} | other
    return Row(**given)  # type: ignore[arg-type]


def history(returns: list[float], **other: object) -> list[Row]:
    return [row(order, episode_return, **other) for order, episode_return in enumerate(returns)]


def ids(rows: list[Row]) -> set[str]:
    return {one.episode_id for one in rows}


def whole(part: object) -> list[Row]:
    return [*part.rows, *part.validation_rows]  # type: ignore[attr-defined]


@pytest.mark.parametrize("env", sorted(PAPER))
def test_bounds_are_inclusive_and_those_of_the_table(env: str) -> None:
    returns = list(np.arange(0, 1000, 25.0))
    parts = cut(history(returns), env, Config(validation=0))
    expert, (low, high), cap = {
        "walker-walk": (750, (275, 700), 585),
        "cheetah-run": (750, (300, 600), 600),
        "hopper-stand": (800, (250, 750), 700),
    }[env]
    assert {one.episode_return for one in parts["expert"].rows} == {r for r in returns if r >= expert}
    assert {one.episode_return for one in parts["medium"].rows} == {r for r in returns if low <= r <= high}
    assert max(one.episode_return for one in parts["medium-replay"].rows) <= cap


def test_medium_replay_ends_where_the_mean_of_the_last_20_first_exceeds_the_cap() -> None:
    # episodes 30.. return 1000: the mean of the last 20 exceeds 585 with the 12th of them, episode 41
    returns = [0.0] * 30 + [1000.0] * 15 + [0.0] * 50
    part = cut(history(returns), "walker-walk", Config(validation=0))["medium-replay"]
    assert sorted(one.order for one in part.rows) == list(range(30))
    late = returns[:41] + [500.0, 500.0] + returns[43:]  # 575 with episode 41, 600 with episode 42
    part = cut(history(late), "walker-walk", Config(validation=0))["medium-replay"]
    assert sorted(one.order for one in part.rows) == [*range(30), 41, 42]
    everything = Config(validation=0, rules=Rules(medium_replay=Rule(history="all")))
    assert len(cut(history(returns), "walker-walk", everything)["medium-replay"].rows) == 80


def test_episodes_too_short_for_the_slice_count_in_the_mean() -> None:
    rows = (
        history([0.0] * 30) + [row(k, 1000.0, length=30) for k in range(30, 45)] + [row(k, 0.0) for k in range(45, 95)]
    )
    part = cut(rows, "walker-walk", Config(validation=0, min_steps=50))["medium-replay"]
    assert sorted(one.order for one in part.rows) == list(range(30))


@pytest.mark.parametrize(("known", "all_taken"), [(30, True), (31, False)])
def test_recordings_with_actions_are_all_taken_where_they_fill_half_of_the_quota_at_most(
    known: int, all_taken: bool
) -> None:
    rows = [row(k, 10.0, has_action=k < known) for k in range(100)]
    part = cut(rows, "walker-walk", Config(quota=60, validation=0))["medium-replay"]
    assert (sum(one.has_action for one in part.rows) == known) == all_taken


def test_history_is_read_in_the_order_of_its_collector() -> None:
    rows = history([0.0] * 30 + [1000.0] * 15 + [0.0] * 50)
    part = cut(random.Random(0).sample(rows, len(rows)), "walker-walk", Config(validation=0))["medium-replay"]
    assert sorted(one.order for one in part.rows) == list(range(30))


def test_rollouts_of_kept_policies_are_no_part_of_a_trailing_history() -> None:
    rows = history([400.0] * 10, source="dreamer") + history([400.0] * 30, source="topup")
    trailing = Config(validation=0, rules=Rules(medium=Rule(history="trailing")))
    assert {one.source for one in cut(rows, "walker-walk", trailing)["medium"].rows} == {"dreamer"}


def test_a_mean_at_the_cap_does_not_exceed_it() -> None:
    part = cut(history([585.0] * 30), "walker-walk", Config(validation=0))["medium-replay"]
    assert len(part.rows) == 30


def test_what_is_left_of_a_quota_goes_to_the_first_collectors() -> None:
    rows = [one for seed in range(3) for one in history([10.0] * 100, seed=seed)]
    part = cut(rows, "walker-walk", Config(quota=62, validation=0))["medium-replay"]
    assert [sum(one.seed == seed for one in part.rows) for seed in range(3)] == [21, 21, 20]


@pytest.mark.parametrize("another", [{"seed": 1}, {"source": "other"}])
def test_each_collector_has_its_own_history(another: dict[str, object]) -> None:
    fast, slow = history([1000.0] * 40 + [0.0] * 40), history([0.0] * 80, **another)
    part = cut(fast + slow, "walker-walk", Config(validation=0))["medium-replay"]
    assert ids(part.rows) == ids(slow)


def test_a_recording_counts_once_whatever_its_names() -> None:
    rows = history([10.0, 20.0], crc32=7) + history([10.0, 20.0, 20.0], source="other", crc32=7)
    rows += history([20.0], source="other", crc32=8) + history([10.0], source="whole", crc32=7, slice_name="expert")
    kept = [(one.source, one.order) for one in distinct(rows)]
    assert kept == [("made", 0), ("made", 1), ("other", 0), ("whole", 0)], "the fourth has other arrays"


def test_quota_is_shared_equally_and_an_empty_share_stays_empty() -> None:
    rows = history([10.0] * 5) + history([10.0] * 100, seed=1) + history([10.0] * 100, source="other")
    part = cut(rows, "walker-walk", Config(quota=61, validation=0))["medium-replay"]
    taken = [
        sum((one.source, one.seed) == key for one in part.rows) for key in (("made", 0), ("made", 1), ("other", 0))
    ]
    assert taken == [5, 20, 20]  # shares of 21, 20, 20
    assert (part.wanted, part.found, part.complete) == (61, 45, False)


def test_imports_of_custom_data_have_one_share_together() -> None:
    """Few labeled recordings may come one by one, the many others in one file."""
    known = [one for k in range(4) for one in history([10.0], env="custom:arm", source=f"d4rl-{k}")]
    unknown = history([10.0] * 100, env="custom:arm", source="d4rl-9", has_action=False)
    part = cut(known + unknown, "custom:arm", Config(quota=61, validation=0))["medium-replay"]
    assert (part.found, part.complete) == (61, True) and ids(known) <= ids(part.rows)


def test_top_up_fills_the_share_of_its_collector_and_is_no_history() -> None:
    learner = history([400.0] * 10, source="dreamer")
    others = history([400.0] * 100, source="dreamer", seed=1) + history([400.0] * 5, source="aime-0")
    rows = learner + history([400.0] * 40, source="topup") + others
    parts = cut(rows, "walker-walk", Config(quota=60, validation=0))
    medium = parts["medium"].rows
    assert ids(learner) <= ids(medium), "its own history comes first"
    taken = [sum(one.source == source for one in medium) for source in ("topup", "dreamer", "aime-0")]
    assert taken == [10, 30, 5], "a share of 20 each; what the third lacks is not topped up by the first"
    assert not any(one.source == "topup" for one in parts["medium-replay"].rows)


def test_the_draw_depends_on_names_and_seed_alone() -> None:
    rows = history([10.0] * 300)
    shuffled = random.Random(0).sample(rows, len(rows))
    first, same = (cut(some, "walker-walk", Config(quota=50))["medium-replay"] for some in (rows, shuffled))
    other = cut(rows, "walker-walk", Config(quota=50, slice_seed=1))["medium-replay"]
    assert ids(first.rows) == ids(same.rows) != ids(other.rows)
    assert ids(first.validation_rows) == ids(same.validation_rows)
    held_out, others = (
        cut(rows, "walker-walk", Config(quota=300, slice_seed=seed))["medium-replay"].validation_rows for seed in (0, 1)
    )
    assert ids(held_out) != ids(others), "of a slice that leaves nothing over"


def test_validation_is_what_the_quota_leaves_over() -> None:
    part = cut(history([10.0] * 100), "walker-walk", Config(quota=50))["medium-replay"]
    assert len(part.rows) == 50 and len(part.validation_rows) == 20 and part.complete
    assert not ids(part.rows) & ids(part.validation_rows)
    assert len(cut(history([10.0] * 53), "walker-walk", Config(quota=50))["medium-replay"].validation_rows) == 3


def test_where_nothing_is_left_over_5_percent_are_held_out() -> None:
    part = cut(history([10.0] * 50), "walker-walk", Config(quota=50))["medium-replay"]
    assert len(part.rows) == 47 and len(part.validation_rows) == 3, "2.5 is rounded up"
    assert part.found == 50 and part.complete
    large = cut(history([10.0] * 1000), "walker-walk", Config())["medium-replay"]
    assert len(large.validation_rows) == 20


def test_validation_rows_have_actions() -> None:
    rows = history([10.0] * 40) + history([10.0] * 40, source="video", has_action=False)
    part = cut(rows, "walker-walk", Config(quota=40))["medium-replay"]
    assert len(part.validation_rows) == 20 and all(one.has_action for one in part.validation_rows)
    few = history([10.0] * 20) + history([10.0] * 380, source="video", has_action=False)
    part = cut(few, "walker-walk", Config())["medium-replay"]
    assert len(part.validation_rows) == 1 and sum(one.has_action for one in part.rows) == 19, "5% of those that have"


def test_an_import_with_a_name_forms_that_slice_whole_and_no_other() -> None:
    explored = history([float(k) for k in range(100)], source="aime", slice_name="plan2explore")
    parts = cut(explored + history([10.0] * 50), "walker-walk", Config(quota=30))
    assert ids(whole(parts["plan2explore"])) == ids(explored)
    assert not any(ids(explored) & ids(whole(part)) for name, part in parts.items() if name != "plan2explore")
    assert parts["plan2explore"].complete and parts["plan2explore"].wanted == 100
    assert list(cut(explored, "walker-walk", Config())) == ["plan2explore"], "no history, so nothing to cut"


def test_history_that_an_import_displaces_is_counted() -> None:
    expert = history([900.0] * 30, source="aime", slice_name="expert")
    parts = cut(expert + history([900.0] * 3 + [100.0] * 40), "walker-walk", Config())
    assert {name: part.displaced for name, part in parts.items()} == {"expert": 3, "medium": 0, "medium-replay": 0}
    assert len(whole(parts["expert"])) == 30


def test_foreign_data_are_all_medium_replay_until_the_recipe_names_returns() -> None:
    rows = history([-50.0, 5000.0] * 20, env="custom:robot")
    parts = cut(rows, "custom:robot", Config(validation=0))
    assert list(parts) == ["medium-replay"] and len(parts["medium-replay"].rows) == 40
    chosen = cut(rows, "custom:robot", Config(validation=0, rules=Rules(expert=Rule(min_return=1000))))
    assert {one.episode_return for one in chosen["expert"].rows} == {5000.0}


def test_other_tasks_of_the_suite_have_the_suite_scale() -> None:
    medium, replay, expert = Rule(300, 700, "all"), Rule(None, 600, "trailing"), Rule(750, None, "all")
    assert rules_of("reacher-easy", Rules()) == {"medium": medium, "medium-replay": replay, "expert": expert}


def test_a_recipe_changes_only_what_it_names() -> None:
    rules = rules_of("walker-walk", Rules(medium=Rule(max_return=650)))
    assert rules["medium"] == Rule(275, 650, "all") and rules["expert"] == PAPER["walker-walk"]["expert"]


def test_trailing_without_a_cap_is_refused() -> None:
    with pytest.raises(UserError, match=r"split.rules.medium_replay.*max_return"):
        rules_of("custom:robot", Rules(medium_replay=Rule(history="trailing")))


def test_a_band_of_no_return_is_refused() -> None:
    with pytest.raises(UserError, match=r"split.rules.medium: min_return 700 is above max_return 600"):
        rules_of("walker-walk", Rules(medium=Rule(min_return=700, max_return=600)))


@pytest.mark.parametrize(("key", "value"), [("quota", 0), ("min_episodes", 1), ("validation", -1), ("shard_mb", 0)])
def test_settings_out_of_range_name_their_key(key: str, value: int) -> None:
    with pytest.raises(UserError, match=f"--set split.{key}={value}: split.{key} is {value}, expected .* or more"):
        config.load("cpu", [f"split.{key}={value}"], {"split": Config}, {})
