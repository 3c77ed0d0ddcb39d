"""The FC2 index: both ways to name a split, every wrong list, the check of all files, holdout, fingerprint."""

import os
import shutil

import mini_fc2
import pytest
from mini_fc2 import FAULTS, data_cfg, make_set, write_lists, write_sample

from edgeflownas.data.fc2_index import build_index, verify_all, verify_sample
from edgeflownas.errors import DataError, UserError


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound")
    make_set(root)
    return root


@pytest.fixture
def small(tmp_path):
    make_set(tmp_path, train=2, val=1)
    return tmp_path


def _edit(root, name, change):
    path = root / f"FC2_{name}.txt"
    path.write_bytes(change(path.read_bytes()))


def test_lists(sound):
    calls = []
    index = build_index(data_cfg(sound), 1, progress=lambda done, total: calls.append((done, total)))
    assert index.source == "lists"
    assert [s.name for s in index.train] == [f"train/{n:07d}" for n in range(100, 107)]
    assert [s.name for s in index.val] == [f"train/{n:07d}" for n in range(107, 112)]
    sample = index.train[0]
    assert (sample.height, sample.width) == (37, 53)
    stem = os.path.join(os.path.realpath(str(sound)), "train", "0000100")
    assert sample[1:4] == (stem + "-img_0.png", stem + "-img_1.png", stem + "-flow_01.flo")
    assert calls == [(i + 1, 12) for i in range(12)]
    assert build_index(data_cfg(sound), 2, check=False) == index


def test_order_is_that_of_the_lists(small):
    _edit(small, "train", lambda data: b"1\n0\n")
    assert [s.name for s in build_index(data_cfg(small), 1).train] == ["train/0000101", "train/0000100"]


@pytest.mark.parametrize(
    "prefix",
    [
        "/Datasets/FlyingChairs2/",
        "FlyingChairs2/",
        "/home/FlyingChairs2/old/FlyingChairs2/",
        "/data//FlyingChairs2//",
        "/elsewhere/chairs/",
        "./",
        "",
        "/",
    ],
)
def test_prefixes_are_replaced_by_the_base_path(sound, tmp_path, prefix):
    write_lists(tmp_path, [f"{prefix}train/{n:07d}-img_0.png" for n in (101, 107)], [0], [1])
    index = build_index(data_cfg(sound, list_dir=str(tmp_path)), 1)
    assert [s.name for s in index.train + index.val] == ["train/0000101", "train/0000107"]


def test_crlf_blank_lines_spaces_and_no_last_newline(small):
    expected = build_index(data_cfg(small), 1)
    for name in ("dirnames", "train", "test"):
        _edit(small, name, lambda data: b"\xef\xbb\xbf\r\n" + data.replace(b"\n", b" \r\n\r\n").rstrip())
    assert build_index(data_cfg(small), 1) == expected


