"""What each method is handed: batch i with noise i, its own rows, their statistics, the settings that were asked for.

A run that is compared with itself, cut or beside another, cannot show a mistake that both sides make.
"""

from dataclasses import fields, replace
from functools import cache

import pytest
import torch
from made_dataset import made_episodes, make_dataset
from test_dreamer import SMALL
from test_dreamer import made as dreamer_windows
from test_train import job

from lawm_data.dreamer import Dreamer
from lawm_data.nets.blocks import Noise
from lawm_train import bc, clap, data, idm, lawm, stream, td3bc, train
from lawm_train.data import Labels


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """15 episodes, 3 of them labeled; the third of the unlabeled ends truly."""
    episodes = made_episodes(15)
    episodes[5] = replace(episodes[5], terminal=True)
    folder = tmp_path_factory.mktemp("data") / "made"
    make_dataset(folder, episodes, per_shard=2)
    return stream.open_dataset(str(folder))


def built(dataset, method, seeds=(0,), settings=(), labels=None):
    asked = job(dataset, method, seeds, settings, labels)
    read = train.load_data(asked)
    return read, train.build(asked, read)


def everything(dataset):
    return [episode for split in ("labeled", "unlabeled") for episode in dataset.episodes("medium-replay", split)]


def state_of(method):
    return {f"{name}.{key}": x for name, module in method.modules.items() for key, x in module.state_dict().items()}


@pytest.mark.parametrize("joint", ["true", "false"])
def test_update_i_learns_from_batch_i_with_noise_i(dataset, joint):
    read, ours = built(dataset, "lawm", settings=[f"train.joint={joint}"])
    _, theirs = built(dataset, "lawm", settings=[f"train.joint={joint}"])
    windows, phases = theirs._windows(read), ours.phases(read)
    for i in range(3):
        phases[0].step(i)
        _, states = theirs.world.update(windows.batch(i, "model"), Noise([0], "model", i))
        if joint == "true":
            theirs.agent.update(states, Noise([0], "agent", i))
    for i in range(3) if joint == "false" else ():
        phases[1].step(i)
        with torch.no_grad():
            states = theirs.world.observe(windows.batch(i, "agent"), Noise([0], "observe", i)).states
        theirs.agent.update(states, Noise([0], "agent", i))
    torch.testing.assert_close(state_of(ours), state_of(theirs), rtol=1e-5, atol=1e-6)


def mean_of(episodes):
    return torch.cat([torch.tensor(episode.observation) for episode in episodes]).mean(0)


@pytest.mark.parametrize(
    ("method", "of_labeled", "of_all"),
    [
        ("lawm", [], ["world"]),
        ("clap", ["world"], []),
        ("bc", ["cloner"], []),
        ("td3bc", ["agent"], []),
        ("idm-td3bc", ["idm"], ["agent"]),
        ("idm-clap", ["idm"], ["world"]),
    ],
)
def test_each_module_is_normalised_by_the_rows_that_it_learns_from(dataset, method, of_labeled, of_all):
    labeled = [*dataset.episodes("medium-replay", "labeled")]
    wanted = dict.fromkeys(of_labeled, mean_of(labeled))
    wanted |= dict.fromkeys(of_all, mean_of([*labeled, *dataset.episodes("medium-replay", "unlabeled")]))
    modules = built(dataset, method)[1].modules
    for name, mean in wanted.items():
        owner = modules[name].network if name == "idm" else modules[name]
        torch.testing.assert_close(owner.normalizer.mean[0, 0, : len(mean)], mean, msg=name)


def test_a_seed_with_labels_of_its_own_reads_what_it_reads_alone(dataset):
    own = Labels(seed="own")
    (both, ours), (alone, theirs) = (built(dataset, "lawm", seeds, labels=own) for seeds in ([0, 1], [1]))
    mean = ours.world.normalizer.mean
    assert torch.equal(mean[1], theirs.world.normalizer.mean[0]) and torch.equal(mean[0], mean[1]), "all rows are alike"
    statistics = both.statistics().labeled[0]
    assert torch.equal(statistics[1], alone.statistics().labeled[0][0]) and not torch.equal(*statistics)
    batch, lone = ours._windows(both).batch(3), theirs._windows(alone).batch(3)
    for name in ("observation", "action", "reward"):
        assert torch.equal(getattr(batch, name)[:, 1:], getattr(lone, name)), name


@pytest.mark.parametrize("part", [2.0, 0.7], ids=["whole", "moving"])
def test_one_true_end_gives_the_model_its_continue_head(dataset, part):
    """part: of the slice that the pool has room for."""
    asked = job(dataset, settings=[f"train.pool_gb={part * job(dataset).gigabytes}"])
    read = train.load_data(asked)
    assert asked.fits == (part > 1) and read.sizes.terminal
    assert train.build(asked, read).world.continue_head is not None
    assert train.build(asked, replace(read, sizes=replace(read.sizes, terminal=False))).world.continue_head is None


