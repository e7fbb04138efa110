"""Bad input: one line that names the file, the row or key; exit code 2; nothing half-written.

One table drives one test. A new way to go wrong is a new row: what to call it, what makes the input in an empty
current folder (see given.py), the command, and what its one line must name.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import box
from given import (
    BC,
    TRAIN,
    Given,
    a_file_and_a_dataset,
    aime,
    at,
    begun,
    begun_to_collect,
    collected,
    d4rl,
    damaged_shard,
    dangling,
    dataset,
    dataset_with_hidden_notes,
    dataset_with_notes,
    empty,
    file_size_limit,
    flipped_zip,
    full,
    half,
    history,
    history_of_few_actions,
    hub,
    in_use,
    laom,
    late_aime,
    lerobot,
    manifest,
    minari,
    no_hub,
    nothing,
    occupied,
    of_another_task,
    of_no_simulator,
    run,
    stale_shard,
    stopped,
    succeed,
    text_file,
    trained,
    trained_on_another_task,
    truncated_history,
    truncated_zip,
    unlabeled,
    without_withheld,
)

from lawm_data import files
from lawm_data.manifest import NAME

Row = tuple[str, Given, str, list[str]]
CUSTOM = "--env custom:count"
VERIFY, FOLDER = "lawm-data verify", "lawm/dataset/custom-made"
LABELED = "medium-replay/labeled-00000-of-00001.arrow"
RUN = "lawm/runs/custom-made-medium-replay-bc-s0"
BENCH = "lawm-train bench lawm/dataset/custom-made"
GRID = "lawm-train grid cpu --hub-dataset lawm/dataset/custom-made"


def collector() -> None:
    dataset()
    files.write_json(Path("lawm/runs/zz-s0/config.json"), {"env": "pendulum-swingup", "seed": 0})


def folder(name: str) -> Given:
    def given() -> None:
        dataset()
        Path(name, "within").mkdir(parents=True)

    return given


AIME, D4RL = f"lawm-data import aime 3.hdf5 {CUSTOM}", f"lawm-data import d4rl bad.hdf5 {CUSTOM}"
IMPORT: list[Row] = [
    ("aime-missing", nothing, f"lawm-data import aime nowhere {CUSTOM}", ["nowhere", "no such file"]),
    ("d4rl-missing", nothing, f"lawm-data import d4rl nowhere.hdf5 {CUSTOM}", ["nowhere.hdf5", "no such file"]),
    ("d4rl-folder", nothing, f"lawm-data import d4rl . {CUSTOM}", ["HDF5"]),
    ("aime-no-files", Path("buffer").mkdir, f"lawm-data import aime buffer {CUSTOM}", ["buffer", "no episode files"]),
    ("aime-no-number", aime("b/last.hdf5"), f"lawm-data import aime b {CUSTOM}", ["last.hdf5", "number"]),
    ("aime-empty", aime(content=empty), AIME, ["3.hdf5", "HDF5"]),
    ("aime-truncated", aime(content=half), AIME, ["3.hdf5", "truncated"]),
    ("d4rl-empty", d4rl(empty), D4RL, ["bad.hdf5", "HDF5"]),
    ("d4rl-truncated", d4rl(half), D4RL, ["bad.hdf5", "truncated"]),
    ("zip-truncated", truncated_zip, f"lawm-data import aime bad.zip {CUSTOM}", ["bad.zip", "zip"]),
    ("zip-flipped", flipped_zip, f"lawm-data import aime bad.zip {CUSTOM}", ["bad.zip", "0.hdf5"]),
    ("aime-nan", aime(up=at(4, np.nan)), AIME, ["3.hdf5", "observation row 4", "finite"]),
    ("aime-infinite", aime(reward=at(4, np.inf)), AIME, ["3.hdf5", "reward row 4", "finite"]),
    ("aime-action-range", aime(pre_action=at(4, 1.5)), AIME, ["3.hdf5", "action row 4", "[-1, 1]"]),
    ("aime-no-action", aime(pre_action=None), AIME, ["3.hdf5", "no trajectory has actions", "before"]),
    ("aime-lengths", aime(reward=lambda a: a[:-2]), AIME, ["3.hdf5", "unequal lengths", "reward 19"]),
    ("aime-wide-reward", aime(reward=lambda a: np.tile(a, 2)), AIME, ["3.hdf5", "'reward' has 2 numbers"]),
    ("aime-other-env", aime(), "lawm-data import aime 3.hdf5 --env walker-walk", ["3.hdf5", "'orientations'", "--env"]),
    ("aime-late", late_aime, f"lawm-data import aime buffer {CUSTOM}", ["12.hdf5", "observation row 4"]),
    ("aime-early-end", aime(is_terminal=at(4, 1)), AIME, ["3.hdf5", "is_terminal is true in row 4", "split it there"]),
    ("aime-unmarked", aime(is_last=at(4, 1)), AIME, ["3.hdf5", "is_last is true in row 4", "no is_first in the next"]),
    ("aime-flag", aime(is_first=at(4, np.nan)), AIME, ["3.hdf5", "'is_first' is nan in row 4", "0 or 1"]),
    ("d4rl-flag", d4rl(terminals=lambda a: at(25, np.nan)(a * 1.0)), D4RL, ["'terminals' is nan in row 25", "0 or 1"]),
    ("d4rl-nan-observation", d4rl(observations=at(4, np.nan)), D4RL, ["bad.hdf5", "observation row 4", "not finite"]),
    ("d4rl-nan-later", d4rl(observations=at(24, np.nan)), D4RL, ["rows 20..26", "observation row 24", "not finite"]),
    ("d4rl-nan-next", d4rl(next_observations=at(19, np.nan)), D4RL, ["next_observations row 19 is not finite"]),
    ("d4rl-huge", d4rl(rewards=at(25, 1e30)), D4RL, ["reward row 25 is 1e+30, beyond 1e+15"]),
    ("d4rl-string", d4rl(rewards=lambda a: a.astype("S")), D4RL, ["'rewards' is of type |S", "expected numbers"]),
    (
        "d4rl-images",
        d4rl(observations=lambda a: a.astype("u1")),
        D4RL,
        ["bad.hdf5", "'observations' is uint8", "float32"],
    ),
    ("aime-file-name", d4rl(), f"lawm-data import aime bad.hdf5 {CUSTOM}", ["bad.hdf5", "a number as the name"]),
    ("d4rl-widths", d4rl(next_observations=lambda a: a[:, :1]), D4RL, ["'next_observations' has size 1, 'obs", "2"]),
    ("d4rl-action-range", d4rl(actions=at(25, -1.1)), D4RL, ["bad.hdf5, rows 20..26", "action row 25", "[-1, 1]"]),
    ("d4rl-nan", d4rl(rewards=at(25, np.nan)), D4RL, ["bad.hdf5, rows 20..26", "reward row 25", "finite"]),
    ("d4rl-lengths", d4rl(rewards=lambda a: a[:-1]), D4RL, ["bad.hdf5", "unequal lengths", "rewards 226"]),
    ("d4rl-no-timeouts", d4rl(timeouts=None), D4RL, ["bad.hdf5", "'timeouts'"]),
    ("d4rl-two-resets", d4rl(timeouts=at(19, 0)), D4RL, ["bad.hdf5", "row 19", "marks an end"]),
    ("d4rl-no-end", d4rl(timeouts=np.zeros_like, terminals=np.zeros_like), D4RL, ["bad.hdf5", "no whole episode"]),
    (
        "d4rl-one-row-each",
        d4rl(timeouts=np.ones_like, next_observations=None),
        D4RL,
        ["bad.hdf5", "all 227 episodes have one row", "next_observations"],
    ),
    ("d4rl-twice", d4rl(), f"lawm-data import d4rl bad.hdf5 bad.hdf5 {CUSTOM}", ["bad.hdf5: the same as bad.hdf5"]),
    ("aime-no-observation", aime(up=None, down=None), AIME, ["3.hdf5", "no observations beside image"]),
    ("aime-folder", Path("3.hdf5").mkdir, AIME, ["3.hdf5", "no episode files"]),
    (
        "aime-dangling",
        lambda: dangling("buffer/3.hdf5"),
        f"lawm-data import aime buffer {CUSTOM}",
        ["3.hdf5", "such file"],
    ),
    ("env-long", d4rl(), f"lawm-data import d4rl bad.hdf5 --env custom:{300 * 'a'}", ["custom:aaa", "too long"]),
    ("d4rl-no-rewards", d4rl(rewards=None), D4RL, ["bad.hdf5", "'rewards'"]),
    ("aime-no-reward", aime(reward=None), AIME, ["3.hdf5", "'reward'"]),
    ("d4rl-text", d4rl(observations=lambda a: np.array(["text"], "S")), D4RL, ["bad.hdf5", "'observations'"]),
    (
        "observation-size",
        d4rl(),
        "lawm-data import d4rl bad.hdf5 --env walker-walk",
        ["bad.hdf5", "observation size 2", "walker-walk has 24"],
    ),
    ("near-env", d4rl(), "lawm-data import d4rl bad.hdf5 --env walker-wlak", ["walker-wlak", "walker-walk"]),
    ("custom-name", d4rl(), "lawm-data import d4rl bad.hdf5 --env custom:A/B", ["custom:A/B"]),
    ("custom-dash", d4rl(), "lawm-data import d4rl bad.hdf5 --env custom:-foo", ["custom:-foo", "a name of a-z"]),
    ("format", d4rl(), f"lawm-data import rlds bad.hdf5 {CUSTOM}", ["rlds", "aime or d4rl"]),
    ("custom-repeat", d4rl(), f"{D4RL} --repeat 7", ["--repeat 7", "custom:count", "leave it out"]),
    ("slice-name", d4rl(), f"{D4RL} --slice my-actions", ["my-actions"]),
    ("full-disk-import", full(d4rl(), 4000), D4RL, ["000000.h5", "no space left"]),
]

FOUR = {"up": np.zeros((4, 1)), "inner": {"down": np.zeros((4, 1))}}
THIRTY = {"up": np.zeros((30, 1)), "inner": {"down": np.zeros((30, 1))}}
MINARI, LAOM = f"lawm-data import minari set {CUSTOM}", f"lawm-data import laom laom.hdf5 {CUSTOM}"
METADATA = "set/data/metadata.json"
LEROBOT, INFO = f"lawm-data import lerobot set {CUSTOM}", "set/meta/info.json"


def of_feature(name: str, kind: str, size: int = 1) -> dict[str, Any]:
    return {"features": {name: {"dtype": kind, "shape": [size]}}}


LEROBOT_KEYS = ("observation.state", "next.reward", "episode_index", "frame_index")
INFO_ALONE = json.dumps(
    {"codebase_version": "v3.0", "total_episodes": 0, "total_frames": 0}
    | {"features": {key: {"dtype": "int64", "shape": [1]} for key in LEROBOT_KEYS}}
)
DISCRETE = {"action_space": {"type": "Discrete", "n": 3, "start": 0}}
IMAGES = np.zeros((21, 4, 4, 3), np.uint8)
SOURCES: list[Row] = [
    ("minari-file", d4rl(), f"lawm-data import minari bad.hdf5 {CUSTOM}", ["bad.hdf5: a file; give the folder"]),
    ("minari-missing", nothing, f"lawm-data import minari nowhere {CUSTOM}", ["nowhere/metadata.json", "no such file"]),
    ("minari-folder", aime("set/3.hdf5"), MINARI, ["set/metadata.json", "no such file"]),
    ("minari-metadata", text_file(METADATA, "{}"), MINARI, [METADATA, "not the metadata of a Minari dataset"]),
    ("minari-json", text_file(METADATA, "{"), MINARI, [METADATA, "JSON"]),
    ("minari-arrow", minari({"data_format": "arrow"}), MINARI, [METADATA, "'arrow', expected 'hdf5'"]),
    ("minari-discrete", minari(DISCRETE), MINARI, [METADATA, "Discrete", "continuous"]),
    ("minari-no-bounds", minari({"action_space": box(-1, float("inf"))}), MINARI, [METADATA, "no bounds"]),
    ("minari-wide", minari({"action_space": box(-1e30, 1e30)}), MINARI, [METADATA, "no bounds"]),
    (
        "minari-bounds",
        minari({"action_space": box(-1, 1) | {"high": [1, 1]}}),
        MINARI,
        [METADATA, "1 lower and 2 upper"],
    ),
    ("minari-lost-episode", minari({"total_episodes": 4}), MINARI, ["main_data.hdf5", "3 episodes", "says 4"]),
    ("minari-images", minari(observations=IMAGES), MINARI, ["main_data.hdf5, episode_2", "uint8", "state"]),
    ("minari-part", minari(observations={"up": IMAGES}), MINARI, ["episode_2", "'inner/down'", "found up"]),
    ("minari-short", minari(rewards=np.zeros(3)), MINARI, ["episode_2", "unequal lengths", "rewards 3"]),
    ("minari-observations", minari(observations=FOUR), MINARI, ["episode_2", "unequal lengths", "T + 1"]),
    ("minari-more", minari(observations=THIRTY), MINARI, ["episode_2", "30 observations and 20 rewards"]),
    ("minari-array", minari(observations=np.zeros((21, 2))), MINARI, ["episode_2", "one array", "import them apart"]),
    ("minari-range", minari({"action_space": box(0, 0.01)}), MINARI, ["episode_0", "action row", "[0, 0.01]", "clip"]),
    ("minari-early-end", minari(terminations=np.arange(20) == 3), MINARI, ["episode_2", "terminations", "row 3"]),
    ("minari-action", minari(actions=np.zeros((20, 3))), MINARI, ["episode_2", "'actions' has size 3", "says 1"]),
    ("minari-nan", minari(rewards=np.full(20, np.nan)), MINARI, ["episode_2", "reward row 0", "finite"]),
    (
        "minari-other-env",
        minari(),
        "lawm-data import minari set --env walker-walk",
        ["episode_0", "'orientations'", "--env"],
    ),
    ("laom-missing", nothing, LAOM, ["laom.hdf5", "no such file"]),
    ("laom-no-groups", d4rl(), f"lawm-data import laom bad.hdf5 {CUSTOM}", ["bad.hdf5", "no groups '0', '1'"]),
    ("laom-no-rewards", laom(rewards=False), LAOM, ["laom.hdf5, group 0", "no 'rewards'", "add to every group"]),
    ("laom-short", laom(actions=np.zeros((3, 1))), LAOM, ["laom.hdf5, group 2", "unequal lengths", "actions 3"]),
    ("laom-env", laom(), "lawm-data import laom laom.hdf5 --env walker-walk", ["laom.hdf5", "count-up", "walker-walk"]),
    ("laom-size", laom(states=np.zeros((20, 3))), LAOM, ["group 2", "'states' has size 3, expected 2"]),
    ("lerobot-file", d4rl(), f"lawm-data import lerobot bad.hdf5 {CUSTOM}", ["bad.hdf5: a file; give the folder"]),
    ("lerobot-missing", nothing, LEROBOT, ["set/meta/info.json", "no such file"]),
    ("lerobot-metadata", text_file(INFO, "[]"), LEROBOT, [INFO, "not the metadata of a LeRobot dataset"]),
    ("lerobot-version", lerobot("v1.6"), LEROBOT, [INFO, "v1.6, expected v2 or v3", "convert"]),
    (
        "lerobot-no-rewards",
        lerobot(info=of_feature("next.reward", "string")),
        LEROBOT,
        [INFO, "no 'next.reward'", "add"],
    ),
    (
        "lerobot-no-state",
        lerobot(info=of_feature("observation.state", "video")),
        LEROBOT,
        [INFO, "observation.state (video)"],
    ),
    ("lerobot-no-index", lerobot(info=of_feature("frame_index", "string")), LEROBOT, [INFO, "'frame_index'"]),
    ("lerobot-no-data", text_file(INFO, INFO_ALONE), LEROBOT, ["set/data", "no parquet files"]),
    ("lerobot-lost", lerobot(info={"total_episodes": 4}), LEROBOT, ["3 episodes and 47 frames", "says 4 and 47"]),
    ("lerobot-gap", lerobot(frame_index=np.arange(20) * 2), LEROBOT, ["episode 2", "frame_index", "missing"]),
    (
        "lerobot-size",
        lerobot(info=of_feature("action", "float32", 2)),
        LEROBOT,
        ["file-000.parquet", "'action'", "expected 2"],
    ),
    (
        "lerobot-column",
        lerobot(info=of_feature("observation.more", "float32")),
        LEROBOT,
        ["no column 'observation.more'"],
    ),
    (
        "lerobot-nan",
        lerobot(next_reward=np.full(20, np.nan, np.float32)),
        LEROBOT,
        ["episode 2", "reward row 0", "finite"],
    ),
    ("lerobot-huge", lerobot(action=np.full((20, 1), 1e9, np.float32)), LEROBOT, ["set", "'action'", "beyond 1e+06"]),
    ("lerobot-env", lerobot(), "lawm-data import lerobot set --env walker-walk", ["observation size 2", "24"]),
    ("import-only", d4rl(), f"{D4RL} --only 5", ["--only 5", "FIRST:STOP"]),
    ("import-only-beyond", d4rl(), f"{D4RL} --only 12:", ["--only 12:", "none of the recording's episodes"]),
    ("import-repeat", d4rl(), f"{D4RL} --repeat 0", ["--repeat", "0"]),
]
SHOW: list[Row] = [
    ("show-nothing", nothing, "lawm-data show", ["lawm/raw", "lawm-data collect"]),
    ("show-begun", begun_to_collect, "lawm-data show", ["no episodes of pendulum-swingup yet", "lawm-data collect"]),
    ("show-episode", history(), "lawm-data show custom:made/made/0/000030", ["0/000030", "0/000000 to", "0/000029"]),
    ("show-no-episode", history(), "lawm-data show best", ["no episodes of best", "custom:made"]),
    ("show-env", history(), "lawm-data show --env walker-walk", ["no episodes of walker-walk", "custom:made"]),
    ("show-suffix", history(), "lawm-data show --out picture.gif", ["picture.gif", ".png", "--video"]),
    ("show-film-suffix", history(), "lawm-data show --video --out film.mp4", ["film.mp4", ".gif"]),
    ("show-truncated", truncated_history, "lawm-data show", ["000000.h5", "truncated"]),
    ("show-no-renderer", collected, "lawm-data show --video", ["no renderer", "MUJOCO_GL=disable", "--video"]),
    ("show-no-simulator", of_no_simulator, "lawm-data show --video", ["no simulator", "--video"]),
    ("show-no-actions", unlabeled, "lawm-data show --video", ["no actions", "--video"]),
    ("show-full-disk", full(history(), 4000), "lawm-data show", ["lawm/figures", "no space left"]),
    ("stats-in-a-file", a_file_and_a_dataset, "lawm-data stats --figure a/b.png", ["a/b.png: cannot be written"]),
    ("stats-folder", folder("a.png"), "lawm-data stats --figure a.png", ["a.png: cannot be written", "directory"]),
    ("stats-suffix", dataset, "lawm-data stats --figure all.svg", ["all.svg", ".png"]),
    ("stats-digest", damaged_shard, "lawm-data stats --figure all.png", [LABELED, "sha256 differs"]),
    ("stats-no-dataset", history(), "lawm-data stats --figure all.png", ["lawm/dataset", "`lawm-data split`"]),
    ("stats-elsewhere", nothing, "lawm-data stats --root 'a b' --figure all.png", ["`lawm-data split --root 'a b'`"]),
    ("show-elsewhere", nothing, "lawm-data show --root there", ["`lawm-data collect --root there`"]),
    (
        "top-up-elsewhere",
        nothing,
        "lawm-data collect --env walker-walk --top-up medium --root there",
        ["`lawm-data collect --env walker-walk --root there`"],
    ),
]

DATA: list[Row] = [
    ("collect-near-env", nothing, "lawm-data collect --env walker-wolk", ["walker-wolk", "walker-walk"]),
    ("collect-no-env", nothing, "lawm-data collect", ["--env"]),
    (
        "collect-short-episodes",
        nothing,
        "lawm-data collect --env walker-walk --set collect.repeat=50",
        ["collect.dreamer.window is 50", "walker-walk has 20 steps", "repeat 50"],
    ),
    (
        "collect-device",
        nothing,
        "lawm-data collect --env walker-walk --set collect.device=abacus",
        ["collect.device is abacus", "cpu"],
    ),
    (
        "top-up-no-simulator",
        history(),
        "lawm-data collect --env custom:made --top-up medium",
        ["unknown env 'custom:made'"],
    ),
    (
        "top-up-policy",
        nothing,
        "lawm-data collect --env walker-walk --top-up medium --policy random",
        ["--top-up", "--policy", "leave it out"],
    ),
    (
        "collect-clip",
        nothing,
        "lawm-data collect --env walker-walk --set collect.dreamer.clip=0",
        ["collect.dreamer.clip is 0"],
    ),
    (
        "collect-discount",
        nothing,
        "lawm-data collect --env walker-walk --set collect.dreamer.discount=1.5",
        ["collect.dreamer.discount is 1.5", "1 or less"],
    ),
    (
        "collect-stride",
        nothing,
        "lawm-data collect --env walker-walk --set collect.dreamer.window=2",
        ["collect.dreamer.stride is 4", "3 or less"],
    ),
    ("collect-episodes", nothing, "lawm-data collect --env walker-walk --episodes 0", ["--episodes", "0"]),
    ("root-is-a-file", aime(), "lawm-data split --root 3.hdf5", ["3.hdf5", "cannot be written"]),
    ("split-nothing", nothing, "lawm-data split", ["lawm/raw", "lawm-data collect"]),
    ("split-truncated", truncated_history, "lawm-data split", ["000000.h5", "truncated"]),
    ("fraction-0", history(), "lawm-data split --label-frac 0", ["--label-frac 0.0", "between 0 and 1"]),
    ("fraction-above-1", history(), "lawm-data split --label-frac 1.5", ["--label-frac 1.5", "between 0 and 1"]),
    ("fraction-1", history(), "lawm-data split --label-frac 1", ["--label-frac 1.0", "to keep all, leave it out"]),
    ("fraction-nan", history(), "lawm-data split --label-frac nan", ["label_frac is nan"]),
    (
        "fraction-beyond-actions",
        history_of_few_actions,
        "lawm-data split --label-frac 0.5 --set split.validation=0",
        ["slice medium-replay", "--label-frac 0.5", "20 of 40 episodes", "3 have actions"],
    ),
    ("split-env", history(), "lawm-data split --env walker-wolk", ["no episodes of walker-wolk", "custom:made"]),
    ("split-strict", history(), "lawm-data split --strict", ["medium-replay: 30 of 2000 episodes", "import more"]),
    ("split-few", history(), "lawm-data split --set split.min_episodes=31", ["31 episodes", "split.min_episodes"]),
    ("unknown-setting", history(), "lawm-data split --set split.quta=3", ["split.quta", "quota"]),
    ("setting-type", history(), "lawm-data split --set split.quota=many", ["split.quota is 'many'", "a whole number"]),
    ("setting-range", history(), "lawm-data split --set split.quota=0", ["split.quota is 0", "1 or more"]),
    (
        "recipe-key",
        text_file("my.yaml", "split: {quta: 3}"),
        "lawm-data split --recipe my.yaml",
        ["my.yaml", "split.quta", "quota"],
    ),
    ("recipe", nothing, "lawm-data split --recipe cqu", ["cqu", "cpu"]),
    ("split-notes", dataset_with_notes, "lawm-data split", ["notes.txt", "not named in lawm.json", "delete it"]),
    ("split-hidden-notes", dataset_with_hidden_notes, "lawm-data split", ["custom-made", "something else", "--out"]),
    ("split-into-raw", history(), "lawm-data split --out lawm/raw/mine", ["among the recordings", "--out"]),
    ("split-occupied", occupied, "lawm-data split --out occupied", ["occupied", "--out"]),
    ("full-disk-split", full(history(), 9000), "lawm-data split", [LABELED, "no space left"]),
    ("split-in-use", in_use, "lawm-data split", ["lawm: another lawm command", "--root"]),
    ("verify-nothing", nothing, VERIFY, ["lawm/dataset", "lawm-data split"]),
    ("verify-digest", damaged_shard, VERIFY, [LABELED, "sha256 differs", "lawm-data split"]),
    ("verify-stale", stale_shard, VERIFY, ["labeled-00007-of-00008.arrow", "not named in lawm.json", "delete it"]),
    ("push-digest", damaged_shard, "lawm-data push", [LABELED, "sha256 differs"]),
    ("push-stale", stale_shard, "lawm-data push", ["labeled-00007-of-00008.arrow", "delete it"]),
    ("push-other-folder", occupied, "lawm-data push occupied", ["occupied", NAME]),
    *(
        (f"{command}-folder-env", dataset, f"lawm-data {command} {FOLDER} --env walker-walk", [FOLDER, "walker-walk"])
        for command in ("verify", "push", "bench")
    ),
    ("push-nothing", nothing, "lawm-data push", ["lawm/dataset", "lawm-data split"]),
    ("bench-nothing", nothing, "lawm-data bench", ["lawm/dataset", "lawm-data split"]),
    ("split-long", history(), f"lawm-data split --out {300 * 'a'}", ["aaa", "too long", "path"]),
    (
        "split-seed",
        history(),
        f"lawm-data split --label-seed {70 * '9'}",
        ["split.label_seed", "9223372036854775807 or less"],
    ),
    ("split-seed-below", history(), "lawm-data split --label-seed -1", ["split.label_seed is -1", "0 or more"]),
    (
        "collect-meta",
        nothing,
        "lawm-data collect --env walker-walk --set collect.device=meta",
        ["device is meta", "cpu"],
    ),
    ("bench-no-manifest", Path("data").mkdir, "lawm-data bench data", [f"data: a path without {NAME}"]),
    ("bench-no-dataset", nothing, "lawm-data bench no/such/folder", ["no/such/folder", "lawm-data split"]),
]

LEARN: list[Row] = [
    ("no-dataset", nothing, "lawm-train --hub-dataset no/such/folder", ["no/such/folder", "lawm-data split"]),
    ("dataset-is-a-file", aime("a/b"), "lawm-train --hub-dataset a/b", ["a/b", NAME]),
    ("no-manifest", Path("data").mkdir, "lawm-train --hub-dataset data", ["data", NAME]),
    ("manifest-no-json", manifest("{"), "lawm-train --hub-dataset data", [f"data/{NAME}", "JSON"]),
    ("manifest-other", manifest("{}"), "lawm-train --hub-dataset data", [f"data/{NAME}", "schema_version"]),
    ("hub-absent", hub, "lawm-train --hub-dataset tester/absent", ["tester/absent", "no such dataset"]),
    ("hub-private", lambda: hub(""), "lawm-train --hub-dataset tester/secret", ["tester/secret", "private"]),
    ("hub-no-dataset", hub, "lawm-train --hub-dataset tester/empty", ["tester/empty", NAME]),
    ("hub-revision", hub, "lawm-train --hub-dataset tester/empty@v9", ["tester/empty", "revision"]),
    ("hub-silent", no_hub, "lawm-train --hub-dataset tester/empty", ["tester/empty", "http://127.0.0.1:9", "network"]),
    ("train-digest", damaged_shard, f"{TRAIN} {BC}", [LABELED, "sha256 differs"]),
    ("method", nothing, "lawm-train --hub-dataset x/y --method dreamer", ["'dreamer'", "lawm, clap, td3bc, bc,"]),
    ("slice", dataset, f"{TRAIN} --slice expert", ["'expert'", "there is medium-replay"]),
    ("no-labels", unlabeled, f"{TRAIN} {BC}", ["custom-made", "medium-replay", "no labeled", "bc"]),
    ("no-labels-td3bc", unlabeled, f"{TRAIN} --method td3bc", ["medium-replay", "no labeled", "td3bc"]),
    ("no-labels-idm", unlabeled, f"{TRAIN} --method idm-td3bc", ["medium-replay", "no labeled", "idm-td3bc"]),
    ("oracle-infers", nothing, "lawm-train --hub-dataset x/y --method idm-clap --oracle", ["--oracle", "clap"]),
    ("oracle-draws", nothing, "lawm-train --hub-dataset x/y --oracle --label-seed 1", ["--oracle", "--label-seed"]),
    ("oracle-blind", without_withheld, f"{TRAIN} --oracle", ["withheld-00000", "missing"]),
    ("draw-blind", without_withheld, f"{TRAIN} {BC} --label-seed 3", ["withheld-00000", "missing"]),
    ("draw-fraction", nothing, f"{TRAIN} {BC} --label-frac 0", ["--label-frac 0.0", "between 0 and 1"]),
    ("draw-seed", dataset, f"{TRAIN} {BC} --label-seed mine", ["mine", "--label-seed"]),
    ("other-task", of_another_task, f"{TRAIN} {BC}", ["size 5", "pendulum-swingup has 3", "--env"]),
    (
        "other-observation",
        trained_on_another_task,
        f"lawm-train evaluate {RUN}",
        [RUN, "size 5", "pendulum-swingup has 3"],
    ),
    (
        "long-window",
        dataset,
        f"{TRAIN} --set train.window=99",
        ["custom:made/made/0/", "shorter than a window of 99", "train.window"],
    ),
    (
        "pool-small",
        dataset,
        f"{TRAIN} --pool-gb 1e-5",
        ["labeled-00000", "pool of 1e-05 GB", "--pool-gb", "split.shard_mb"],
    ),
    ("pool-below-nothing", dataset, f"{TRAIN} --pool-gb -1", ["train.pool_gb is -1", "0 or more"]),
    ("train-setting", dataset, f"{TRAIN} --set train.batch=1", ["train.batch is 1", "2 or more"]),
    ("train-share", dataset, f"{TRAIN} --set train.labeled_share=5", ["train.labeled_share is 5"]),
    ("train-device", dataset, f"{TRAIN} {BC} --set train.device=abacus", ["train.device is abacus", "cpu"]),
    ("train-stride", dataset, f"{TRAIN} --set train.window=2", ["agent.clap.stride is 4", "3 or less"]),
    ("train-model", dataset, f"{TRAIN} --set model.deter=0", ["model.deter is 0"]),
    ("train-collector", collector, f"{TRAIN} {BC} --name zz", ["zz-s0", "the run of a collector", "--name"]),
    ("train-in-use", in_use, f"{TRAIN} {BC}", ["lawm: another lawm command", "--root"]),
    ("full-disk-train", full(dataset, 500), f"{TRAIN} {BC}", ["config.json", "no space left"]),
    ("other-settings", trained, f"{TRAIN} {BC} --set agent.bc.lr=0.1", [RUN, "agent.bc.lr was 0.0003, now 0.1"]),
    ("other-dataset", trained, f"lawm-train --hub-dataset other {BC}", [RUN, "dataset.digest"]),
    ("bench-method", nothing, f"{BENCH} --method dreamer", ["'dreamer'", "lawm, clap, td3bc, bc,"]),
    ("bench-no-folder", nothing, BENCH, ["lawm/dataset/custom-made", "lawm-data split"]),
    ("bench-slice", dataset, f"{BENCH} --slice expert", ["'expert'", "there is medium-replay"]),
    ("bench-no-labels", unlabeled, BENCH, ["custom-made", "medium-replay", "no labeled"]),
    ("bench-setting", dataset, f"{BENCH} --set train.btch=4", ["train.btch", "batch"]),
    ("bench-repeats", dataset, f"{BENCH} --repeats 0", ["--repeats", "0"]),
    ("bench-trace", dataset, f"{BENCH} --profile no/such/t.json", ["no/such/t.json", "a folder that exists"]),
    ("bench-trace-suffix", dataset, f"{BENCH} --profile trace.txt", ["trace.txt", ".json"]),
    ("bench-trace-folder", dataset, f"{BENCH} --profile lawm", ["lawm", "is a directory"]),
    ("train-meta", dataset, f"{TRAIN} {BC} --set train.device=meta", ["train.device is meta", "cpu"]),
    ("train-far-seed", dataset, f"{TRAIN} {BC} --first-seed {2**65}", ["--first-seed", str(2**65)]),
    ("diagnose-nothing", nothing, f"lawm-train diagnose {RUN} --hub-dataset nowhere", ["nowhere", "lawm-data split"]),
    ("report-binary", dataset, f"lawm-train report --tables lawm/dataset/custom-made/{LABELED}", [LABELED, "as text"]),
    ("run-of-a-list", text_file(f"{RUN}/config.json", "[1]"), f"lawm-train evaluate {RUN}", [RUN, "config.json"]),
    ("run-damaged", text_file(f"{RUN}/config.json", '{"method": "bc"}'), f"lawm-train evaluate {RUN}", [RUN, "key"]),
    ("no-run", Path("data").mkdir, "lawm-train evaluate data", ["data", "config.json", "runs/"]),
    ("evaluate-stopped", stopped, f"lawm-train evaluate {RUN}", [RUN, "no checkpoint yet", "it was stopped"]),
    ("push-no-checkpoint", begun, f"lawm-train push {RUN} --repo a/b", [RUN, "no checkpoint yet"]),
    ("push-no-run", Path("data").mkdir, "lawm-train push data", ["data", "config.json", "runs/"]),
    ("no-simulator", trained, f"lawm-train evaluate {RUN}", [RUN, "custom:made has no simulator"]),
    ("no-model", trained, f"lawm-train diagnose {RUN} --hub-dataset lawm/dataset/custom-made", [RUN, "bc"]),
    ("diagnose-other", trained, f"lawm-train diagnose {RUN} --hub-dataset other", [RUN, "another dataset"]),
    ("no-evaluation", trained_on_another_task, f"lawm-train report {RUN}", [RUN, "nothing was evaluated yet"]),
    ("no-evaluation-ever", trained, f"lawm-train report {RUN}", [RUN, "no simulator", "lawm_train.policy"]),
    (
        "no-evidence",
        text_file("e.csv", "a,b\n1,2\n"),
        "lawm-train report e.csv",
        ["e.csv", "not readable as evidence", "--evidence"],
    ),
    ("no-marker", text_file("page.md", "no table"), "lawm-train report --tables page.md", ["page.md", "<!-- table: "]),
    ("no-run-to-report", Path("data").mkdir, "lawm-train report data", ["no run is there: data"]),
    ("report-nowhere", nothing, "lawm-train report data", ["data", "no run here"]),
    ("report-in-its-evidence", nothing, "lawm-train report r --out a --evidence a", ["--out and --evidence"]),
    ("nothing-to-report", nothing, "lawm-train report", ["RUNS"]),
    ("grid-data", nothing, "lawm-train grid cpu", ["no dataset", "--hub-dataset", "grid.datasets"]),
    ("grid-method", dataset, f"{GRID} --set grid.methods=[lwam]", ["unknown method 'lwam'", "lawm, clap"]),
    ("grid-setting", dataset, f"{GRID} --set grid.method=lawm", ["grid.method", "methods"]),
]


def tree() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    ("given", "command", "named"),
    [pytest.param(*row, id=name) for name, *row in IMPORT + SOURCES + SHOW + DATA + LEARN],
)
def test_bad_input_is_one_line_and_leaves_nothing(given: Given, command: str, named: list[str]) -> None:
    with given() or nullcontext():
        before = tree()
        answer = run(command)
        after = tree()
    assert answer.exit_code == 2, answer.output
    said = answer.stderr.splitlines()
    one_line = len(said) == 1 and said[0].startswith("error: ")
    assert one_line or (said[0].startswith("Usage: ") and said[-1].startswith("Error: ")), answer.stderr
    for word in named:
        assert word in said[-1]
    assert after == before


RANDOM = "lawm-data collect --env pendulum-swingup --policy random"
COLLECT = f"{RANDOM} --episodes 3 --set collect.round=2 --set collect.repeat=50"


@pytest.mark.parametrize(
    ("given", "size", "command"),
    [(nothing, 4000, COLLECT), (dataset, 30_000, f"{TRAIN} {BC} --set train.checkpoint_every=1")],
)
def test_work_that_filled_the_disk_continues(given: Given, size: int, command: str) -> None:
    given()
    with file_size_limit(size):
        answer = run(command)
    assert answer.exit_code == 2 and "no space left" in answer.stderr.splitlines()[-1], answer.output
    assert not list(Path("lawm").rglob(f"{files.PARTIAL}*"))
    succeed(command)
