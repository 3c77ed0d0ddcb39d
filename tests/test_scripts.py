"""The run scripts: equal but for paths; signals reach the trainer; interrupted jobs are requeued and resume.

The smoke driver: which commands it runs. Both with stand-ins for the trainer and for SLURM.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCAL = ROOT / "scripts/local/run_supernet_train.sh"
HPC = ROOT / "scripts/hpc/run_supernet_train.sh"
SCRIPTS = pytest.mark.parametrize("script", [LOCAL, HPC], ids=["local", "hpc"])

# Stands in for the trainer: writes down how it was called, then runs the plan, as one bash command, until it exits.
# As the doctor it only says how it was called, and gives the exit code $DOCTOR.
TRAINER = """#!/usr/bin/env bash
if [ "$1 $2" = "-m edgeflownas.doctor" ]; then
    echo "$@" >>doctor
    eval "${DOCTOR:-exit 0}"
fi
echo "$@" >>calls
commit="sleep 0.$((3 + 4 * ${SLURM_PROCID:-0})); echo committed >>signals"
trap 'trap "" USR1 TERM; echo USR1 >>signals; eval "$commit"; exit 138' USR1
trap 'trap "" USR1 TERM; echo TERM >>signals; eval "$commit"; exit 143' TERM
echo ready >>started
eval "$PLAN"
"""
# Stands in for srun: starts --ntasks tasks, hands signals on to their process groups, ends the others after a bad exit,
# by $SRUN_ENDS, and exits with the highest code of all, a signal's being 128 and its number; for the trainer with
# $SRUN_SAYS, if that is set.
SRUN = """#!{python}
import os, signal, subprocess, sys, time
words, options = sys.argv[1:], []
while words[0].startswith("--"):
    options.append(words.pop(0))
with open("srun", "a") as log:
    log.write(" ".join(options) + "\\n")
(count,) = [int(option.split("=")[1]) for option in options if option.startswith("--ntasks=")]
tasks = []

def hand_on(number, frame=None):
    for task in tasks:
        if task.poll() is None:
            os.killpg(task.pid, number)

for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, hand_on)
for rank in range(count):
    environment = dict(os.environ, SLURM_PROCID=str(rank))
    tasks.append(subprocess.Popen(words, env=environment, preexec_fn=os.setsid))
ended = False
while None in [task.poll() for task in tasks]:
    if not ended and any(task.returncode for task in tasks):
        ended = True
        hand_on(getattr(signal, os.environ.get("SRUN_ENDS", "SIGTERM")))
    time.sleep(0.02)
