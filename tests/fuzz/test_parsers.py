"""For every content of a file or code, a parser returns a value or raises its documented error: no traceback, no
hang."""

import json
import os
import struct
import tracemalloc

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeflownas import config as configuration
from edgeflownas.config import KEYS, Config
from edgeflownas.data import flow_io
from edgeflownas.data.fc2_index import DIRNAMES, TRAIN_LIST, VAL_LIST, build_index
from edgeflownas.errors import DataError, UserError
from edgeflownas.nas import arch_codec
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.search_space import get_space
from edgeflownas.run.checkpoint import CheckpointStore
from edgeflownas.run.manifest import Manifest
from edgeflownas.run.pool import load_pool, save_pool
from edgeflownas.run.rows import StepRow
from edgeflownas.run.tables import read_table

SPACE = get_space("edgeflownet_v1")
POOL = build_pool(42, 6, SPACE)

fuzz = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
SECTIONS = st.sampled_from(["data", "network", "train", "eval", "runtime", "extra"])
NAMES = st.sampled_from(sorted({name.split(".")[1] for name in KEYS})) | st.text(max_size=5)


def write(path, content):
    with open(str(path), "wb") as handle:
        handle.write(content)
    return str(path)


def mutated(content):
    """`content` with a piece replaced by other bytes."""
    return st.tuples(st.integers(0, len(content)), st.integers(0, 40), st.binary(max_size=12)).map(
        lambda cut: content[: cut[0]] + cut[2] + content[cut[0] + cut[1] :]
    )


@fuzz
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_yaml_of_any_bytes(tmp_path, content):
    try:
        assert isinstance(configuration.load(write(tmp_path / "a.yaml", content))[0], Config)
    except UserError as error:
        assert "\n" not in str(error)


@fuzz
@given(st.dictionaries(SECTIONS, st.dictionaries(NAMES, PLAIN, max_size=4) | PLAIN, max_size=3))
def test_yaml_of_any_values(tmp_path, document):
    content = yaml.safe_dump(document).encode("utf-8", "replace")
    try:
        config = configuration.load(write(tmp_path / "a.yaml", content))[0]
    except UserError:
        return
    assert configuration.from_dict(configuration.to_dict(config)) == config


@fuzz
@given(st.sampled_from(sorted(KEYS)), st.text(max_size=12) | st.integers().map(str) | st.floats().map(repr))
def test_set_of_any_text(name, text):
    try:
        value = configuration.flat(configuration.load(None, {name: text})[0])[name]
    except UserError:
        return
    assert type(value) is type(KEYS[name].default)


@fuzz
@given(PLAIN | st.text(alphabet="012, ", max_size=20) | st.lists(st.integers(-1, 3), min_size=8, max_size=10))
def test_arch_codes(code):
    try:
        values = arch_codec.parse(code, SPACE)
    except ValueError:
        return
    assert (
        len(values) == 9
        and set(values) <= {0, 1, 2}
        and arch_codec.parse(arch_codec.to_digits(values, SPACE), SPACE) == values
    )


SOUND = flow_io.flo_header(5, 3) + np.arange(30, dtype="<f4").tobytes()


@fuzz
@given(st.binary(max_size=60) | mutated(SOUND))
def test_flo_of_any_bytes(tmp_path, content):
    path = write(tmp_path / "a.flo", content)
    for read in (flow_io.read_flo, flow_io.read_flo_header):
        try:
            read(path)
        except DataError as error:
            assert path in str(error)


@pytest.mark.parametrize("width, height", [(2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (2**15, 2**16), (-1, -1), (0, 5)])
def test_a_flo_that_claims_to_be_huge_takes_no_memory(tmp_path, width, height):
    path = write(tmp_path / "a.flo", SOUND[:4] + struct.pack("<ii", width, height) + SOUND[12:])
    tracemalloc.start()
    try:
        for read in (flow_io.read_flo, flow_io.read_flo_header):
            with pytest.raises(DataError, match="a.flo"):
                read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


LINES = st.lists(
    st.text(max_size=12) | st.integers(-2, 9).map(str) | st.just("/d/FlyingChairs2/train/0000001-img_0.png"), max_size=4
)


@fuzz
@given(LINES, LINES, LINES, st.binary(max_size=6))
def test_list_files_of_any_lines(tmp_path, dirnames, train, val, tail):
    import types

    for name, lines in ((DIRNAMES, dirnames), (TRAIN_LIST, train), (VAL_LIST, val)):
        write(tmp_path / name, "\n".join(lines).encode("utf-8", "replace") + tail)
    data = types.SimpleNamespace(base_path=str(tmp_path), list_dir="", holdout=0, input_height=64, input_width=64)
    with pytest.raises(UserError):  # there is not a single frame
        build_index(data, 42)


def commit(prefix):
    for suffix in (".index", ".data-00000-of-00001"):
        write(prefix + suffix, b"tensors")


@fuzz
@given(st.data())
def test_state_files_of_any_bytes(tmp_path_factory, data):
    folder = str(tmp_path_factory.mktemp("store"))
    store = CheckpointStore(folder, lambda line: None)
    path = os.path.join(store.commit(commit, {"step": 3, "loss": 0.5}, True).path, "state.json")
    with open(path, "rb") as handle:
        sound = handle.read()
    content = data.draw(
        mutated(sound) | st.binary(max_size=50) | PLAIN.map(lambda value: json.dumps(value).encode("ascii"))
    )
    write(path, content)
    try:
        generation = CheckpointStore(folder, lambda line: None).newest_valid()
    except UserError:
        return
    assert generation.state == {"step": 3, "loss": 0.5}  # damage that changes no value, such as a blank


@fuzz
@given(st.data())
def test_manifests_of_any_bytes(tmp_path, data):
    sound = b'{"status": "running", "resumes": [], "updated": "now"}'
    content = data.draw(
        mutated(sound) | st.binary(max_size=50) | PLAIN.map(lambda value: json.dumps(value).encode("ascii"))
    )
    try:
        write(tmp_path / "train_manifest.json", content)
        fields = Manifest.open(str(tmp_path)).fields
    except UserError:
        return
    assert {"status", "resumes"} <= set(fields)


@fuzz
@given(st.data())
def test_pools_of_any_bytes(tmp_path, data):
    path = str(tmp_path / "pool.json")
    save_pool(path, POOL, 42, SPACE)
    with open(path, "rb") as handle:
        sound = handle.read()
    write(path, data.draw(mutated(sound) | st.binary(max_size=50)))
    try:
        assert np.array_equal(load_pool(path, 6, SPACE), POOL)
    except UserError:
        pass


@fuzz
@given(st.data(), st.booleans())
def test_tables_of_any_bytes(tmp_path, data, finite):
    sound = ",".join(StepRow._fields).encode("ascii") + b"\n0,1,0.1,2.0,0.0,7.5,5.0\n1,1,0.1,1.9,0.0,nan,5.0\n"
    path = write(tmp_path / "a.csv", data.draw(mutated(sound) | st.binary(max_size=80)))
    try:
        table = read_table(path, StepRow, finite=finite, allow_cut=not finite)
        rows = table.values()
    except UserError:
        return
    assert len(rows) == len(table) and not (finite and table.cut)
    assert all(isinstance(row.step, int) and isinstance(row.loss, float) for row in rows)
    assert not finite or all(np.isfinite(row).all() for row in rows)
