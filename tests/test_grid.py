"""The grid: every cell once, what is done is skipped, what was cut continues, a bad cell stops no other."""

import multiprocessing
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import random_episode
from made_dataset import made_episodes, make_dataset
from test_train import SETTINGS, final, job

import lawm_train.cli
from lawm_data import config, files, parallel
from lawm_data.errors import UserError
from lawm_data.runs import Run
from lawm_train import grid, methods, paper, policy, scoring, stream, train
from lawm_train.data import Labels

RECIPES = Path(__file__).parent.parent / "recipes"
RUNS = Path("lawm/runs")
REAL = parallel.outcomes
SMALL = "{methods: [bc, clap], oracle: [bc], runs: 2}"


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Cells run in this process, one after the other, where a test can cut them."""

    def in_turn(task, arguments, at_once):
        for number, own in enumerate(arguments):
            try:
                task(*own, 0)
            except UserError as error:
                yield parallel.Outcome(number, 0.0, error)
            else:
                yield parallel.Outcome(number, 0.0, None)

    monkeypatch.setattr(grid.parallel, "outcomes", in_turn)


@pytest.fixture
def small():
    """A dataset, and a function that runs the grid of a recipe's section on it."""
    make_dataset(Path("data"), made_episodes(15))

    def run(section=SMALL, *datasets, train="{}", options=()):
        Path("grid.yaml").write_text(f"grid: {section}\ntrain: {train}\n")
        settings = [word for setting in SETTINGS for word in ("--set", setting)]
        named = [word for dataset in datasets or ["data"] for word in ("--hub-dataset", dataset)]
        return CliRunner().invoke(lawm_train.cli.main, ["grid", "grid.yaml", *named, *settings, *options])

    return run


def states(answer):
    """By cell, what its line says after the seconds."""
    lines = [line for line in answer.stdout.splitlines() if line.startswith("cell ")]
    return {line.split(", ")[1]: line.split(" s, ", 1)[1] for line in lines}


def everything():
    return {path: path.read_bytes() for path in sorted(RUNS.rglob("*")) if path.is_file()}


def test_the_cells_are_every_combination_once():
    wanted = grid.Config(("lawm", "bc"), ("bc",), ("a", "b"), ("expert",), (0.01, 0.2))
    found = list(grid.cells(wanted))
    assert len(found) == len(set(found)) == 2 * (2 * 2 + 1)
    assert {cell.labels for cell in found if not cell.labels.oracle} == {Labels(False, f, "own") for f in (0.01, 0.2)}
    assert str(found[0]) == "LAWM on a, expert, 1% labeled" and str(found[-1]) == "BC oracle on b, expert"


def test_run_i_has_training_seed_i_and_label_seed_i(small):
    answer = small()
    assert answer.exit_code == 0, answer.output
    assert states(answer) == dict.fromkeys(["BC on data", "C-LAP on data", "BC oracle on data"], "done")
    for method in ("bc", "clap"):
        configs = [Run(RUNS / f"custom-made-medium-replay-{method}-s{k}").config for k in (0, 1)]
        assert [(saved["seed"], saved["label_seed"]) for saved in configs] == [(0, 0), (1, 1)]
    assert Run(RUNS / "custom-made-medium-replay-bc-oracle-s1").config["oracle"]


def test_what_is_done_is_skipped_and_nothing_of_it_touched(small, monkeypatch):
    small()
    before = everything()
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("trained again"))
    answer = small()
    assert set(states(answer).values()) == {"was done"} and everything() == before


def test_more_runs_later_leave_the_first_ones_as_they_are(small):
    small("{methods: [bc], oracle: [], runs: 1}")
    before = everything()
    assert states(small("{methods: [bc], oracle: [], runs: 3}")) == {"BC on data": "done"}
    after = everything()
    assert {path: after[path] for path in before} == before
    assert {path.parts[2] for path in after} == {f"custom-made-medium-replay-bc-s{k}" for k in range(3)}


def test_more_updates_go_to_the_methods_that_train_by_them_and_leave_the_others(small):
    """To a method of single transitions `train.updates` say how often it is evaluated, as its runs were begun to be."""
    small(options=["--set", "train.joint=true"])
    before = everything()
    more = ["--set", "train.joint=true", "--set", "train.updates=14"]
    answer = small(options=more)
    assert answer.exit_code == 0, answer.output
    told = states(answer)
    assert all(said.startswith("was done") == ("BC" in cell) for cell, said in told.items()) and len(told) == 3, told
    for path, content in before.items():
        assert "-bc-" not in str(path) or path.read_bytes() == content, path
    assert Run(next(RUNS.glob("*-clap-s0"))).finished["update"] == 14
    again = small("{methods: [bc], oracle: [], runs: 3}", options=more)
    assert again.exit_code == 0, again.output
    of_bc = [Run(path).config["settings"] for path in sorted(RUNS.glob("*-replay-bc-s?"))]
    assert len(of_bc) == 3 and of_bc[0] == of_bc[2], "a seed that comes later is evaluated as the first ones"