codes = [task.returncode if task.returncode >= 0 else 128 - task.returncode for task in tasks]
said = os.environ.get("SRUN_SAYS") if "edgeflownas.doctor" not in words else ""
sys.exit(int(said or max(codes)))
"""
UNTIL_SIGNAL = "while :; do sleep 0.05; done"


class Job:
    """A project folder, a fake trainer and scontrol, and the script to try, copied away as SLURM does."""

    def __init__(self, folder, script):
        self.folder = folder / "project"
        self.spool = folder / "spool"
        for path in (self.folder, self.spool):
            path.mkdir()
        self.script = shutil.copy(str(script), str(self.spool / "slurm_script"))
        self._program("trainer", TRAINER)
        self._program("srun", SRUN.format(python=sys.executable))
        self._program("scontrol", '#!/usr/bin/env bash\necho "$@, trainer $(tail -n 1 signals)" >>requeued\n')

    def _program(self, name, text):
        path = self.spool / name
        path.write_text(text)
        path.chmod(0o755)

    def start(self, plan, *args, **variables):
        env = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
        env.update(
            PROJECT=str(self.folder),
            PYTHON=str(self.spool / "trainer"),
            FC2_ROOT="/data/FC2",
            PLAN=plan,
            PATH="{}:{}".format(self.spool, env["PATH"]),
            **variables,
        )
        return subprocess.Popen(
            ["bash", self.script] + list(args), env=env, cwd="/", stdout=subprocess.PIPE, universal_newlines=True
        )

    def run(self, plan, *args, **variables):
        process = self.start(plan, *args, **variables)
        output, _ = process.communicate(timeout=30)
        return process.returncode, output

    def signal(self, number, **variables):
        """Sends a signal to a job as soon as all of it trains; returns its exit code and output."""
        process = self.start(UNTIL_SIGNAL, **variables)
        deadline = time.monotonic() + 30
        while len(self.read("started")) < int(variables.get("SLURM_NTASKS", 1)):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
        return process.returncode, output

    def read(self, name):
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


def paths_removed(script):
    text, count = re.subn(r"(?ms)^# >>> paths and resources.*?^# <<< paths and resources\n", "", script.read_text())
    assert count == 1
    return text


def test_scripts_differ_in_paths_and_resources_only():
    assert paths_removed(LOCAL) == paths_removed(HPC)
    assert LOCAL.read_text() != HPC.read_text()
    assert "run_supernet_train.py" in paths_removed(LOCAL)


def test_slurm_reads_every_directive():
    """sbatch stops at the first line that is neither empty nor a comment."""
    lines = HPC.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert max(directives) < first
    for wanted in (
        "--signal=B:USR1@300", "--requeue", "--open-mode=append", "--nodes=1", "--ntasks-per-node=1",
        "--gpus-per-task=1",
    ):  # fmt: skip
        assert "#SBATCH " + wanted in lines


@SCRIPTS
def test_passes_settings_and_further_arguments(tmp_path, script):
    job = Job(tmp_path, script)
    status, output = job.run("exit 0", "--set", "train.note=two words", EXPERIMENT="e")
    assert status == 0 and job.read("requeued") == []
    (call,) = job.read("calls")
    shared = (
        "--config configs/supernet_fc2_180x240.yaml --base_path /data/FC2 --gpu_device 0 --num_workers {} "
        "--experiment_name e --resume_if_begun --set train.note=two words"
    ).format(4 if script == LOCAL else 8)
    assert call == "wrappers/run_supernet_train.py " + shared
    assert job.read("doctor") == ["-m edgeflownas.doctor " + shared]
    assert "two\\ words" in output  # the command is shown as it can be typed


@SCRIPTS
def test_the_configuration_is_not_overridden(tmp_path, script):
    """Beside paths and resources nothing but the run's name is added: no epochs, batch, rate, seed."""
    job = Job(tmp_path, script)
    assert job.run("exit 0", CONFIG="configs/mine.yaml")[0] == 0
    flags = [word for word in job.read("calls")[0].split() if word.startswith("--")]
    paths_and_resources = ["--base_path", "--gpu_device", "--num_workers"]
    assert flags == ["--config"] + paths_and_resources + ["--experiment_name", "--resume_if_begun"]
    assert "--experiment_name mine " in job.read("calls")[0]


@SCRIPTS
def test_a_name_is_never_a_pattern(tmp_path, script):
    job = Job(tmp_path, script)
    assert job.run("exit 0", EXPERIMENT="lr[1e-3] *")[0] == 0
    assert "--experiment_name lr[1e-3] * --resume_if_begun" in job.read("calls")[0]


@SCRIPTS
def test_what_the_doctor_finds_stops_the_job_before_it_trains(tmp_path, script):
    job = Job(tmp_path, script)
    assert job.run("exit 0", DOCTOR="exit 1", SLURM_JOB_ID="4711")[0] == 1
    assert job.read("calls") == [] and job.read("requeued") == []


@SCRIPTS
@pytest.mark.parametrize("doctor, status", [("exit 0", 0), ("exit 1", 1)])
def test_check_only_checks(tmp_path, script, doctor, status):
    job = Job(tmp_path, script)
    assert job.run("exit 0", "--check", "--unsigned", DOCTOR=doctor)[0] == status
    assert job.read("calls") == [] and job.read("doctor")[0].endswith("--resume_if_begun --unsigned")


@SCRIPTS
@pytest.mark.parametrize("flag", ["--dry_run", "--help"])
def test_a_quick_answer_needs_no_doctor(tmp_path, script, flag):
    job = Job(tmp_path, script)
    assert job.run("exit 0", flag)[0] == 0
    assert job.read("doctor") == [] and job.read("calls")[0].endswith(flag)


@SCRIPTS
def test_a_signal_while_the_doctor_looks_is_requeued_too(tmp_path, script):
    job = Job(tmp_path, script)
    doctor = "echo ready >>started; while :; do sleep 0.05; done"
    got, _ = job.signal(signal.SIGUSR1, SLURM_JOB_ID="4711", DOCTOR=doctor)
    assert got == 138 and job.read("calls") == [] and len(job.read("requeued")) == 1