ENTRY = b"/x/FlyingChairs2/train/0000%s-img_0.png\n"
BAD_LISTS = [
    ("dirnames", lambda d: ENTRY % b"100" + d, r"FC2_dirnames.txt line 2: .*once.*also in line 1"),
    ("dirnames", lambda d: d + b"/x/FlyingChairs2/../train/0000102-img_0.png\n", r"line 4: .*without '\.\.'"),
    ("dirnames", lambda d: d + b"/a/../FlyingChairs2/train/0000103-img_0.png\n", r"line 4: .*without '\.\.'"),
    ("dirnames", lambda d: d + b"train/000010\x003-img_0.png\n", "line 4: "),
    ("dirnames", lambda d: d + b"/x/FlyingChairs2/train/0000103-img_1.png\n", "line 4: .*NNNNNNN-img_0.png"),
    ("dirnames", lambda d: d + b"/x/FlyingChairs2/train/103-img_0.png\n", "line 4: .*NNNNNNN-img_0.png"),
    ("dirnames", lambda d: d + b"./\n", "line 4: .*NNNNNNN-img_0.png, found './'"),
    ("dirnames", lambda d: d + b"/x/FlyingChairs2/train/0000103-img_0.png.txt\n", "line 4: .*NNNNNNN-img_0.png"),
    ("dirnames", lambda d: d + b"\xff\xfe\n", "FC2_dirnames.txt: .*UTF-8"),
    ("dirnames", lambda d: b"", "expected an index below 0"),
    ("train", lambda d: d + b"3\n", "FC2_train.txt line 3: .*index below 3.*found 3"),
    ("train", lambda d: b"-1\n" + d, "FC2_train.txt line 1: .*integer from 0.*'-1'"),
    ("train", lambda d: b"0\n\n1.0\n", r"FC2_train.txt line 3: .*integer.*'1\.0'"),
    ("train", lambda d: b"0 1\n", "FC2_train.txt line 1: .*integer.*'0 1'"),
    ("train", lambda d: b"1_0\n", "FC2_train.txt line 1: .*integer"),
    ("train", lambda d: "\u0661\n".encode(), "FC2_train.txt line 1: .*integer"),
    ("train", lambda d: b"99999999999999999999\n", "FC2_train.txt line 1: .*integer"),
    ("train", lambda d: b"0\n1\n0\n", "FC2_train.txt line 3: .*once.*0 also in .*FC2_train.txt line 1"),
    ("test", lambda d: d + b"1\n", "FC2_test.txt line 2: .*once.*1 also in .*FC2_train.txt line 2"),
    ("train", lambda d: b"", "at least one training sample"),
    ("test", lambda d: b"\n", "at least one validation sample"),
]


@pytest.mark.parametrize("name, change, message", BAD_LISTS, ids=[m for _, _, m in BAD_LISTS])
def test_wrong_lists(small, name, change, message):
    _edit(small, name, change)
    with pytest.raises(DataError, match=message) as caught:
        build_index(data_cfg(small), 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["dirnames", "train", "test"])
def test_a_missing_list_is_named_and_never_replaced_by_folders(small, name):
    shutil.copytree(str(small / "train"), str(small / "val"))
    os.remove(str(small / f"FC2_{name}.txt"))
    with pytest.raises(DataError, match=f"FC2_{name}.txt: expected a list file"):
        build_index(data_cfg(small), 1)


def test_list_dir_must_hold_the_lists(small, tmp_path):
    with pytest.raises(DataError, match="nowhere.*FC2_dirnames.txt: expected a list file"):
        build_index(data_cfg(small, list_dir=str(tmp_path / "nowhere")), 1)


@pytest.mark.parametrize("base_path", ["", "/no/such/folder"])
def test_base_path_must_be_a_folder(base_path):
    with pytest.raises(UserError, match="data.base_path.*--base_path"):
        build_index(data_cfg(base_path), 1)


def test_a_folder_without_a_set(tmp_path):
    with pytest.raises(DataError, match="expected FC2_dirnames.txt or a folder train/"):
        build_index(data_cfg(tmp_path), 1)


def test_a_linked_folder_that_leaves_the_root(tmp_path):
    make_set(tmp_path / "other", train=2, val=1)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "train").symlink_to(tmp_path / "other" / "train")
    for name in os.listdir(str(tmp_path / "other")):
        if name.endswith(".txt"):
            shutil.copy(str(tmp_path / "other" / name), str(tmp_path / "root"))
    with pytest.raises(DataError, match="FC2_dirnames.txt line 1: .*below the data root.*other/train"):
        build_index(data_cfg(tmp_path / "root"), 1)
    for name in ("dirnames", "train", "test"):
        os.remove(str(tmp_path / "root" / f"FC2_{name}.txt"))
    with pytest.raises(DataError, match="root/train: .*below the data root.*other/train"):
        build_index(data_cfg(tmp_path / "root"), 1)


