"""Sign-off records: what is signed, what makes a record invalid, and which runs need one."""

import hashlib
import json
import os

import pytest

from edgeflownas import signoff
from edgeflownas.errors import UserError

ENVIRONMENT = signoff.Environment("c0de" * 10, True, {"python": "3.7.16"}, "CPU", False, "c0ffee")
CLAUSES = [{"id": "G1.1", "sentence": "water is wet", "status": "passed", "seconds": 0.25, "text": "got 1, want 1"}]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv(signoff.RECORDS_VARIABLE, raising=False)
    for name in ("edgeflownas/nas/codec.py", "gates/test_gate1.py", "configs/a.yaml", "tests/test_a.py", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def sign(root, *gates, outcome="passed"):
    for gate in gates:
        signoff.write_record(gate, root, outcome, CLAUSES, ENVIRONMENT, signoff.source_files(root))


def names(root):
    return [signoff.gate_states(root)[gate].name for gate in signoff.GATES]


def edit(root, number, **changes):
    record = signoff.read_record(number, root)
    record.update(changes)
    signoff.record_path(number, root).write_text(json.dumps(record))


def test_source_is_package_gates_and_configs_without_byte_code_and_hidden_files(root):
    (root / "edgeflownas/__pycache__").mkdir()
    (root / "edgeflownas/__pycache__/codec.pyc").write_text("x")
    (root / "gates/.test_gate1.py.swp").write_text("x")
    assert list(signoff.source_files(root)) == ["configs/a.yaml", "edgeflownas/nas/codec.py", "gates/test_gate1.py"]


def test_fingerprint_knows_names_and_bytes(root):
    first = signoff.fingerprint(signoff.source_files(root))
    (root / "configs/a.yaml").rename(root / "configs/b.yaml")
    renamed = signoff.fingerprint(signoff.source_files(root))
    (root / "configs/b.yaml").write_bytes(b"configs/a.yamL")
    edited = signoff.fingerprint(signoff.source_files(root))
    assert len({first, renamed, edited}) == 3
    (root / "configs/b.yaml").rename(root / "configs/a.yaml")
    (root / "configs/a.yaml").write_text("configs/a.yaml")
    assert signoff.fingerprint(signoff.source_files(root)) == first


def test_four_records_in_order_are_valid(root):
    assert names(root) == ["missing"] * 4
    sign(root, 1, 2, 3, 4)
    assert names(root) == ["valid"] * 4
    record = signoff.read_record(3, root)
    assert record["previous"] == signoff.read_record(2, root)["digest"]
    assert (
        record["clauses"] == CLAUSES
        and record["config_hash"] == "c0ffee"
        and record["versions"] == {"python": "3.7.16"}
    )
    assert (record["device"], record["require_gpu"], record["commit"], record["dirty"]) == (
        "CPU",
        False,
        "c0de" * 10,
        True,
    )
    assert sorted(os.listdir(str(root / "outputs/gates"))) == [f"gate{gate}.json" for gate in signoff.GATES]


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda root: (root / "configs/a.yaml").write_text("b"), "configs/a.yaml was changed"),
        (lambda root: (root / "gates/new.py").write_text(""), "gates/new.py was added"),
        (lambda root: (root / "edgeflownas/nas/codec.py").unlink(), "edgeflownas/nas/codec.py was removed"),
    ],
)
def test_stale_names_the_first_file_that_differs(root, change, reason):
    sign(root, 1, 2)
    change(root)
    assert names(root)[:2] == ["stale", "stale"]
    assert reason in signoff.verify(1, root).reason


def test_files_outside_the_source_change_nothing(root):
    sign(root, 1)
    (root / "README.md").write_text("new")
    assert signoff.verify(1, root).valid


@pytest.mark.parametrize(
    "key",
    [
        "format",
        "gate",
        "space",
        "outcome",
        "commit",
        "dirty",
        "time",
        "fingerprint",
        "files",
        "config_hash",
        "versions",
        "device",
        "require_gpu",
        "clauses",
        "previous",
        "digest",
    ],
)
def test_an_edit_of_any_field_does_not_verify(root, key):
    sign(root, 1, 2)
    edit(root, 2, **{key: "edited"})
    assert signoff.verify(2, root).name == "edited"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_a_damaged_record_does_not_verify(root, text):
    sign(root, 1)
    signoff.record_path(1, root).write_text(text)
    assert signoff.verify(1, root).name == "edited"


def test_a_record_copied_over_another_gate_does_not_verify(root):
    sign(root, 1, 2)
    signoff.record_path(2, root).write_bytes(signoff.record_path(1, root).read_bytes())
    assert signoff.verify(2, root).name == "edited"