@SCRIPTS
@pytest.mark.parametrize("scontrol", [None, "exit 1"])
def test_the_exit_code_survives_a_missing_or_failing_scontrol(tmp_path, script, scontrol):
    job = Job(tmp_path, script)
    (job.spool / "scontrol").unlink()
    if scontrol:
        job._program("scontrol", "#!/usr/bin/env bash\n" + scontrol + "\n")
    got, output = job.signal(signal.SIGUSR1, SLURM_JOB_ID="4711")
    assert got == 138 and "again to resume supernet_fc2_180x240" in output


@SCRIPTS
def test_tasks_of_an_array_share_no_folder(tmp_path, script):
    job = Job(tmp_path, script)
    for task in ("0", "3"):
        job.run("exit 0", SLURM_ARRAY_TASK_ID=task, SEED="7")
    job.run("exit 0", SLURM_ARRAY_TASK_ID="2")
    for call, seed in zip(job.read("calls"), (7, 10, 44)):
        assert f"--seed {seed} --experiment_name supernet_fc2_180x240_seed{seed} " in call


@SCRIPTS
@pytest.mark.parametrize("number, status", [(signal.SIGUSR1, 138), (signal.SIGTERM, 143)], ids=["USR1", "TERM"])
def test_a_signal_reaches_the_trainer_and_the_job_is_requeued(tmp_path, script, number, status):
    """The script waits until the trainer has committed, however long after the signal that is."""
    job = Job(tmp_path, script)
    got, output = job.signal(number, SLURM_JOB_ID="4711")
    assert got == status
    assert job.read("signals") == [signal.Signals(number).name[3:], "committed"]
    assert job.read("requeued") == ["requeue 4711, trainer committed"]
    assert "will resume supernet_fc2_180x240" in output
    # The second start, as SLURM does it: the very same command.
    assert job.run("exit 0", SLURM_JOB_ID="4711")[0] == 0
    first, second = job.read("calls")
    assert first == second and "--resume_if_begun" in first
    assert job.read("requeued") == ["requeue 4711, trainer committed"]


@SCRIPTS
def test_outside_slurm_nothing_is_requeued(tmp_path, script):
    job = Job(tmp_path, script)
    status, output = job.signal(signal.SIGUSR1)
    assert (status, job.read("requeued")) == (138, [])
    assert "run the same command again" in output


@SCRIPTS
@pytest.mark.parametrize("status", [0, 1, 2, 130, 137])
def test_an_end_or_an_error_is_not_requeued(tmp_path, script, status):
    job = Job(tmp_path, script)
    assert job.run(f"exit {status}", SLURM_JOB_ID="4711")[0] == status
    assert job.read("requeued") == []


@SCRIPTS
def test_the_tasks_of_a_job_are_ranks_of_one_run(tmp_path, script):
    job = Job(tmp_path, script)
    assert job.run("exit 0", SLURM_NTASKS="2", SLURM_CPUS_PER_TASK="3", EXPERIMENT="two words")[0] == 0
    assert job.read("srun") == ["--kill-on-bad-exit=1 --ntasks=2 --cpus-per-task=3"] * 2  # doctor and trainer
    for calls in (job.read("doctor"), job.read("calls")):
        assert len(calls) == 2 and calls[0] == calls[1]
        assert "--experiment_name two words --distributed --resume_if_begun" in calls[0]
    assert list((job.folder / "outputs").iterdir()) == []


@SCRIPTS
def test_one_task_and_a_quick_answer_need_no_srun(tmp_path, script):
    job = Job(tmp_path, script)
    assert job.run("exit 0", SLURM_NTASKS="1")[0] == 0 and "--distributed" not in job.read("calls")[0]
    assert job.run("exit 0", "--dry_run", SLURM_NTASKS="2")[0] == 0 and "--distributed" in job.read("calls")[1]
    assert len(job.read("calls")) == 2 and job.read("srun") == []


@SCRIPTS
@pytest.mark.parametrize("said", ["", "1", "255"], ids=lambda said: "srun says " + (said or "the highest"))
@pytest.mark.parametrize("number, status", [(signal.SIGUSR1, 138), (signal.SIGTERM, 143)], ids=["USR1", "TERM"])
def test_a_signal_reaches_every_rank_and_the_job_is_requeued(tmp_path, script, number, status, said):
    """Both ranks commit, the slow one too, whatever code srun makes of theirs."""
    job = Job(tmp_path, script)
    got, _ = job.signal(number, SLURM_JOB_ID="4711", SLURM_NTASKS="2", SRUN_SAYS=said, SRUN_ENDS="SIGKILL")
    assert got == status
    assert sorted(job.read("signals")) == [signal.Signals(number).name[3:]] * 2 + ["committed"] * 2
    assert job.read("requeued") == ["requeue 4711, trainer committed"]