def test_a_linked_file_that_leaves_the_root(small, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "frame.png"
    path = small / "train" / "0000101-img_1.png"
    shutil.move(str(path), str(elsewhere))
    path.symlink_to(elsewhere)
    with pytest.raises(DataError, match="0000101-img_1.png: .*below the data root"):
        build_index(data_cfg(small), 1)


def test_the_base_path_itself_may_be_a_link(small, tmp_path_factory):
    link = tmp_path_factory.mktemp("links") / "chairs"
    link.symlink_to(small)
    assert build_index(data_cfg(link), 1) == build_index(data_cfg(small), 1)


def _folders(root):
    for name in ("train/0000003", "train/0000001", "val/0000001"):
        write_sample(root, name, 1)


def test_folders(tmp_path):
    _folders(tmp_path)
    (tmp_path / "train" / "0000001-flow_10.flo").write_bytes(b"FC2 has more files than these three")
    index = build_index(data_cfg(tmp_path), 1)
    assert index.source == "folders"
    assert [s.name for s in index.train] == ["train/0000001", "train/0000003"]
    assert [s.name for s in index.val] == ["val/0000001"]


@pytest.mark.parametrize("suffix", ["-img_0.png", "-img_1.png", "-flow_01.flo"])
def test_folders_drop_no_incomplete_triplet(tmp_path, suffix):
    _folders(tmp_path)
    os.remove(str(tmp_path / "train" / ("0000003" + suffix)))
    with pytest.raises(DataError, match="0000003" + suffix):
        build_index(data_cfg(tmp_path), 1)


def test_folders_with_a_wrong_name_or_without_val(tmp_path):
    _folders(tmp_path)
    shutil.copy(str(tmp_path / "train" / "0000001-img_0.png"), str(tmp_path / "train" / "1-img_0.png"))
    with pytest.raises(DataError, match="1-img_0.png: expected a name NNNNNNN-img_0.png"):
        build_index(data_cfg(tmp_path), 1)
    os.remove(str(tmp_path / "train" / "1-img_0.png"))
    shutil.rmtree(str(tmp_path / "val"))
    with pytest.raises(DataError, match="val: expected a folder"):
        build_index(data_cfg(tmp_path), 1)
    assert len(build_index(data_cfg(tmp_path, holdout=1), 1).train) == 1


def test_holdout(sound, tmp_path):
    shutil.copytree(str(sound), str(tmp_path / "set"))
    os.remove(str(tmp_path / "set" / "FC2_test.txt"))  # Not used at all.
    index = build_index(data_cfg(tmp_path / "set", holdout=3), 5)
    names = [s.name for s in build_index(data_cfg(sound), 5).train]
    train, val = [s.name for s in index.train], [s.name for s in index.val]
    assert len(val) == 3 and sorted(train + val) == names and train == sorted(train) and val == sorted(val)
    draws = {tuple(s.name for s in build_index(data_cfg(sound, holdout=3), seed).val) for seed in range(12)}
    assert len(draws) > 6
    assert val == ["train/0000101", "train/0000102", "train/0000105"]  # On every stack.


@pytest.mark.parametrize("holdout", [7, 8, -1])
def test_holdout_out_of_range(sound, holdout):
    with pytest.raises(UserError, match="data.holdout: expected 0 .off. to 6"):
        build_index(data_cfg(sound, holdout=holdout), 1)


def test_fingerprint_knows_order_split_name_and_size_but_no_path(small, tmp_path_factory):
    first = build_index(data_cfg(small), 1).fingerprint
    copy = tmp_path_factory.mktemp("copy") / "set"
    shutil.copytree(str(small), str(copy))
    assert build_index(data_cfg(copy), 9).fingerprint == first
    prints = {first}
    for name, lines in (("train", b"1\n0\n"), ("train", b"0\n2\n"), ("train", b"0\n")):
        if lines == b"0\n2\n":
            _edit(copy, "test", lambda data: b"1\n")
        _edit(copy, name, lambda data, lines=lines: lines)
        prints.add(build_index(data_cfg(copy), 1).fingerprint)
    assert len(prints) == 4


def test_fingerprint_knows_where_training_ends(sound, tmp_path):
    """The same sequence of samples, divided elsewhere, is other data."""
    prints = []
    for train in (3, 4):
        lists = tmp_path / str(train)
        lists.mkdir()
        entries = [f"/x/train/{number:07d}-img_0.png" for number in range(100, 106)]
        write_lists(lists, entries, range(train), range(train, 6))
        index = build_index(data_cfg(sound, list_dir=str(lists)), 1)
        assert [len(index.train), len(index.val)] == [train, 6 - train]
        prints.append((index.fingerprint, [sample.name for sample in index.train + index.val]))
    assert prints[0][0] != prints[1][0] and prints[0][1] == prints[1][1]


def test_frames_smaller_than_the_crop(small):
    build_index(data_cfg(small, input_height=37, input_width=53), 1)
    for crop in ({"input_height": 38}, {"input_width": 54}):
        with pytest.raises(DataError, match="0000100-img_0.png: expected frames of at least the crop .*found 53x37"):
            build_index(data_cfg(small, **crop), 1)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.id for fault in FAULTS])
