"""Paths are names, never patterns: a checkpoint is restored from a folder of any name."""

import os

import numpy as np
import pytest

from edgeflownas.tfcompat import restore, tf

NAMES = [
    "sweep [lr=1e-3]",
    "br[1]",
    "[",
    "a*b",
    "what?",
    "back\\slash",
    "{a,b}",
    "100% $x",
    'it\'s "it"',
    "two\nlines",
    "\u914d\u7f6e",
]


@pytest.fixture(scope="module")
def model():
    """(session, variable, saver) of one variable of three numbers."""
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("v", [3])
        yield session, variable, tf.train.Saver([variable], max_to_keep=0)


def round_trip(model, folder):
    session, variable, saver = model
    os.makedirs(folder)
    prefix = os.path.join(folder, "model.ckpt")
    variable.load([2.0, 3.0, 5.0], session)
    saver.save(session, prefix, write_meta_graph=False, write_state=False)
    variable.load([0.0, 0.0, 0.0], session)
    restore(saver, session, prefix)
    return session.run(variable)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_restored_from_a_folder_of_any_name(model, tmp_path, name):
    np.testing.assert_array_equal(round_trip(model, str(tmp_path / name / "gen")), [2.0, 3.0, 5.0])


def test_a_relative_path_too(model, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    np.testing.assert_array_equal(round_trip(model, "a[1]"), [2.0, 3.0, 5.0])


def test_even_where_the_temporary_folder_is_called_so(model, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t[1]"))
    np.testing.assert_array_equal(round_trip(model, str(tmp_path / "a[1]")), [2.0, 3.0, 5.0])


def test_the_link_is_gone_afterwards(model, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    round_trip(model, str(tmp_path / "a[1]"))
    assert os.listdir(str(tmp_path / "temporary")) == []
