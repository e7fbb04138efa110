"""Run folders as `lawm-train` leaves them, made of given returns, and what tests ask of tables."""

from lawm_data.runs import Run
from lawm_train import results


def make_run(path, method, seed, means, prior=None, finished=True, episodes=2, **changes):
    """A run folder of evaluations with these means, `finished` after 60 seconds."""
    run = Run(path)
    settings = {"model": {"prior": None}, "train": {"batch": 16}}
    asked = {"method": method, "oracle": False, "env": "walker-walk", "repeat": 2, "slice": "expert", "seed": seed}
    data = {"label_frac": 0.05, "label_seed": seed, "labeled": 5, "dataset": {"digest": "d" * 64, "revision": None}}
    sizes = {"observation": 24, "action": 6, "terminal": False, "free_nats": 0.0}
    run.begin({**asked, **data, "settings": settings, "sizes": sizes, "code": "c" * 40 + "+", **changes})
    if prior is not None:
        run.log({"kind": "evaluate", "phase": "model", "update": 9, "returns": [prior]})
    for update, mean in enumerate(means, 1):
        run.log({"kind": "train", "phase": "agent", "update": update, "loss": 1.0})
        run.log({"kind": "evaluate", "phase": "agent", "update": update, "returns": [mean - 1, mean + 1] * episodes})
    if finished:
        cost = {"seconds": 60.0, "seeds": 2, "memory_mb": 700}
        run.log({"kind": "finished", "phase": "agent", "update": len(means), **cost})
    return path


def six(folder):
    """Three methods and an oracle; one run is unfinished, one has lost a third of its best return."""
    return [
        make_run(folder / "a", "lawm", 0, [100, 300, 200], prior=50),
        make_run(folder / "b", "lawm", 1, [200, 400, 400], prior=70),
        make_run(folder / "c", "clap", 0, [90, 170]),
        make_run(folder / "d", "clap", 1, [290]),
        make_run(folder / "e", "td3bc", 0, [120], oracle=True, labeled=100, label_seed=0),
        make_run(folder / "f", "bc", 0, [90], finished=False),
    ]


def records(paths):
    return results.gather(paths)[0]


def row(text, *words):
    """The one line of a table that holds these words."""
    (line,) = [line for line in text.splitlines() if all(word in line for word in words)]
    return line