@SCRIPTS
@pytest.mark.parametrize(
    "fault, said, status",
    [("exit 2", "", 2), ("exit 2", "143", 1), ("kill -9 $$", "", 137), ("kill -9 $PPID; exit 0", "", 137)],
    ids=["an error", "an error that srun makes a signal", "a kill", "a kill of all that a rank is"],
)
def test_a_rank_that_fails_is_not_requeued(tmp_path, script, fault, said, status):
    """srun then ends the other rank by SIGTERM, which must not pass for a stop that was asked for."""
    job = Job(tmp_path, script)
    plan = f'if [ "$SLURM_PROCID" = 1 ]; then {fault}; fi; {UNTIL_SIGNAL}'
    got, _ = job.run(plan, SLURM_JOB_ID="4711", SLURM_NTASKS="2", SRUN_SAYS=said)
    assert got == status and job.read("requeued") == []


# Stands in for every module that the smoke run starts.
STEP = "import sys\nprint('ran', sys.argv[1:])\nsys.exit({status})\n"


def smoke(folder, train_status=0, **variables):
    """Runs scripts/smoke.py in a folder whose synthetic, trainer and check_manifest only say how they were called."""
    for name, status in (
        ("edgeflownas/data/synthetic", 0),
        ("edgeflownas/nas/check_manifest", 0),
        ("wrappers/run_supernet_train", train_status),
    ):
        path = folder / (name + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STEP.format(status=status))
    (folder / "scripts").mkdir()
    driver = shutil.copy(str(ROOT / "scripts/smoke.py"), str(folder / "scripts"))
    env = {key: value for key, value in os.environ.items() if key not in ("FC2_ROOT", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, driver],
        env=dict(env, **variables),
        cwd="/",
        stdout=subprocess.PIPE,
        universal_newlines=True,
        timeout=60,
    )
    return done.returncode, done.stdout


TRAIN = (
    "$ python wrappers/run_supernet_train.py --gpu_device 0 --num_epochs 2 --batch_size 32 --lr 1e-4 "
    "--config configs/supernet_fc2_180x240.yaml --fast_mode --base_path "
)
MAKE = "$ python -m edgeflownas.data.synthetic --out data/synthetic_fc2 --train 64 --test 8 --seed 1"
CHECK = "$ python -m edgeflownas.nas.check_manifest --path outputs/supernet/train_manifest.json"


def commands(output):
    return [line for line in output.splitlines() if line.startswith("$")]


def test_smoke_makes_data_trains_and_checks(tmp_path):
    status, output = smoke(tmp_path)
    assert status == 0
    assert commands(output) == [MAKE, TRAIN + "data/synthetic_fc2", CHECK]
    assert output.count("ran [") == 3 and output.splitlines()[-1] == "smoke: passed"


def test_smoke_uses_a_real_set(tmp_path):
    status, output = smoke(tmp_path, FC2_ROOT="/data/FC2")
    assert status == 0
    assert commands(output) == [TRAIN + "/data/FC2", CHECK]


def test_smoke_stops_at_the_first_failure(tmp_path):
    status, output = smoke(tmp_path, train_status=2)
    assert status == 2
    assert commands(output)[-1].startswith(TRAIN)
    assert output.splitlines()[-1] == "smoke: FAILED, exit code 2"


@pytest.mark.parametrize(
    "name, python, stack, noted",
    [("smoke", "3.7.16", "tf1", False), ("smoke", "3.11.7", "tf2", True), ("smoke-tf2", "3.11.7", "tf2", False)],
)
def test_stack_is_named_and_a_fallback_noted(name, python, stack, noted):
    code = "import sys, stack; print(stack.message(sys.argv[1], tuple(map(int, sys.argv[2].split('.')))))"
    done = subprocess.run(
        [sys.executable, "-c", code, name, python],
        cwd=str(ROOT / "scripts"),
        check=True,
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )
    assert done.stdout.startswith(f"{name}: stack {stack} (Python {python}")
    assert ("NOT tested" in done.stdout) == noted
