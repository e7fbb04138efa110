"""`lawm-data push` in a process of its own, against the loopback Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from loopback_hub import READ_TOKEN, TOKEN, LoopbackHub, Request, Response
from made_dataset import made_episodes, make_dataset
from processes import python

from lawm_data import files, hub, publish
from lawm_data.errors import UserError
from lawm_data.manifest import NAME, Manifest

ROOT = Path(__file__).parent.parent
REPO = "tester/lawm-custom-made"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def fresh(server: LoopbackHub) -> Iterator[LoopbackHub]:
    """The same server without repositories."""
    server.repositories.clear()
    server.requests.clear()
    yield server
    server.fault = None


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    make_dataset(root / "dataset" / "custom-made", made_episodes())
    return root


def push(server: LoopbackHub, root: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lawm_data.cli", "push", "--root", str(root), *options],
        env={**os.environ, **server.environment(), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def pushed(server: LoopbackHub, root: Path, *options: str) -> str:
    answer = push(server, root, *options)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def refused(answer: subprocess.CompletedProcess[str]) -> str:
    """The error line of a command that must fail; it is one line and holds no token."""
    assert answer.returncode == 2, answer.stdout + answer.stderr
    line = answer.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ") and "Traceback" not in answer.stderr
    assert TOKEN not in answer.stdout + answer.stderr
    return line


def commits(server: LoopbackHub) -> int:
    return sum(method == "POST" and "/commit/" in path for method, path, _ in server.requests)


def digests(server: LoopbackHub, repo: str = REPO) -> dict[str, str]:
    return {path: file.sha256 for path, file in server.files(repo).items() if path != ".gitattributes"}


def expected(folder: Path, with_actions: bool = False) -> dict[str, str]:
    manifest = Manifest.load(folder)
    withheld = {path for _, split, path in manifest.shards() if split == "withheld"}
    published = {path: entry.sha256 for path, entry in manifest.files.items() if with_actions or path not in withheld}
    return published | {NAME: files.sha256(folder / NAME)}


def test_one_commit_makes_the_repository_equal_to_the_folder(fresh: LoopbackHub, workspace: Path) -> None:
    folder = workspace / "dataset" / "custom-made"
    said = pushed(fresh, workspace, "--tag", "v1")
    assert digests(fresh) == expected(folder)
    assert not any("withheld" in path for path in digests(fresh))
    assert commits(fresh) == 1
    head = fresh.dataset(REPO).branches["main"]
    assert fresh.dataset(REPO).tags == {"v1": head}
    assert head in said and f"{len(expected(folder))} files to upload" in said and f"{REPO}@v1" in said

    home = workspace / "home"
    again = push(fresh, workspace, "--tag", "v1", HF_HOME=str(home))
    assert "no commit made" in again.stdout and not list(home.rglob(NAME)), "the cache would hold a manifest alone"
    assert fresh.dataset(REPO).branches["main"] == head and commits(fresh) == 1

    pushed(fresh, workspace, "--with-actions")
    assert digests(fresh) == expected(folder, with_actions=True)
    pushed(fresh, workspace)
    assert digests(fresh) == expected(folder)
    assert fresh.dataset(REPO).tags == {"v1": head}


def test_smaller_split_deletes_stale_files_in_the_same_commit(fresh: LoopbackHub, tmp_path: Path) -> None:
    folder = tmp_path / "dataset" / "custom-made"
    make_dataset(folder, made_episodes(), per_shard=4)
    pushed(fresh, tmp_path)
    before = set(digests(fresh))
    shutil.rmtree(folder)
    make_dataset(folder, made_episodes(), per_shard=16)
    said = pushed(fresh, tmp_path)
    assert before - set(digests(fresh)), "the second split was to have fewer shards"
    assert digests(fresh) == expected(folder) and commits(fresh) == 2
    for path in before - set(digests(fresh)):
        assert f"deleting {path}" in said


def test_paper_tasks_have_their_names() -> None:
    assert publish.repository_name("walker-walk") == "lawm-walker"
    assert publish.repository_name("ball_in_cup-catch") == "lawm-ball_in_cup-catch"
    assert publish.repository_name("custom:made") == "lawm-custom-made"


def test_dataset_of_another_env_is_refused(fresh: LoopbackHub, workspace: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "dataset" / "custom-other", made_episodes(env="custom:other"))
    pushed(fresh, workspace)
    before = digests(fresh)
    line = refused(push(fresh, tmp_path, "--repo", REPO))
    assert REPO in line and "custom:made" in line and "custom:other" in line
    assert digests(fresh) == before


def test_dataset_of_a_newer_schema_is_not_replaced(fresh: LoopbackHub, workspace: Path) -> None:
    pushed(fresh, workspace)
    repository = fresh.dataset(REPO)
    newer = {**json.loads((workspace / "dataset/custom-made" / NAME).read_text()), "schema_version": 9}
    repository.add({NAME: fresh.store(json.dumps(newer).encode(), lfs=False)}, "of a newer version")
    before = digests(fresh)
    assert "newer lawm (schema version 9); update lawm" in refused(push(fresh, workspace))
    assert digests(fresh) == before


def test_files_of_somebody_else_are_not_deleted(fresh: LoopbackHub, workspace: Path) -> None:
    pushed(fresh, workspace)
    repository = fresh.dataset(REPO)
    repository.add({"train.parquet": fresh.store(b"precious", lfs=True)}, "another project")
    assert "train.parquet" in refused(push(fresh, workspace))
    assert set(digests(fresh)) == {"train.parquet"}


def test_push_of_somebody_else_meanwhile_is_not_overwritten(fresh: LoopbackHub, workspace: Path) -> None:
    def interfere(request: Request) -> Response | None:
        if "/preupload/" in request.path:
            fresh.dataset(REPO).add({"README.md": fresh.store(b"theirs", lfs=False)}, "theirs")
        return None

    fresh.fault = interfere
    line = refused(push(fresh, workspace))
    assert REPO in line and "run again" in line
    assert set(digests(fresh)) == {"README.md"}


def test_repository_that_differs_after_the_commit_is_reported(fresh: LoopbackHub, workspace: Path) -> None:
    def lose(request: Request) -> Response | None:
        head = fresh.dataset(REPO).branches["main"] if fresh.repositories else ""
        if commits(fresh) and request.path.endswith(f"/tree/{head}"):
            fresh.dataset(REPO).commits[head].files.pop("README.md")
        return None

    fresh.fault = lose
    line = refused(push(fresh, workspace, "--tag", "v1"))
    assert "README.md" in line and not fresh.dataset(REPO).tags


def test_damaged_folder_publishes_nothing(fresh: LoopbackHub, tmp_path: Path) -> None:
    folder = tmp_path / "dataset" / "custom-made"
    make_dataset(folder, made_episodes())
    shard = next(folder.glob("medium-replay/labeled-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert shard.name in refused(push(fresh, tmp_path))
    assert not fresh.requests


@pytest.mark.parametrize(
    ("options", "environment", "names"),
    [
        ([], {"HF_TOKEN": ""}, ["hf auth login"]),
        ([], {"HF_TOKEN": "hf_wrong"}, ["token was not accepted"]),
        (["--repo", "tester/new"], {"HF_TOKEN": READ_TOKEN}, ["tester/new", "write access"]),
        ([], {"HF_ENDPOINT": "http://127.0.0.1:9"}, ["http://127.0.0.1:9", "cannot reach"]),
        (["--private"], {}, [REPO, "public"]),
        (["--tag", "v1", "--with-actions"], {}, [REPO, "v1", "--tag"]),
    ],
)
def test_refusals_are_one_line(
    published: LoopbackHub, workspace: Path, options: list[str], environment: dict[str, str], names: list[str]
) -> None:
    before = digests(published)
    line = refused(push(published, workspace, *options, **environment))
    for name in names:
        assert name in line
    assert digests(published) == before


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, workspace: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path_factory.mktemp("published")) as running:
        pushed(running, workspace, "--tag", "v1")
        yield running


def test_withheld_actions_that_are_not_there_cannot_be_published(published: LoopbackHub, tmp_path: Path) -> None:
    folder = tmp_path / "dataset" / "custom-made"
    make_dataset(folder, made_episodes())
    shutil.rmtree(folder / "medium-replay-actions")
    assert "withheld-00000" in refused(push(published, tmp_path, "--with-actions"))


def test_what_is_locked_is_the_workspace_that_the_folder_lies_in(fresh: LoopbackHub, tmp_path: Path) -> None:
    """Not the default one; a folder that lies apart needs no lock."""
    folder, apart = tmp_path / "other" / "dataset" / "custom-made", tmp_path / "apart"
    make_dataset(folder, made_episodes())
    (tmp_path / "other" / "raw").mkdir()
    with files.lock(tmp_path / "other"):
        line = refused(push(fresh, tmp_path / "lawm", str(folder)))
    assert f"{tmp_path / 'other'}: another lawm command" in line and not fresh.repositories
    make_dataset(apart, made_episodes())
    with files.lock(tmp_path / "lawm"):
        for place in (folder, apart):
            assert "next: lawm-train" in pushed(fresh, tmp_path / "lawm", str(place))


@pytest.mark.parametrize("repo", ["walker", "tester/a b", "tester/a/b"])
def test_name_that_cannot_be_a_repository(workspace: Path, repo: str) -> None:
    with pytest.raises(UserError, match=f"{repo}: .*org/name"):
        publish.push(workspace / "dataset" / "custom-made", repo, private=False, tag=None, with_actions=False)


@pytest.mark.parametrize("name", ["org/na--me", "org/.name", "org/x.git"])
def test_a_commit_of_a_name_that_no_repository_can_have_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: no name for a repository"):
        hub.pin(name, "a" * 40)


def test_a_file_that_is_not_cached_names_the_offline_mode(fresh: LoopbackHub, workspace: Path) -> None:
    pushed(fresh, workspace)
    commit, home = fresh.dataset(REPO).branches["main"], str(workspace / "offline")
    script = "import sys; from lawm_data import hub; r = hub.pin(*sys.argv[1:3]); r.pull(sys.argv[3])"
    path = next(path for path in digests(fresh) if path.endswith(".arrow"))
    first = script.replace("; r.pull(sys.argv[3])", "")
    assert python(fresh, "-c", first, REPO, commit, HF_HOME=home).returncode == 0, "the manifest alone"
    said = python(fresh, "-c", script, REPO, commit, path, HF_HOME=home, HF_HUB_OFFLINE="1").stderr
    assert f"{REPO}: HF_HUB_OFFLINE is set" in said.splitlines()[-1]


def test_offline_mode_is_named() -> None:
    with pytest.raises(UserError, match="tester/made: HF_HUB_OFFLINE"), hub.session("tester/made"):
        raise OfflineModeIsEnabled


def test_killed_push_shows_nothing_and_sends_nothing_twice(fresh: LoopbackHub, tmp_path: Path) -> None:
    """Contents of its own, as the server keeps what other tests have sent."""
    make_dataset(tmp_path / "dataset" / "custom-made", made_episodes(length=70), per_shard=4)
    arrived, hanging = [], threading.Event()

    def hang(request: Request) -> Response | None:
        if request.method == "PUT":
            arrived.append(request.path)
            if len(arrived) >= 6:
                hanging.set()
                time.sleep(20)
        return None

    fresh.fault = hang
    with subprocess.Popen(
        [sys.executable, "-m", "lawm_data.cli", "push", "--root", str(tmp_path)],
        env={**os.environ, **fresh.environment(), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert hanging.wait(60)
        process.kill()
    while sum(method == "PUT" for method, _, _ in fresh.requests) < 5:  # the server may still be writing the fifth
        time.sleep(0.01)
    assert digests(fresh) == {}
    fresh.fault = None
    fresh.requests.clear()
    pushed(fresh, tmp_path)
    assert digests(fresh) == expected(tmp_path / "dataset" / "custom-made")
    sent = {path for method, path, _ in fresh.requests if method == "PUT"}
    assert sent and not sent & set(arrived[:5]) and commits(fresh) == 1