def test_what_is_said_of_a_record(root):
    sign(root, 1, 2, 3)
    signed = signoff.read_record(2, root)["time"]
    assert signoff.verify(2, root).reason == f"signed at {signed}, commit c0dec0dec0de"
    edit(root, 1, time="2001-01-01T00:00:00Z")
    assert signoff.verify(2, root).reason == "gate 1 is edited: the record does not match its digest"
    edit(root, 1, digest=signoff.digest(signoff.read_record(1, root)))
    assert signoff.verify(2, root).reason == "gate 1 was signed again after this gate"
    assert signoff.verify(3, root).reason == "gate 2 is broken: gate 1 was signed again after this gate"


def test_a_record_is_of_format_1_and_its_digest_is_sha_256_of_its_json(root):
    """Records stay when the program changes: another format or digest would throw away every sign-off."""
    signoff.write_record(1, root, "passed", CLAUSES, ENVIRONMENT._replace(device="Gerät 0"), signoff.source_files(root))
    record = json.loads(signoff.record_path(1, root).read_text(encoding="utf-8"))
    assert record["format"] == 1 and record["gate"] == 1 and record["previous"] is None
    stated = record.pop("digest")
    text = json.dumps(record, sort_keys=True)
    assert "Ger\\u00e4t 0" in text and stated == hashlib.sha256(text.encode("ascii")).hexdigest()
    assert signoff.verify(1, root).valid


@pytest.mark.parametrize("before", [None, "{", "[]"])
def test_a_gate_signed_after_no_readable_record_has_no_link_and_is_broken(root, before):
    if before is not None:
        signoff.record_path(1, root).parent.mkdir(parents=True)
        signoff.record_path(1, root).write_text(before)
    sign(root, 2)
    assert signoff.read_record(2, root)["previous"] is None
    assert signoff.verify(2, root).name == "broken"
    sign(root, 1)
    assert signoff.verify(2, root).name == "broken"


def test_broken_chain(root):
    sign(root, 1, 2, 3)
    edit(root, 1, device="GPU")
    assert names(root) == ["edited", "broken", "broken", "missing"]
    sign(root, 1)
    edit(root, 1, time="2001-01-01T00:00:00Z")  # signed again at another time, with a digest that fits
    edit(root, 1, digest=signoff.digest(signoff.read_record(1, root)))
    assert names(root) == ["valid", "broken", "broken", "missing"]
    assert "signed again" in signoff.verify(2, root).reason
    signoff.record_path(1, root).unlink()
    assert names(root) == ["missing", "broken", "broken", "missing"]


def test_a_failed_gate_loses_its_sign_off_and_breaks_the_later_ones(root):
    sign(root, 1, 2, 3)
    sign(root, 2, outcome="failed")
    assert names(root) == ["valid", "failed", "broken", "missing"]


def test_only_two_outcomes_are_written(root):
    with pytest.raises(ValueError, match="partial"):
        sign(root, 1, outcome="partial")


def test_a_write_that_is_cut_leaves_the_old_record(root, monkeypatch):
    sign(root, 1)
    before = signoff.record_path(1, root).read_bytes()

    def cut(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(UserError, match="disk full"):
        sign(root, 1, outcome="failed")
    assert signoff.record_path(1, root).read_bytes() == before


def test_require_gate_stops_in_one_line_with_the_command(root):
    (root / "gates" / "__main__.py").write_text("")  # a checkout, not an installed package
    sign(root, 1, 2)
    with pytest.raises(UserError) as caught:
        signoff.require_gate(3, root)
    text = str(caught.value)
    assert "\n" not in text and text.endswith("run: python -m pytest gates -m gate3") and "missing" in text
    sign(root, 3)
    signoff.require_gate(3, root)


def test_records_in_another_folder(root, tmp_path, monkeypatch):
    sign(root, 1)
    monkeypatch.setenv(signoff.RECORDS_VARIABLE, str(tmp_path / "elsewhere"))
    assert signoff.verify(1, root).name == "missing"
    sign(root, 1)
    assert (tmp_path / "elsewhere/gate1.json").exists() and signoff.verify(1, root).valid


def test_each_space_has_records_of_its_own(root):
    (root / "gates" / "__main__.py").write_text("")  # a checkout, not an installed package
    sign(root, 1)
    signoff.write_record(1, root, "passed", CLAUSES, ENVIRONMENT, signoff.source_files(root), "edgeflownet_v2")
    signoff.write_record(2, root, "passed", CLAUSES, ENVIRONMENT, signoff.source_files(root), "edgeflownet_v2")
    assert names(root) == ["valid", "missing", "missing", "missing"]
    states = signoff.gate_states(root, "edgeflownet_v2")
    assert [states[gate].name for gate in signoff.GATES] == ["valid", "valid", "missing", "missing"]
    with pytest.raises(UserError, match="pytest gates -m gate3 --space edgeflownet_v2$"):
        signoff.require_gate(3, root, "edgeflownet_v2")
    signoff.record_path(1, root).write_bytes(signoff.record_path(1, root, "edgeflownet_v2").read_bytes())
    assert signoff.verify(1, root).name == "edited"
