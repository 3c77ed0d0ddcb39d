"""Fixtures for the runs that clauses share, and hypothesis's settings: the same examples every time, no database, no
deadline.

Session fixtures are made once and shared by the workers of pytest-xdist (`runs.once`). They import the package inside
their functions, so that an error in it fails clauses instead of preventing pytest from starting.
"""

import importlib
import json
import shutil

import pytest
from hypothesis import settings

settings.register_profile("gates", derandomize=True, database=None, deadline=None)
settings.load_profile("gates")


# ---- gate 3


def _shared(name, make, *needs, module="gate3_runs"):
    """A session fixture: the folder that `gates.<module>.<make>` fills, given the folders of the fixtures `needs`."""

    def fixture(request, tmp_path_factory):
        from gates import runs

        given = [request.getfixturevalue(need) for need in needs]
        maker = getattr(importlib.import_module("gates." + module), make)
        return runs.once(tmp_path_factory, name, lambda folder: maker(folder, *given))

    return pytest.fixture(scope="session", name=name)(fixture)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The data set of the small runs."""
    from gates import dataset, runs

    made = runs.once(
        tmp_path_factory, "gate3_data", lambda folder: dataset.make(folder / "data", runs.SAMPLES, runs.VALIDATION)
    )
    return made / "data"


@pytest.fixture(scope="session")
def samples(data):
    """That data set's sample names, in the order of its lists."""
    from gates import dataset

    return dataset.found(data)


@pytest.fixture(scope="session")
def whole(whole_folder):
    """The run folder of the uninterrupted run."""
    from gates import gate3_runs

    return whole_folder / gate3_runs.RUN


@pytest.fixture(scope="session")
def resumed(resumed_folder):
    """The run folder after three epochs and a resume to five."""
    from gates import gate3_runs

    return resumed_folder / gate3_runs.RUN


@pytest.fixture(scope="session")
def after_three(resumed_folder):
    """A copy of that run folder after three epochs."""
    return resumed_folder / "after_three"


whole_folder = _shared("whole_folder", "make_whole", "data")
resumed_folder = _shared("resumed_folder", "make_resumed", "data")
midway = _shared("midway", "make_midway", "data")
signalled = _shared("signalled", "make_signalled", "data")
variants = _shared("variants", "make_variants", "data")
changed = _shared("changed", "make_changed")
odd_ends = _shared("odd_ends", "make_odd_ends", "data", "whole")
scores = _shared("scores", "make_scores", "data", "whole")
evaluating = _shared("evaluating", "make_evaluating", "data", "whole")
folders = _shared("folders", "make_folders", "data", "whole", "variants")
commands = _shared("commands", "make_three_commands")
bad_starts = _shared("bad_starts", "make_starts", "data", module="bad_data")
bad_lists = _shared("bad_lists", "make_lists", "data", module="bad_data")
bad_contents = _shared("bad_contents", "make_contents", "data", "whole", module="bad_data")


two_ranks_folder = _shared("two_ranks_folder", "make_two_ranks", module="ranks")


@pytest.fixture
def two_ranks(request):
    """The folder of the runs of two processes; skips where Horovod is not installed."""
    from gates.clauses import NO_HOROVOD, SKIPS, TWO_PROCESSES

    if SKIPS.keys() & set(TWO_PROCESSES):
        pytest.skip(NO_HOROVOD)
    return request.getfixturevalue("two_ranks_folder")


@pytest.fixture(scope="session")
def training():
    """A training graph of the small configuration, in this process."""
    from gates import package_objects

    return package_objects.training_graph()


@pytest.fixture(scope="session")
def scripted(data, tmp_path_factory):
    """A run with scripted scores, which early stop ended."""
    from gates import package_objects

    return package_objects.run_script(data, tmp_path_factory.mktemp("scripted"))


# ---- gate 4


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The folder in which the smoke command ran."""
    from gates import gate4_runs, runs

    return runs.once(tmp_path_factory, "gate4_smoke", gate4_runs.make_smoke)


@pytest.fixture(scope="session")
def manifest(smoke):
    """The manifest of the smoke run."""
    from gates import gate4_runs

    return json.loads((smoke / gate4_runs.RUN / "train_manifest.json").read_text())


@pytest.fixture(scope="session")
def long_run(tmp_path_factory):
    """The folder in which a long run was refused and then run with --unsigned."""
    from gates import gate4_runs, runs

    return runs.once(tmp_path_factory, "gate4_long_run", gate4_runs.make_long_run)


long_rule = _shared("long_rule", "make_long_rule", module="gate4_runs")
other_space = _shared("other_space", "make_other_space", module="gate4_runs")


@pytest.fixture
def copies(long_run, tmp_path):
    """`copies(change)` applies `change(folder)` to a fresh copy of a run that passes all checks, and returns {failed
    check: its message}."""
    from edgeflownas.nas import check_manifest
    from gates import gate4_runs
    from gates.asserts import assert_equal
    from gates.tampering import refusals

    number = iter(range(1000))

    def refusals_after(change):
        folder = tmp_path / f"copy{next(number)}"
        shutil.copytree(str(long_run / gate4_runs.RUN), str(folder), symlinks=True)
        assert_equal(what="checks that refuse the copy before it is tampered with", got=refusals(folder), want={})
        change(folder)
        found = refusals(folder)
        code = check_manifest.main(["--path", str(folder / "train_manifest.json")])
        assert_equal(what="exit code of check_manifest", got=code, want=1 if found else 0)
        shutil.rmtree(str(folder))
        return found

    return refusals_after