@pytest.mark.parametrize(
    ("slice_name", "nats"), [("medium-replay", 1.0), ("plan2explore", 1.0), ("medium", 0.0), ("expert", 0.0)]
)
def test_free_nats_are_those_of_table_2(dataset, slice_name, nats):
    assert data.sizes_of(dataset.manifest, slice_name, False).free_nats == nats


@pytest.mark.parametrize(("share", "labeled"), [(0.25, 4), (0.3, 5), (0.5, 8), (0.0, 1), (1.0, 15)])
def test_the_labeled_share_of_a_batch_is_the_one_asked_for(dataset, share, labeled):
    read, method = built(dataset, "lawm", settings=["train.batch=16", f"train.labeled_share={share}"])
    assert method._windows(read).batch(0).num_labeled == labeled


@pytest.mark.parametrize("part", [2.0, 0.7], ids=["whole", "moving"])
def test_windows_are_drawn_as_asked(dataset, part):
    """Of 2,400 windows over the ends or not: how many begin with an episode tells them apart."""
    size = f"train.pool_gb={part * job(dataset).gigabytes}"
    first = []
    for even in ("true", "false"):
        settings = [size, "train.batch=600", f"train.even={even}"]
        read, method = built(dataset, "lawm", settings=settings)
        windows = method._windows(read)
        starts = {tuple(row) for episode in everything(dataset) for row in [episode.observation[0].tolist()]}
        batches = [windows.batch(i).observation[0, 0].tolist() for i in range(4)]
        first.append(sum(tuple(row) in starts for batch in batches for row in batch))
    assert first[0] > 1.5 * first[1] > 0, first


# by section and configuration: the method that has it, and other values than half of the default or one more
SECTIONS = {
    "model": (
        lawm.Config,
        "lawm",
        {
            "free_nats": 5,
            "latent_free_nats": 5,
            "clip": 1e-3,
            "prior": "learned",
            "observation_floor": 5,
            "observation_clip": 0.5,
            "weight_decay": 0.1,
        },
    ),
    "model.weights": (lawm.Weights, "lawm", {}),
    "agent.clap": (clap.Config, "lawm", {"clip": 1e-3}),
    "agent.td3bc": (td3bc.Config, "td3bc", {"noise_clip": 0.05, "actor_every": 1}),
    "agent.bc": (bc.Config, "bc", {"clip": 1e-3}),
    "agent.idm": (idm.Config, "idm-td3bc", {"clip": 1e-3, "held_out": 0.0}),
}
# rounding, which a CPU need not do; a section of its own; when weights are chosen, see test_idm.py; of acting alone
NOT_OF_UPDATES = {"products", "weights", "choose_every", "sample_state"}
CASES = [
    (section, field.name)
    for section, (config, *_) in SECTIONS.items()
    for field in fields(config)
    if field.name not in NOT_OF_UPDATES and field.name != "updates"
]


def another(value):
    if isinstance(value, bool):
        return str(not value).lower()
    return value + 1 if isinstance(value, int) else 0.5 * value


def after_updates(dataset, method, *settings):
    """Every tensor after six updates of the first phase."""
    read, made = built(dataset, method, settings=["train.joint=true", *settings])
    phase = made.phases(read)[0]
    for i in range(6):
        phase.step(i)
    return state_of(made)


@pytest.fixture(scope="module")
def by_default(dataset):
    return cache(lambda method: after_updates(dataset, method))


def differ(ours, theirs):
    return ours.keys() != theirs.keys() or any(
        x.shape != theirs[name].shape or not torch.equal(x, theirs[name]) for name, x in ours.items()
    )


@pytest.mark.parametrize(("section", "key"), CASES)
def test_every_setting_is_one_that_training_depends_on(dataset, by_default, section, key):
    config, method, chosen = SECTIONS[section]
    value = chosen.get(key, another(getattr(config(), key)) if key not in chosen else None)
    assert differ(after_updates(dataset, method, f"{section}.{key}={value}"), by_default(method))


@pytest.mark.parametrize(
    "key", [field.name for field in fields(SMALL) if field.name not in {"products", "updates", "batch", "window"}]
)
def test_every_setting_of_a_collector_is_one_that_its_updates_depend_on(key):
    plain, chosen = replace(SMALL, free_nats=0.0), {"clip": 1e-3, "free_nats": 20.0}
    changed = replace(plain, **{key: chosen.get(key, another(getattr(plain, key)))})
    states = []
    for config in (plain, changed):
        windows, agent = dreamer_windows(), Dreamer(config, [0], 5, 2)
        for i in range(3):
            agent.update(windows.batch(i, "replay"), Noise([0], "learn", i))
        states.append(agent.state_dict())
    assert differ(*states)