def test_a_cut_grid_continues_where_it_was(small, monkeypatch):
    after = train._Loop._after

    def cut(self, update, bar):
        after(self, update, bar)
        if self.phase.name == "agent" and update == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(train._Loop, "_after", cut)
    answer = small()
    assert answer.exit_code == 130 and "run the same command again" in answer.stderr
    assert states(answer) == {"BC on data": "done"}
    monkeypatch.setattr(train._Loop, "_after", after)
    assert list(states(small()).values()) == ["was done", "done", "done"]
    continued = final(Run(RUNS / "custom-made-medium-replay-clap-s1"))
    settings = config.load("grid.yaml", SETTINGS, policy.SECTIONS, {})
    dataset = stream.open_dataset("data")
    job = train.Job(dataset, "medium-replay", "clap", range(2), settings, "grid.yaml", Labels(seed="own"))
    whole = final(train.train(job, Path("whole"))[1])
    assert all(bool((value == continued[name]).all()) for name, value in whole.items())


def test_a_kill_between_the_last_checkpoint_and_the_last_row_leaves_nothing_open(small):
    section = "{methods: [bc], oracle: [], runs: 1}"
    small(section)
    log = RUNS / "custom-made-medium-replay-bc-s0" / "metrics.jsonl"
    rows = log.read_text().splitlines(keepends=True)
    log.write_text("".join(rows[:-1]))
    assert states(small(section)) == {"BC on data": "done"} and states(small(section)) == {"BC on data": "was done"}
    assert [line.split(",")[0] for line in log.read_text().splitlines()] == [line.split(",")[0] for line in rows]


def test_a_bad_cell_stops_no_other_and_the_end_names_it(small):
    make_dataset(Path("short"), made_episodes(15, "custom:short", length=4))
    answer = small("{methods: [clap, bc], oracle: [], runs: 1}", "nowhere", "short", "data")
    assert answer.exit_code == 1
    found = states(answer)
    assert [found[f"{name} on data"] for name in ("C-LAP", "BC")] == ["done", "done"]
    assert found["BC on short"] == "done" and found["C-LAP on short"].startswith("failed: custom:short/made/0/")
    failures = [line for line in answer.stderr.splitlines() if " on " in line]
    assert [line.split(":")[0] for line in failures] == [
        "C-LAP on nowhere, default slice",
        "BC on nowhere, default slice",
        "C-LAP on short, default slice",
    ]


def test_a_run_of_another_version_stops_no_other_cell(small):
    section = "{methods: [bc, clap], oracle: [], runs: 1}"
    small("{methods: [bc], oracle: [], runs: 1}")
    (RUNS / "custom-made-medium-replay-bc-s0" / "config.json").write_text('{"method": "bc"}')
    answer = small(section)
    assert answer.exit_code == 1 and states(answer)["C-LAP on data"] == "done"
    assert "bc-s0/config.json: missing key" in states(answer)["BC on data"]


def test_two_datasets_of_one_task_do_not_share_run_folders(small):
    make_dataset(Path("again"), made_episodes(16))
    answer = small("{methods: [bc], oracle: [], runs: 1}", "data", "again")
    assert answer.exit_code == 1 and states(answer)["BC on data"] == "done"
    assert "another cell has the runs custom-made-medium-replay-bc-s*" in states(answer)["BC on again"]


def test_runs_of_another_dataset_are_no_done_runs(small):
    section = "{methods: [bc], oracle: [], runs: 1}"
    small(section)
    shutil.rmtree("data")
    make_dataset(Path("data"), made_episodes(15, length=41))
    answer = small(section)
    assert answer.exit_code == 1 and "begun with other settings (dataset.digest was" in states(answer)["BC on data"]


def test_other_settings_are_no_done_run(small):
    section = "{methods: [bc], oracle: [], runs: 1}"
    small(section)
    answer = small(section + "\ntrain: {log_every: 2}\nagent: {bc: {lr: 0.5}}")
    assert answer.exit_code == 1 and "agent.bc.lr was 0.0003, now 0.5" in states(answer)["BC on data"]


