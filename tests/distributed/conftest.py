"""One data set, one crew per number of ranks. Without Horovod these tests are skipped; with one that cannot be
imported they fail."""

import pytest

from gates.clauses import NO_HOROVOD, SKIPS
from tests.distributed.crew import Crew, left
from tests.reliability import tiny


@pytest.fixture(autouse=True, scope="session")
def _horovod():
    if SKIPS:
        pytest.skip(NO_HOROVOD)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("tiny"))


def _crew(ranks, **batch):
    @pytest.fixture(scope="session")
    def crew(data):
        made = Crew(data, ranks, **batch)
        yield made
        made.close()

    return crew


one, two = _crew(1), _crew(2)
one_of_four, four = _crew(1, batch=4), _crew(4, batch=4)


@pytest.fixture(scope="session")
def reference(one, tmp_path_factory):
    """What one process leaves that nothing disturbs."""
    folder = str(tmp_path_factory.mktemp("reference"))
    assert one.run(folder).codes == [0]
    return left(folder)
