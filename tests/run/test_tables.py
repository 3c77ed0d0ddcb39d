"""Tables and traces: what is written, how a resume cuts them back, and what the reader refuses."""

import json
import os
from typing import NamedTuple

import numpy as np
import pytest
from other_process import child

from edgeflownas.errors import UserError
from edgeflownas.run.append_only import JsonLines, TableWriter
from edgeflownas.run.rows import EvaluationRow, ScoreRow, StepRow, SubnetRow, TimingRow, columns, real
from edgeflownas.run.tables import WrongCell, read_table


class Row(NamedTuple):
    step: int
    lr: float
    code: str


def row(step):
    return Row(step, 1e-4 * step, "012")


def read(path):
    """The rows of a table as texts."""
    return list(zip(*read_table(path, Row).texts))


def test_a_table_is_plain_csv_with_one_header_and_float32_reals(tmp_path):
    path = str(tmp_path / "t.csv")
    table = TableWriter(path, Row)
    table.append(Row(code="012001210", step=np.int64(7), lr=0.1))
    table.append(Row(8, np.float64(1) / 3, "x"))
    with open(path, "rb") as handle:  # still open for writing: every row is with the system at once
        assert handle.read() == b"step,lr,code\n7,0.1,012001210\n8,0.33333334,x\n"
    table.close()
    again = TableWriter(path, Row)
    again.append(Row(9, float("nan"), ""))
    again.close()
    assert read(path) == [("7", "0.1", "012001210"), ("8", "0.33333334", "x"), ("9", "nan", "")]


def test_real_is_the_shortest_text_that_gives_the_float32_back():
    values = np.random.RandomState(3).standard_normal(61) * 10.0 ** np.arange(-30, 31)
    for value in list(values.astype(np.float32)) + [1e-4, 1 / 3, 16777216.0, 1e16, 0.0]:
        assert np.float32(real(value)) == np.float32(value)
    for value, text in [(0.1, "0.1"), (np.float32(0.1), "0.1"), (1, "1.0"), (1e-5, "1e-05")]:
        assert real(value) == text


@pytest.mark.parametrize(
    "bad",
    [
        (1, 0.1, "0"),
        StepRow(1, 1, 0.1, 1.0, 1.0, 1.0, 1.0),
        row(1)._replace(code="0,1"),
        row(1)._replace(code="a\nb"),
        row(1)._replace(code=7),
        row(1)._replace(step=1.0),
        row(1)._replace(step=True),
        row(1)._replace(code="\u00e9"),
    ],
    ids=str,
)
def test_a_row_that_would_not_read_back_is_refused(tmp_path, bad):
    table = TableWriter(str(tmp_path / "t.csv"), Row)
    with pytest.raises(ValueError):
        table.append(bad)
    table.append(row(2))
    table.close()
    assert len(read(table.path)) == 1


def test_a_length_that_a_checkpoint_relies_on_is_on_the_disk_first(tmp_path, monkeypatch):
    table, flushed = TableWriter(str(tmp_path / "t.csv"), Row), []
    table.append(row(1))
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    assert table.length() == os.path.getsize(table.path)
    assert flushed == [table.path]
    table.close()


def test_a_resume_cuts_back_to_the_saved_length_and_goes_on(tmp_path):
    path = tmp_path / "t.csv"
    table = TableWriter(str(path), Row)
    empty = table.length()
    assert path.read_bytes() == b"step,lr,code\n" and empty == 13
    for step in range(5):
        table.append(row(step))
        if step == 2:
            saved = table.length()
    whole = path.read_bytes()
    table.close()
    with path.open("ab") as handle:
        handle.write(b"5,0.00")  # killed in the middle of a row
    resumed = TableWriter(str(path), Row)
    for _ in range(2):  # and once more, as after a kill during the resume
        resumed.cut_back(saved)
        assert [step for step, _, _ in read(path)] == ["0", "1", "2"]
    for step in (3, 4):
        resumed.append(row(step))
    assert path.read_bytes() == whole
    resumed.cut_back(empty)
    resumed.append(row(0))
    resumed.close()
    assert len(read(path)) == 1