def test_settings_with_a_name_run_beside_those_without(small):
    section = "{methods: [bc], oracle: [], runs: 1}"
    small(section)
    before = everything()
    options = ["--set", "agent.bc.lr=0.5", "--name", "fast"]
    assert states(small(section, options=options)) == {"BC on data": "done"}
    assert Run(RUNS / "custom-made-medium-replay-bc-fast-s0").config["settings"]["agent"]["bc"]["lr"] == 0.5
    assert before.items() <= everything().items()
    assert states(small(section, options=options)) == {"BC on data": "was done"}
    refused = small(section, options=["--name", "a/b"])
    assert refused.exit_code == 2 and "--name a/b: expected a name without folders" in refused.output


def test_fractions_of_labels_have_folders_of_their_own(small):
    answer = small("{methods: [bc], oracle: [], runs: 1, label_fracs: [0.1, 0.3]}")
    assert answer.exit_code == 0, answer.output
    counts = [Run(RUNS / f"custom-made-medium-replay-bc-frac{f}-s0").config["labeled"] for f in (0.1, 0.3)]
    assert counts == [1, 3]
    own = stream.open_dataset("data").manifest.label_fraction
    again = states(small(f"{{methods: [bc], oracle: [], runs: 1, label_fracs: [{own}]}}"))
    assert list(again.values()) == ["done"]
    assert (RUNS / "custom-made-medium-replay-bc-s0").is_dir(), "the dataset's own fraction has the plain name"


def test_a_training_with_other_labels_has_the_name_that_the_grid_gives_it(small):
    small("{methods: [bc], oracle: [], runs: 1, label_fracs: [0.3]}")
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    words = ["--hub-dataset", "data", "--method", "bc", "--label-frac", "0.3", "--label-seed", "own", *settings]
    before = everything()
    answer = CliRunner().invoke(lawm_train.cli.main, ["train", *words, "--recipe", "grid.yaml"])
    assert answer.exit_code == 0, answer.output
    assert everything() == before, "it is that very run, and finished"


def test_a_seed_that_was_stopped_under_other_settings_does_not_pass_for_done(small):
    section, bad = "{methods: [td3bc], oracle: [], runs: 1}", ["--set", "agent.td3bc.lr=1e15"]
    assert "not finite" in small(section, options=bad).stderr
    assert states(small(section, options=bad)) == {"TD3+BC on data": "was done, 1 of 1 stopped"}
    other = small(section)
    assert other.exit_code == 1 and "begun with other settings (settings.agent.td3bc.lr was" in other.stderr
    assert "or remove this folder, of which no checkpoint was saved" in other.stderr


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("{methods: [bc, lwam]}", "unknown method 'lwam'; there are lawm"),
        ("{oracle: [idm-td3bc]}", "take --method td3bc"),
        ("{methods: [], oracle: []}", "the grid has no method"),
        ("{runs: 0}", "grid.runs is 0"),
        ("{jobs: 0}", "grid.jobs is 0"),
        ("{slice: [expert]}", "unknown key 'grid.slice'; did you mean slices"),
    ],
)
def test_a_wrong_recipe_is_told_before_anything_is_trained(small, section, says):
    answer = small(section)
    assert answer.exit_code == 2 and says in answer.stderr and not RUNS.exists()


def test_a_grid_without_a_dataset_is_one_line():
    answer = CliRunner().invoke(lawm_train.cli.main, ["grid", "cpu"])
    assert answer.exit_code == 2 and "name one with --hub-dataset" in answer.stderr


def test_the_model_based_methods_get_the_same_budget():
    """One recipe for all cells: as many updates of model and agent, on as many windows."""
    make_dataset(Path("data"), made_episodes(15))
    dataset, settings = stream.open_dataset("data"), config.load("cpu", SETTINGS, policy.SECTIONS, {})
    budgets = {}
    for method in ("lawm", "clap", "idm-clap"):
        job = train.Job(dataset, "medium-replay", method, [0], settings, "cpu", Labels(seed="own"))
        data = train.load_data(job)
        built = train.build(job, data)
        learner = getattr(built, "learner", built)
        batch = learner._windows(data).batch(0, "model")
        phases = [(phase.name, phase.updates) for phase in built.phases(data) if phase.name != "idm"]
        budgets[method] = phases, batch.labeled.shape
    assert budgets["lawm"] == budgets["clap"] == budgets["idm-clap"]


