"""What a hostile publisher can put into a repository is refused in one line, in bounded memory, by the real client.

The publisher controls every byte and gives right digests; one table says what is done and what the line must name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from loopback_hub import LoopbackHub
from made_dataset import made_episodes, make_dataset
from processes import client

from lawm_data import shards
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.manifest import MAX_BYTES, NAME, Manifest
from lawm_train.stream import open_dataset

PEAK_MEGABYTES = 300  # interpreter, pyarrow, numpy and the client alone take 130
SHARD = "medium-replay/labeled-00000-of-00001.arrow"
Content = dict[str, bytes]
Attack = Callable[[Content], None]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    folder = tmp_path_factory.mktemp("dataset")
    make_dataset(folder, made_episodes())
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def manifest(change: Callable[[dict[str, Any]], None]) -> Attack:
    def attack(content: Content) -> None:
        value = json.loads(content[NAME])
        change(value)
        content[NAME] = json.dumps(value).encode()

    return attack


def raw_manifest(data: bytes) -> Attack:
    return lambda content: content.update({NAME: data})


def shard(make: Callable[[bytes], bytes]) -> Attack:
    """Replace a shard, and its digest and size with it."""

    def attack(content: Content) -> None:
        data = content[SHARD] = make(content[SHARD])
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        manifest(lambda value: value["files"][SHARD].update(entry))(content)

    return attack


def columns(change: Callable[[dict[str, pa.Array]], None], **options: Any) -> Attack:
    """Replace columns of the shard; nothing checks what is written."""

    def make(data: bytes) -> bytes:
        table = pa.ipc.open_file(pa.py_buffer(data)).read_all().combine_chunks()
        arrays = {name: table.column(name).chunk(0) for name in table.column_names}
        change(arrays)
        batch = pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))
        return written([batch], batch.schema, **options)

    return shard(make)


def written(batches: list[pa.RecordBatch], schema: pa.Schema, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def renamed(name: str) -> Attack:
    def change(value: dict[str, Any]) -> None:
        value["files"][name] = value["files"].pop(SHARD)
        value["slices"]["medium-replay"]["splits"]["labeled"] = [name]

    return manifest(change)


def beyond_the_buffer(data: bytes) -> bytes:
    """The last reward list claims the values up to 2^31 of a buffer that holds some hundred."""
    offsets = pa.ipc.open_file(pa.py_buffer(data)).get_batch(0).column("reward").offsets.to_numpy()
    assert data.count(offsets.tobytes()) == 1
    return data.replace(offsets.tobytes(), np.append(offsets[:-1], np.int32(2**31 - 1)).tobytes())


def longest_rows(arrays: dict[str, pa.Array]) -> None:
    arrays["length"] = pa.array([2**31 - 1] * len(arrays["length"]), pa.int32())


def no_source(arrays: dict[str, pa.Array]) -> None:
    arrays["source"] = pa.nulls(len(arrays["source"]), pa.string())


def zeros(arrays: dict[str, pa.Array]) -> None:
    """Hundreds of megabytes of zeros, a few kilobytes when compressed."""
    rows = len(arrays["observation"])
    offsets = pa.array(np.linspace(0, 10**8, rows + 1).astype(np.int32))
    arrays["observation"] = pa.ListArray.from_arrays(offsets, pa.array(np.zeros(10**8, np.float32)))


def other_schema(arrays: dict[str, pa.Array]) -> None:
    arrays["action"] = arrays.pop("reward")


def sizes(value: dict[str, Any]) -> None:
    value.update(observation_size=2**62, layout=[["state", 2**62]])


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels else []


ATTACKS: dict[str, tuple[Attack, list[str]]] = {
    "traversal": (renamed("../../../outside.arrow"), ["../../../outside.arrow", "plain path"]),
    "traversal-inside": (renamed("medium-replay/../../outside.arrow"), ["outside.arrow", "plain path"]),
    "absolute": (renamed("/etc/passwd"), ["/etc/passwd", "plain path"]),
    "dots": (renamed("medium-replay/.."), ["medium-replay/..", "plain path"]),
    "hidden": (renamed(".git/config"), [".git/config", "plain path"]),
    "backslash": (renamed("..\\outside.arrow"), ["outside.arrow", "plain path"]),
    "second-line": (renamed("a\nerror: b"), ["a?error: b", "plain path"]),
    "escape-codes": (renamed("\x1b[2Jcleared"), ["?[2Jcleared", "plain path"]),
    "env": (manifest(lambda value: value.update(env="../../outside")), ["../../outside", "no name of an env"]),
    "slice": (manifest(lambda value: value["slices"].update({"../x": value["slices"]["medium-replay"]})), ["../x"]),
    "million-rows": (manifest(lambda value: value["files"][SHARD].update(rows=10**6)), [SHARD, "1000000 rows"]),
    "ten-rows": (manifest(lambda value: value["files"][SHARD].update(rows=10)), ["6 rows", "says 10"]),
    "sizes": (manifest(sizes), ["observation_size 4611686018427387904"]),
    "giant-manifest": (raw_manifest(b"[" + b"0," * MAX_BYTES + b"0]"), [NAME, f"{MAX_BYTES} at most"]),
    "deep-manifest": (raw_manifest(b"[" * 1_000_000), [NAME, "JSON"]),
    "nan-manifest": (manifest(lambda value: value["slices"]["medium-replay"]["rule"].update(x=float("nan"))), ["NaN"]),
    "long-number": (manifest(lambda value: value.update(label_seed=10**400)), ["label_seed"]),
    "infinity": (raw_manifest(b'{"schema_version": 1, "repeat": 1e999}'), [NAME, "1e999 is no JSON number"]),
    "nested": (manifest(lambda value: value.update(collected=[{"source": nested(99)}])), [NAME, "'collected'"]),
    "nested-rule": (
        manifest(lambda value: value["slices"]["medium-replay"]["rule"].update(x=nested(99))),
        ["slices.medium-replay", "'rule'"],
    ),
    "list-manifest": (raw_manifest(b"[]"), [NAME, "JSON object"]),
    "another-size": (lambda content: content.update({SHARD: bytes(10**6)}), [SHARD, "1000000 bytes"]),
    "another-schema": (columns(other_schema), ["columns"]),
    "pickle": (shard(lambda data: b"\x80\x04cos\nsystem\n" * (len(data) // 10)), ["not readable as an Arrow file"]),
    "pointer": (shard(lambda data: shards._POINTER + bytes(len(data))), ["not readable as an Arrow file"]),
    "cut-off": (shard(lambda data: data[: len(data) // 2]), ["not readable as an Arrow file"]),
    "empty": (shard(lambda data: b""), ["rows cannot be right"]),
    "list-offsets": (shard(beyond_the_buffer), ["not readable as an Arrow file"]),
    "row-of-2-31": (columns(longest_rows), ["observation holds", "expected 10737418240"]),
    "no-source": (columns(no_source), ["a row without source"]),
    "bomb": (columns(zeros, compression="zstd"), ["not plain record batches"]),
}


@pytest.fixture(scope="module")
def answer(content: Content, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One client process that opens every hostile repository, and the intact one."""
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as hub:
        for name, (attack, _) in ATTACKS.items():
            own = dict(content)
            attack(own)
            hub.publish(f"hostile/{name}", own)
        hub.publish("honest/dataset", content)
        return {**client(hub, "pull", *(name for _, name in hub.repositories)), "requests": list(hub.requests)}


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_repository_is_refused_in_one_line(answer: dict[str, Any], name: str) -> None:
    line = answer["outcomes"][f"hostile/{name}"]["error"]
    assert line is not None, "it was read as if nothing were wrong"
    assert line.isprintable() and len(line) < 700
    for word in ATTACKS[name][1]:
        assert word in line