CONTENT = b"step,lr,code\n0,0.0,012\n1,0.1,012\n"


@pytest.mark.parametrize(
    "damage, length, said",
    [
        (lambda path: path.write_bytes(CONTENT[:-4]), len(CONTENT), "has 29 bytes, want the 33"),
        (lambda path: path.unlink(), len(CONTENT), "No such file"),
        (lambda path: path.write_bytes(b""), len(CONTENT), "has 0 bytes"),
        (lambda path: path.write_bytes(CONTENT.replace(b"lr", b"mu")), len(CONTENT), "header is 'step,mu,code"),
        (lambda path: path.write_bytes(CONTENT + b"2,0.2,012\n"), len(CONTENT) + 2, "no line ends at byte 35"),
        (lambda path: None, 5, "no line ends at byte 5"),
    ],
)
def test_a_file_that_is_not_the_one_the_checkpoint_knows_is_refused_untouched(tmp_path, damage, length, said):
    path = tmp_path / "t.csv"
    path.write_bytes(CONTENT)
    damage(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(UserError, match=said) as caught:
        TableWriter(str(path), Row).cut_back(length)
    assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize("content", [b"step,lr\n1,2\n", CONTENT + b"2,0.", b"step,l"])
def test_rows_are_never_added_to_another_table_or_after_half_a_row(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match="move"):
        TableWriter(str(path), Row).append(row(1))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "empty"),
        (CONTENT[:-1], "ends in the middle of a line"),
        (b"a,b\n1,2\n", "expected the header step,lr,code, found 'a,b'"),
        (CONTENT + b"2,0.2\n", "line 4"),
        (CONTENT + b"2,0.2,0,1\n", "line 4"),
        (CONTENT + b"\n", "line 4"),
        (CONTENT + CONTENT, "line 4: expected a row, found the header again"),
        (CONTENT + b"2,\0\0\0,012\n", "line 4"),
    ],
)
def test_a_damaged_table_is_refused_by_the_reader(tmp_path, content, said):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read(path)


def test_json_lines_grow_and_are_cut_back_like_tables(tmp_path):
    path = tmp_path / "trace.jsonl"
    lines = JsonLines(str(path))
    assert lines.length() == 0
    lines.append({"step": 0, "event": "forward"})
    saved = lines.length()
    lines.append({"step": 1, "event": "forward"})
    lines.cut_back(saved)
    lines.append({"step": 1, "event": "backward"})
    lines.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 0, "event": "forward"},
        {"step": 1, "event": "backward"},
    ]
    with pytest.raises(UserError, match="want the 999"):
        lines.cut_back(999)