def work(folder, number, place):
    """As a task of a process: leaves a file, or dies, or fails."""
    if number == 1:
        os._exit(3)
    if number == 2:
        raise UserError("told")
    (folder / f"{number} at {place}").touch()


def test_a_task_that_dies_or_fails_stops_no_other_and_places_are_taken_again(tmp_path):
    ended = {outcome.number: str(outcome.error) for outcome in REAL(work, [(tmp_path, k) for k in range(4)], 1)}
    died = "a process ended with code 3; run the same command again to continue"
    assert ended == {0: "None", 1: died, 2: "told", 3: "None"}
    assert {path.name for path in tmp_path.iterdir()} == {"0 at 0", "3 at 0"}


def meet(folder, number, place):
    """Ends once its companion has begun, so it never ends alone."""
    (folder / f"{number} at {place}").touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)


def test_as_many_tasks_run_at_a_time_as_asked_each_with_its_place(tmp_path):
    assert [outcome.error for outcome in REAL(meet, [(tmp_path, k) for k in range(2)], 2)] == [None, None]
    assert {path.name for path in tmp_path.iterdir()} == {"0 at 0", "1 at 1"}


def test_a_lock_that_a_killed_process_kept_is_given_up(monkeypatch):
    monkeypatch.setattr(parallel, "PATIENCE", 0.01)
    kept = multiprocessing.get_context("spawn").Lock()
    kept.acquire()
    lock = parallel._DrawingLock(kept)
    with lock, lock:  # from within, as tqdm does
        pass
    assert lock.lock is not kept and not kept.acquire(timeout=0)


def wait(folder, number, place):
    """The last one that is started waits forever."""
    (folder / str(number)).write_text(str(os.getpid()))
    while number:
        time.sleep(1)


def test_who_closes_ends_what_still_runs(tmp_path):
    running = REAL(wait, [(tmp_path, k) for k in range(2)], 2)
    assert next(running).number == 0
    process = multiprocessing.active_children()[0]
    running.close()
    assert not process.is_alive()