def test_fault_table(sound, fault):
    """Faults in headers, lengths and existence are found before training; all are found by the full check."""
    index = build_index(data_cfg(sound), 1)
    bad = index.train[4]
    with mini_fc2.damaged(bad.flow[: -len("-flow_01.flo")], fault) as path:
        if fault.in_headers:
            with pytest.raises(DataError) as caught:
                build_index(data_cfg(sound), 1)
            assert str(caught.value).startswith(path + ": expected") and fault.words in str(caught.value)
        else:
            assert build_index(data_cfg(sound), 1) == index
        for check in (lambda: verify_sample(bad), lambda: verify_all(index.train, workers=2)):
            with pytest.raises(DataError) as caught:
                check()
            message = str(caught.value)
            assert message.startswith(path + ": expected") and fault.words in message and "\n" not in message
    verify_sample(bad)


def test_verify_all_names_every_bad_sample(sound):
    index, calls = build_index(data_cfg(sound), 1), []
    nan, cut = (next(fault for fault in FAULTS if fault.id == id) for id in ("flo with NaN", "png cut in its pixels"))
    with mini_fc2.damaged(index.train[2].flow[:-12], nan) as path, mini_fc2.damaged(index.val[1].flow[:-12], cut):
        with pytest.raises(DataError) as caught:
            verify_all(index.train + index.val, workers=3, progress=lambda *call: calls.append(call))
    message = str(caught.value)
    assert message.startswith(path) and "bad samples in all: 2 (train/0000102, train/0000108)" in message
    assert calls[-1] == (12, 12)


def test_the_first_bad_sample_is_reported_whatever_the_threads_do(sound):
    index = build_index(data_cfg(sound), 1)
    gone = next(fault for fault in FAULTS if fault.id == "flow missing")
    with mini_fc2.damaged(index.train[1].flow[:-12], gone) as path, mini_fc2.damaged(index.val[0].flow[:-12], gone):
        for _ in range(5):
            with pytest.raises(DataError) as caught:
                build_index(data_cfg(sound), 1)
            assert str(caught.value).startswith(path)


def test_lists_as_the_group_has_them(sound, tmp_path):
    """Absolute paths of another machine, shuffled; both splits shuffled; an entry that neither of them uses."""
    numbers = [106, 100, 111, 103, 108]
    write_lists(tmp_path, [f"/Datasets/FlyingChairs2/train/{n:07d}-img_0.png" for n in numbers], [3, 0], [4, 1])
    index = build_index(data_cfg(sound, list_dir=str(tmp_path)), 1)
    assert [s.name[-3:] for s in index.train + index.val] == ["103", "106", "108", "100"]
