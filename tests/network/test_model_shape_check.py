"""model_shape_check: passes on the network, fails on a wrong size and on values that are not finite."""

import subprocess
import sys

import numpy as np
import pytest

from edgeflownas.errors import UserError
from edgeflownas.network import shape_check
from edgeflownas.network.shape_check import expected_shapes, main, problems

SMALL = ["--h", "67", "--w", "101", "--batch", "1", "--samples", "3", "--init_channels", "4", "--gpu_device", "-1"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")


def test_expected_sizes_are_rounded_up():
    assert expected_shapes(2, 180, 240) == [(2, 45, 60, 4), (2, 90, 120, 4), (2, 180, 240, 4)]
    assert expected_shapes(1, 67, 101) == [(1, 17, 26, 4), (1, 34, 51, 4), (1, 67, 101, 4)]


def test_the_network_passes(capsys):
    assert main(SMALL) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and len({line[:9] for line in lines[:3]}) == 3
    assert all("17x26 34x51 67x101  finite, ok" in line for line in lines[:3])
    assert lines[-1].startswith("model_shape_check passed: 3 of 3 codes")


@pytest.mark.parametrize("fault", ["size", "finite", "outputs"])
def test_a_fault_in_one_code_fails_the_check(monkeypatch, capsys, fault):
    def forward(codes, space, batch, height, width, seed, init_channels):
        for number in range(len(codes)):
            outputs = [np.zeros(shape, np.float32) for shape in expected_shapes(batch, height, width)]
            if number == 1 and fault == "size":
                outputs[1] = outputs[1][:, :-1]
            elif number == 1 and fault == "finite":
                outputs[0][0, 3, 5, 1] = np.nan
            elif number == 1:
                outputs.pop()
            yield outputs

    monkeypatch.setattr(shape_check, "forward", forward)
    assert main(SMALL) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [("FAIL" in line) for line in lines[:3]] == [False, True, False]
    assert lines[-1].startswith("model_shape_check FAILED: 2 of 3 codes")


def test_problems_name_the_output():
    want = expected_shapes(1, 64, 64)
    good = [np.zeros(shape) for shape in want]
    assert problems(good, want) == []
    assert "output 2 is [1, 64, 63, 4], want [1, 64, 64, 4]" in problems(good[:2] + [good[2][:, :, 1:]], want)[0]


@pytest.mark.parametrize(
    "arguments", [["--h", "63"], ["--w", "10"], ["--samples", "19684"], ["--seed", "-1"], ["--init_channels", "1"]]
)
def test_arguments_out_of_bounds_are_refused(arguments):
    with pytest.raises(UserError, match=arguments[0]):
        main(arguments)


def test_help_needs_no_tensorflow():
    program = (
        "import sys\nfrom edgeflownas.nas.model_shape_check import main\ntry:\n    main(['--help'])\n"
        "except SystemExit:\n    sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL).returncode == 0