@pytest.mark.parametrize("limit", [7, 1009])
def test_a_full_disk_leaves_whole_rows_and_says_which_file(tmp_path, limit):
    """A real short write, the file size being limited in another process. 7 bytes: not even the header."""
    path = tmp_path / "t.csv"
    full = child(f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
class Line(NamedTuple):
    step: int
    text: str
table = TableWriter({str(path)!r}, Line)
try:
    for step in range(100):
        table.append(Line(step, "x" * 23))
except UserError as error:
    print(error)
""")
    out, err = full.communicate(timeout=60)
    assert err == ""
    assert out.startswith(f"cannot write {path}: File too large")
    if limit == 7:
        assert path.read_bytes() == b""
    else:  # the header's 10 bytes, 10 rows of 26, 27 rows of 27: one more would need 1026
        assert path.read_bytes().count(b"\n") == 38


# -- columns --


def test_the_headers_are_those_of_the_first_version_and_the_space_at_the_end():
    """The headers are literals, because folders of the first version must be readable, resumable and reportable."""
    assert ",".join(columns(StepRow)) == "step,epoch,lr,loss,l2_loss,grad_norm_before,grad_norm_after"
    assert ",".join(columns(EvaluationRow, 15)) == (
        "epoch,global_step,mean_epe_15,std_epe_15,fairness_gap,zero_flow_epe,best_mean_epe_15,best_epoch,"
        "early_stop_wait,train_loss,lr,grad_norm_before_mean,grad_norm_after_max,clip_share,bn_recal_batches,num_samples"
    )
    assert ",".join(columns(SubnetRow)) == ("epoch,global_step,arch_code,epe,rank,bn_recal_batches,num_samples,space")
    assert ",".join(columns(TimingRow)) == (
        "epoch,global_step,train_seconds,eval_seconds,cycles_per_second,input_wait_share"
    )
    assert ",".join(columns(ScoreRow)) == (
        "arch_code,epe,rank,parameters,multiply_adds,zero_flow_epe,bn_recal_batches,num_samples,space"
    )
    with pytest.raises(ValueError, match="size of its pool"):
        columns(EvaluationRow)


def test_columns_are_attributes_texts_as_recorded_and_numbers_checked_when_asked_for(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("step,lr,code\n0,1e-04,012\n1,nan,x\n2.0,0.5,\n")
    table = read_table(path, Row)
    assert (len(table), table.cut) == (3, False)
    assert table.texts.lr == ["1e-04", "nan", "0.5"] and table.row(-1) == Row("2.0", "0.5", "")
    assert table.names == Row("step", "lr", "code")
    with pytest.raises(WrongCell, match="t.csv: line 4: column step: expected a whole number, found '2.0'"):
        table.numbers.step  # noqa: B018
    with pytest.raises(WrongCell, match="line 3: column lr: expected a finite number, found 'nan'"):
        table.numbers.lr  # noqa: B018
    loose = read_table(path, Row, finite=False)
    np.testing.assert_array_equal(loose.numbers.lr, [1e-4, np.nan, 0.5])
    with pytest.raises(AttributeError):
        loose.numbers.code  # noqa: B018
    with pytest.raises(AttributeError):
        loose.texts.loss  # noqa: B018
    assert loose.head(2).numbers.step.tolist() == [0, 1]
    assert loose.head(2).numbers.step.dtype == np.int64
    assert loose.head(1).values() == [Row(0, 1e-4, "012")]


def test_a_half_written_last_line_is_an_error_or_left_out_as_the_caller_says(tmp_path):
    path = tmp_path / "t.csv"
    for content, rows in (("step,lr,code\n0,1.0,a\n1,2.", 1), ("step,lr,code", 0)):
        path.write_text(content)
        with pytest.raises(UserError, match="middle of a line"):
            read_table(path, Row)
        table = read_table(path, Row, allow_cut=True)
        assert (len(table), table.cut) == (rows, True)


SUBNET = SubnetRow(3, 21, "000001000", 2.5, 1, 8, 5, "edgeflownet_v1:a2918d5c1871")
FIRST = b"epoch,global_step,arch_code,epe,rank,bn_recal_batches,num_samples\n2,14,000001000,2.75,1,8,5\n"


def test_a_file_of_the_first_version_keeps_its_header_and_reads_as_its_space(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(FIRST)
    table = TableWriter(str(path), SubnetRow)
    table.append(SUBNET)
    length = table.length()
    table.append(SUBNET._replace(epoch=4))
    with pytest.raises(UserError, match="a file of the first version holds space edgeflownet_v1:a2918d5c1871 only"):
        table.append(SUBNET._replace(space="edgeflownet_v2:000000000000"))
    table.cut_back(length)
    table.append(SUBNET._replace(epoch=5))
    table.close()
    assert path.read_bytes() == FIRST + b"3,21,000001000,2.5,1,8,5\n5,21,000001000,2.5,1,8,5\n"
    assert read_table(path, SubnetRow).values() == [
        SUBNET._replace(epoch=2, global_step=14, epe=2.75),
        SUBNET,
        SUBNET._replace(epoch=5),
    ]


def test_a_new_file_has_the_space(tmp_path):
    table = TableWriter(str(tmp_path / "t.csv"), SubnetRow)
    table.append(SUBNET._replace(space="edgeflownet_v2:0123456789ab"))
    table.close()
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == ("3,21,000001000,2.5,1,8,5,edgeflownet_v2:0123456789ab")
    assert read_table(tmp_path / "t.csv", SubnetRow).texts.space == ["edgeflownet_v2:0123456789ab"]