@pytest.fixture(scope="module")
def table1_said(tmp_path_factory):
    """The arguments of every command that table1.sh starts."""
    folder = tmp_path_factory.mktemp("table1")
    program = folder / "lawm-train"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "RUNS": "3"}
    script = ["sh", str(RECIPES / "table1.sh")]
    said = subprocess.run(script, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    return [shlex.split(line) for line in said.stdout.splitlines()]


@pytest.fixture(scope="module")
def table1(table1_said):
    """Of the trainings."""
    return [words for words in table1_said if words[0] == "--recipe"]


def test_table1_sh_diagnoses_each_env_on_its_own_dataset(table1_said):
    ladders = [words[2:] for words in table1_said if words[0] == "diagnose"]
    for (dataset, *runs), env in zip(ladders, ("cheetah-run", "hopper-stand", "walker-walk"), strict=True):
        assert Path(dataset).name == env and [Path(run).name.removeprefix(f"{env}-") for run in runs] == [
            "*clap*",
            "*lawm*",
        ]


@pytest.mark.parametrize(("answer", "status", "goes_on"), [(130, 130, False), (1, 1, True)])
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_table1_sh_ends_when_it_is_interrupted_and_tells_of_failures(tmp_path, shell, answer, status, goes_on):
    """The program hears the interruption too, and ends by itself; bash would go on with the next."""
    program = tmp_path / "lawm-train"
    interrupted = "kill -INT $PPID; " if answer == 130 else ""
    program.write_text(f'#!/bin/sh\necho "$@" >> said\n[ "$1" = report ] && exit 0\n{interrupted}exit {answer}\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RUNS": "3"}
    done = subprocess.run([shell, str(RECIPES / "table1.sh")], env=environment, cwd=tmp_path, capture_output=True)
    assert done.returncode == status, done.stderr
    assert ("report" in (tmp_path / "said").read_text()) == goes_on


def test_table1_sh_has_every_cell_of_the_paper_once(table1):
    found = []
    for words in (words for words in table1 if not {"--name", "--label-frac"} & {*words}):
        given = dict(zip(words, words[1:], strict=False))
        oracle = " oracle" if "--oracle" in words else ""
        found.append((Path(given["--hub-dataset"]).name, given["--slice"], given["--method"] + oracle))
    wanted = [(*place, method) for place, row in paper.TABLE_1.items() for method in row]
    controls = ("lawm oracle", "bc", "idm-clap")
    assert sorted(found) == sorted(wanted + [("walker-walk", "medium-replay", control) for control in controls])


def test_the_commands_of_table1_sh_are_understood_and_have_folders_of_their_own(table1):
    names = set()
    for words in table1:
        asked = lawm_train.cli.main.commands["train"].make_context("train", list(words)).params
        assert asked["recipe"] == "paper" and asked["seeds"] == 3
        labels = Labels(asked["oracle"], asked["label_frac"], asked["label_seed"])
        methods.check(asked["method"], labels)
        drawn = (asked["method"], labels.oracle, labels.fraction)
        names.add(asked["name"] or (asked["hub_dataset"], asked["slice_"], *drawn))
    assert len(names) == len(table1) == 80


def test_a_cell_is_checked_for_the_seeds_that_it_still_trains(small):
    """Labels of a seed's own are held for each: a pool for one seed at a time takes a grid that grows by one."""
    one, two = (job(stream.open_dataset("data"), "bc", range(n), labels=Labels(seed="own")).gigabytes for n in (1, 2))
    assert one < two
    pool = f"{{pool_gb: {one}}}"
    refused = small("{methods: [bc], oracle: [], runs: 2}", train=pool)
    assert refused.exit_code == 1 and "for all seeds together" in refused.stderr and not RUNS.exists()
    for runs in (1, 2):
        answer = small(f"{{methods: [bc], oracle: [], runs: {runs}}}", train=pool)
        assert answer.exit_code == 0, answer.output


def test_missing_actions_are_told_before_any_cell_trains(small):
    make_dataset(Path("other"), made_episodes(15, "custom:other"))
    for path in Path("other").rglob("withheld-*"):
        path.unlink()
    answer = small("{methods: [bc], oracle: [], runs: 1}", "data", "other")
    first, *others = answer.stdout.splitlines()
    assert answer.exit_code == 1 and first.startswith("cell 2 of 2, BC on other") and "withheld" in first
    assert others[-1].startswith("cell 1 of 2, BC on data") and ", done" in others[-1]


def test_what_was_trained_is_scored_over_as_many_episodes_as_asked(small, monkeypatch):
    class Simulator:
        def __init__(self, env, repeat, models, episodes, device="cpu"):
            self.models, self.episodes = models, episodes

        def returns(self, acting):
            return [[float(k) for k in range(self.episodes)] for _ in range(self.models)]

    for module in (train, scoring):
        monkeypatch.setattr(module, "Evaluator", Simulator)
    sizes = {"observation_size": 3, "action_size": 1}
    make_dataset(Path("data"), [random_episode(k, 20, **sizes, env="pendulum-swingup") for k in range(15)])
    value = files.read_json(Path("data/lawm.json"))
    files.write_json(Path("data/lawm.json"), value | {"repeat": 50})
    section = "{methods: [bc, clap], oracle: [], runs: 2, episodes: 7}"
    answer = small(section)
    assert answer.exit_code == 0, answer.output
    scored = {
        (path.parent.name.split("-")[-2], path.stem.split("-")[-1]): len(files.read_json(path)["returns"])
        for path in RUNS.glob("*/evaluation-*.json")
    }
    assert scored == {("bc", "agent"): 7, ("clap", "agent"): 7, ("clap", "prior"): 7}
    assert set(states(small(section)).values()) == {"was done, returns 3.0, 3.0"}


@pytest.mark.slow
def test_cells_train_in_processes_of_their_own_two_at_a_time(small, monkeypatch):
    """As users run it: what a cell's process holds comes back through its run folders alone."""
    with monkeypatch.context() as patched:
        patched.setattr(grid.parallel, "outcomes", REAL)
        answer = small("{methods: [bc, clap], oracle: [], runs: 2, jobs: 2}")
    assert answer.exit_code == 0 and states(answer) == {"BC on data": "done", "C-LAP on data": "done"}
    for method in ("bc", "clap"):
        runs = [Run(RUNS / f"custom-made-medium-replay-{method}-s{k}") for k in (0, 1)]
        assert all(run.finished["seeds"] == 2 for run in runs)


def test_a_cell_that_is_begun_again_has_its_share_of_the_threads(small, monkeypatch):
    """Other threads round otherwise, so what was cut would go on to other numbers."""
    used = []
    monkeypatch.setattr(grid.torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(grid.torch, "set_num_threads", used.append)
    section = "{methods: [bc], oracle: [bc], runs: 1, jobs: 2}"
    assert small(section).exit_code == 0
    shutil.rmtree(next(RUNS.glob("*oracle-s0")))
    assert small(section).exit_code == 0 and used == [2, 2, 2]
