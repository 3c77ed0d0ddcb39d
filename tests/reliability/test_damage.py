"""Damage to the newest checkpoint, through the real `--resume`: the one before is used, with one warning that names
the damage."""

import os
import shutil

import pytest

from tests.reliability.snapshot import differences, snapshot

DATA, INDEX, STATE = "model.ckpt.data-00000-of-00001", "model.ckpt.index", "state.json"


@pytest.fixture(scope="module")
def six_steps(lab, tmp_path_factory):
    """Generations of step 3 (epoch 1, the best) and 6 (epoch 2)."""
    folder = str(tmp_path_factory.mktemp("six"))
    assert lab.run(folder, "--max_epochs", "2").code == 0
    return folder


@pytest.fixture
def folder(six_steps, tmp_path):
    shutil.copytree(six_steps, str(tmp_path / "run"), symlinks=True)
    return str(tmp_path / "run")


def generation(folder, step):
    root = os.path.join(folder, "checkpoints", "generations")
    (name,) = [name for name in os.listdir(root) if int(name.split("-")[1]) == step]
    return os.path.join(root, name)


def rewrite(name, change):
    """Damage: the content of a file of a generation becomes `change(content)`; None: it goes away."""

    def damage(folder, step):
        path = os.path.join(generation(folder, step), name)
        with open(path, "rb") as handle:
            content = change(handle.read())
        os.unlink(path)
        if content is not None:
            with open(path, "wb") as handle:
                handle.write(content)
        return path

    return damage


def flip(content):
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 16]) + content[len(content) // 2 + 1 :]


def unlink_last(folder, _step):
    os.unlink(os.path.join(folder, "checkpoints", "last"))
    return os.path.join(folder, "checkpoints", "last")


def dangling_last(folder, step):
    path = unlink_last(folder, step)
    os.symlink("generations/gen-000000099-0099", path)
    return "gen-000000099-0099"


DAMAGES = {
    f"{name} {how}": rewrite(name, change)
    for name in (DATA, INDEX, STATE)
    for how, change in {
        "cut": lambda content: content[:-7],
        "empty": lambda content: b"",
        "zeroed": lambda content: b"\0" * len(content),
        "with a flipped bit": flip,
        "missing": lambda content: None,
    }.items()
}
CI = [name for name in DAMAGES if name.startswith(STATE) or name in (DATA + " with a flipped bit", INDEX + " missing")]


@pytest.mark.parametrize("what", CI)
def test_the_one_before_is_used_with_one_warning(lab, uninterrupted, folder, what):
    path = DAMAGES[what](folder, 6)
    outcome = lab.run(folder, "--resume")
    assert outcome.code == 0
    warnings = [line for line in outcome.stderr.splitlines() if "damaged" in line]
    assert len(warnings) == 1 and path in warnings[0] and generation(folder, 3) in warnings[0]
    assert differences(snapshot(folder), uninterrupted) == []


@pytest.mark.parametrize("damage", [unlink_last, dangling_last])
def test_a_damaged_link_loses_nothing(lab, uninterrupted, folder, damage):
    named = damage(folder, 6)
    outcome = lab.run(folder, "--resume", "--max_epochs", "2")
    assert outcome.code == 0 and named in outcome.stderr and "using " + generation(folder, 6) in outcome.stderr
    assert lab.run(folder, "--resume").code == 0
    assert differences(snapshot(folder), uninterrupted) == []


def test_with_nothing_valid_left_it_is_an_error_and_nothing_is_touched(lab, folder):
    from tests.reliability.test_signals import contents

    paths = [DAMAGES[DATA + " cut"](folder, 6), DAMAGES[STATE + " missing"](folder, 3)]
    before = contents(folder)
    outcome = lab.run(folder, "--resume")
    assert outcome.code == 2 and all(path in outcome.error for path in paths)
    assert contents(folder) == before


@pytest.mark.parametrize(
    "name, said",
    [
        ("eval_epe_history.csv", "put the whole file back"),
        ("eval_pool_3.json", "eval_pool_3.json"),
        ("train_manifest.json", "train_manifest.json is damaged"),
    ],
)
def test_damage_beside_the_checkpoints_is_one_line(lab, folder, name, said):
    with open(os.path.join(folder, name), "r+b") as handle:
        handle.truncate(30)
    outcome = lab.run(folder, "--resume")
    assert outcome.code == 2 and said in outcome.error