def test_hostile_repositories_take_bounded_memory_and_no_more_than_they_claim(answer: dict[str, Any]) -> None:
    assert answer["outcomes"]["honest/dataset"]["error"] is None
    assert answer["peak_megabytes"] < PEAK_MEGABYTES
    fetched = {path for method, path, _ in answer["requests"] if method == "GET"}
    for name, path in (("giant-manifest", NAME), ("another-size", SHARD)):
        assert not any(f"hostile/{name}/resolve" in one and one.endswith(path) for one in fetched)


def test_no_damage_to_a_shard_is_more_than_an_error(content: Content, tmp_path: Path) -> None:
    """Bytes changed at random, digest made right: each is read as some episodes or refused, never worse."""
    value = Manifest.from_json(json.loads(content[NAME]))
    path, rng, refused = tmp_path / "shard.arrow", np.random.default_rng(0), 0
    for _ in range(300):
        data = bytearray(content[SHARD])
        for place in rng.integers(0, len(data), rng.integers(1, 20)):
            data[place % rng.choice([len(data), 4000])] = rng.integers(256)
        path.write_bytes(data)
        try:
            assert all(isinstance(episode, Episode) for episode in shards.read(path, SHARD, value))
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100


def test_pointer_of_git_lfs_is_named(content: Content, tmp_path: Path) -> None:
    for path, data in content.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(shards._POINTER + b"v1\noid sha256:0\n" if path == SHARD else data)
    with pytest.raises(UserError, match=f"{SHARD}: a pointer of Git LFS.*git lfs pull"):
        list(open_dataset(str(tmp_path)).episodes("medium-replay", "labeled"))
