"""The clause table: every pass criterion of the specification with one id, one sentence and one test. Data only.

How to test a clause, in `gates/test_gateN*.py` (only gate N's clauses; helpers go into modules not called `test_*`):

    from gates.asserts import assert_equal, clause

    @clause("G2.8")
    def test_each_option_is_used_once_per_cycle():
        counts = ...
        assert_equal(what="EB0 counts", got=counts["EB0"], want=[300, 300, 300], seed=42)

- One clause has one test with one case: no `parametrize`. A case that needs its own verdict is a sub-clause (G2.2a,
  G2.2b).
- `@clause` is the outermost decorator. The plugin adds the marker `gateN` and puts the id into the test's id:
  `test_x[G2.8]`.
- The helpers of `gates/asserts.py` write the message: id, sentence, got, want, and a command that reproduces it. A
  plain `assert` or another exception works too; the plugin then adds id and sentence. Fixtures and `@given` work as
  usual.
- A planted fault in `tests/` may call a test function directly under a monkeypatch and expect an AssertionError.
- Import TensorFlow inside the test or a fixture, not at the top, to keep collection fast.
- A gate run is refused if a clause of its gate does not have exactly one test, or if a test under `gates/` has no
  clause.
- A clause that cannot run on some machines goes into `SKIPS` with the reason. A skip that is not listed leaves the gate
  unsigned; a listed clause that runs makes the gate fail.
"""

import importlib.util
from typing import Dict, List, NamedTuple, Optional, Tuple

GATE_TITLES = {
    1: "the basis works (command line, configuration, architecture code)",
    2: "network and fair sampler",
    3: "training and evaluation loop",
    4: "delivery and environment",
}


class Clause(NamedTuple):
    """One pass criterion. `source` is its origin: `spec/04 3(1)` means section 3, criterion 1."""

    id: str
    gate: int
    sentence: str
    source: str


class Table:
    """The clauses in order, and the declared skips (id -> reason). `ValueError`: an id is repeated, misnumbered or
    unknown."""

    def __init__(self, clauses: Tuple[Clause, ...], skips: Optional[Dict[str, str]] = None) -> None:
        self.clauses = clauses
        self.skips = dict(skips or {})
        self._by_id = {clause.id: clause for clause in clauses}
        if len(self._by_id) != len(clauses):
            raise ValueError("an id is repeated in the clause table")
        for clause in clauses:
            if not clause.id.startswith(f"G{clause.gate}.") or not clause.sentence:
                raise ValueError(
                    f"clause {clause.id!r} of gate {clause.gate} needs the id G{clause.gate}.x and a sentence"
                )
        for skip in self.skips:
            if skip not in self._by_id:
                raise ValueError(f"the declared skip {skip!r} names no clause")

    def get(self, clause_id: str) -> Optional[Clause]:
        return self._by_id.get(clause_id)

    def of(self, gate: int) -> List[Clause]:
        return [clause for clause in self.clauses if clause.gate == gate]

    @property
    def gates(self) -> List[int]:
        return sorted({clause.gate for clause in self.clauses})


def _gate(gate: int, *rows: Tuple[str, str, str]) -> Tuple[Clause, ...]:
    return tuple(Clause(f"G{gate}.{number}", gate, sentence, source) for number, sentence, source in rows)


GATE_1 = _gate(
    1,
    ("1", "--help names gpu_device, num_epochs, batch_size, lr, config and supernet_mode", "spec/04 3(1)"),
    ("2", "--dry_run prints the final configuration, each value with its origin", "spec/04 3(2)"),
    ("3", "--dry_run neither imports TensorFlow nor builds a graph", "spec/04 3(2)"),
    ("4", "the command line beats the YAML file, and the YAML file beats the default", "DESIGN 13"),
    ("5a", "an unknown configuration key is refused in one line that names the nearest key, exit code 2", "DESIGN 13"),
    ("5b", "a configuration value of the wrong type is refused in one line, exit code 2", "DESIGN 13"),
    ("5c", "a YAML file that does not parse is refused in one line, exit code 2", "DESIGN 13"),
    ("6", "the shipped configuration holds the locked choices, and no key of the maths is left open", "spec/02 3"),
    (
        "7",
        "an architecture code of any wrong length is refused with the length required and the length found",
        "spec/04 3(3)",
    ),
    (
        "8",
        "an architecture code with any wrong value is refused with the value, its position and its block",
        "spec/04 3(3)",
    ),
    ("9", "each code of the space (19,683 in v1) round-trips in every accepted spelling", "spec/04 3(3)"),
    ("10", "every position and value of the code means what the table of the specification says", "spec/02 4"),
    ("11", "arch_codec --self_test passes", "spec/04 3, command 3"),
    ("12", "arch_codec --self_test fails when the codec is broken", "spec/04 3, command 3"),
    ("13", "every configuration key is exercised at a value that is not shipped, or says why not", "DESIGN 14"),
    ("14", "--gpu_device is what CUDA_VISIBLE_DEVICES says when TensorFlow is imported", "spec/04 3(1)"),
    ("15", "the baseline code is EdgeFlowNet-bilinear as published", "DESIGN 4"),
    ("16", "the flags of the single-model trainer's command mean here what they mean there", "spec/02 10"),
    ("17", "--help and --dry_run take less than two seconds of processor time", "DESIGN 13"),
    ("18", "--help says that batch norm sees the piece of a batch that is cut by --micro_batch_size", "DESIGN 5"),
    ("19", "a user's error is one line without a traceback; --traceback shows it", "DESIGN 13"),
)

GATE_2 = _gate(
    2,
    ("1", "twenty random codes run forward at 180x240 with batch 2, every output finite", "spec/04 4(1)"),
    ("2a", "an input of 180x240 gives outputs of 45x60, 90x120 and 180x240 with four channels", "spec/04 4(2)"),
    ("2b", "an input of 172x224 gives outputs of 43x56, 86x112 and 172x224 with four channels", "DESIGN 6"),
    ("2c", "sizes that are odd at each encoder stage give outputs of exactly the encoder stages' sizes", "DESIGN 6"),
    ("3", "changing any single position of the code changes the output", "spec/04 4, task 1"),
    ("4", "the variables do not depend on the code", "DESIGN 6"),
    ("5", "the supernet has 12,122,016 trainable parameters (v1; another space, as its table says)", "DESIGN 6"),
    ("6", "the baseline code computes what a plainly written network computes on the same weights", "DESIGN 4"),
    ("6b", "every option computes what the plainly written network computes", "DESIGN 6"),
    ("7", "the model_shape_check command passes", "spec/04 4, command 1"),
    ("8", "300 cycles use each option of every block exactly 300 times (v1; equally often in any)", "spec/04 4(3)"),
    ("9", "fairness_gap is 0 after every cycle", "spec/04 4(3)"),
    ("10", "one seed gives a byte-identical sequence in every process and under every hash seed", "spec/04 4(4)"),
    ("11", "the sequence has the recorded SHA-256, the same on both stacks", "spec/04 4(4)"),
    ("12", "different seeds give different sequences", "spec/04 4(4)"),
    ("12b", "a cycle is a pure function of seed and step", "DESIGN 5"),
    ("13a", "all permutations occur in every block about equally often; in uniform paths, all options", "spec/02 6(1)"),
    (
        "13b",
        "the permutations of different blocks are independent; so are uniform paths and their blocks",
        "spec/02 6(1)",
    ),
    ("14", "the fair_sampler command passes and writes its check file", "spec/04 4, command 2"),
    ("15", "first weights are Glorot-uniform, each kernel for itself, the same for the same seed only", "DESIGN 6"),
    ("16", "each named search space has the blocks, options and variables of the design", "DESIGN 4"),
    ("16b", "each named space computes what a plainly written network computes, alone and in a cycle", "DESIGN 4"),
    ("17", "a block that the network never visits, or a visit without a block, is refused by name", "DESIGN 4"),
)

GATE_3 = _gate(
    3,
    (
        "1",
        "the debug trace shows forward and backward x3 (v1; once per path) and one optimizer step in every cycle",
        "spec/04 5(1)",
    ),
    ("1b", "step t trains cycle t of arch_seed", "DESIGN 5"),
    ("2", "Adam's beta powers count exactly the cycles run", "spec/04 5(1)"),
    ("3", "the applied gradient is the mean of the single-path gradients", "spec/02 6(5)"),
    ("4", "the paths of a cycle see the same batch, which the data files prove", "spec/02 6(3)"),
    ("5", "the global gradient norm after clipping is at most 5.0 at every step", "spec/04 5(2)"),
    ("6", "clipping gives norm min(before, 5.0) and keeps the direction", "spec/02 3(16)"),
    ("7a", "the learning rate follows the cosine at every step", "spec/02 3(12)"),
    ("7b", "the learning rate follows the same cosine across a resume", "spec/02 3(12)"),
    ("8", "Adam with weight decay updates the weights as NumPy computes it", "spec/02 3(15)"),
    ("9", "every subnet's evaluation logs bn_recal_batches=8", "spec/04 5(4)"),
    ("10a", "every EPE is that of the plain mean of the statistics of 8 batches of training images", "spec/02 7(4)"),
    ("10b", "evaluations leave no trace in weights, slots and moving averages, bit for bit", "spec/02 7(4)"),
    ("11a", "every epoch writes one row with mean_epe_12, std_epe_12 and fairness_gap", "spec/04 5(3)"),
    ("11b", "mean_epe_12 and std_epe_12 are what the per-subnet file gives", "spec/04 5(3)"),
    ("12", "the best checkpoint has the EPE recorded, by NumPy and without a clip of the flow", "spec/02 7(1)"),
    ("13a", "the pool is 12 distinct codes that use every option of every block equally often", "spec/02 3(17)"),
    ("13b", "the pool is the same in every epoch and is reused by a resume", "spec/02 3(10)"),
    ("13c", "no two blocks are confounded in the pool", "DESIGN 10"),
    ("13d", "a resume scores the pool that the run has stored, whatever arch_seed would give", "DESIGN 10"),
    (
        "14",
        "early stopping triggers on simulated curves exactly when 15 evaluations did not improve by more than 0.002",
        "spec/02 7(7)",
    ),
    ("15a", "the best and the last checkpoint both exist and restore", "spec/04 5(6)"),
    ("15b", "the best and the last checkpoint belong to the right epochs", "spec/04 5(6)"),
    ("16a", "global_step is continuous from three epochs through --resume to five", "spec/04 5(5)"),
    ("16b", "no cycle and no batch is repeated or skipped across the resume", "spec/04 5(5)"),
    ("17", "a resumed run equals an uninterrupted one bit for bit in deterministic mode", "DESIGN 11"),
    ("18", "a run resumed from a stop in mid-epoch equals an uninterrupted one bit for bit", "DESIGN 11"),
    ("19", "the three commands of the specification run one after the other in one folder", "spec/04 5, commands"),
    ("20", "the supernet_eval command scores the pool and saves its table", "spec/04 5, command 2"),
    ("21a", "each epoch's order is a new permutation of all training samples", "DESIGN 9"),
    ("21b", "crops lie at random offsets and reach the first and the last", "spec/02 3(5)"),
    ("21c", "an incomplete last batch is dropped", "DESIGN 9"),
    ("22a", "every path's loss is what NumPy computes from weights and data files", "DESIGN 7"),
    ("22b", "the columns loss, train_loss and l2_loss recompute", "DESIGN 8"),
    ("22c", "the norm before the clip and the share of steps clipped recompute", "DESIGN 8"),
    ("23", "train.seed decides first weights, order and crops, and no codes", "spec/02 3(14)"),
    ("24", "train.arch_seed decides codes and pool, and nothing else", "spec/02 3(14)"),
    ("25a", "sequential cycles train what fused ones do", "DESIGN 5"),
    ("25b", "micro-batches normalise each piece by itself and give one step", "DESIGN 5"),
    ("25c", "one code alone is trained by the same trainer, names, order and first weights", "DESIGN 4"),
    ("25d", "each way to run a cycle gives the gradient of the mean loss of its paths", "DESIGN 5"),
    ("26", "--fast_mode, threads and prefetch change no bit of what is computed", "DESIGN 13"),
    ("27a", "changed data keys: what was fed and held out follows them", "DESIGN 9"),
    ("27b", "changed cycle keys: uniform, micro-batch, l1 and flow_clip decide losses and gradient", "DESIGN 7"),
    ("27c", "changed optimisation keys: rate, schedule, clip and weight decay are the ones applied", "DESIGN 8"),
    ("27d", "changed evaluation keys: pool, BN batches, batch size and samples are the ones scored with", "DESIGN 10"),
    ("27e", "changed patience and min_delta end the run when they say", "spec/02 3(11)"),
    ("28a", "--load_checkpoint starts a new run from the other run's weights, bit for bit", "spec/02 10"),
    ("28b", "--load_checkpoint of weights that do not exist is an error", "DESIGN 11"),
    ("29", "kill -9 costs only what was not committed: tables are cut back, nothing is lost or doubled", "DESIGN 11"),
    ("30", "SIGTERM, SIGINT and SIGUSR1 commit where they fall and end with 143, 130 and 138", "DESIGN 11"),
    ("31", "a damaged newest checkpoint is named, and the one before it is used", "DESIGN 11"),
    ("32a", "--resume with nothing valid to resume from is an error, never a fresh start", "DESIGN 11"),
    ("32b", "a resume with other training maths is refused with the keys named", "DESIGN 11"),
    ("32c", "a resume on other data is refused, and so is supernet_eval", "DESIGN 11"),
    ("32d", "resuming a finished run does no step and says so", "DESIGN 11"),
    ("33", "a second run on a folder is refused", "DESIGN 11"),
    ("34a", "a loss that is not finite ends the run with a good last checkpoint", "DESIGN 8"),
    ("34b", "a loss or gradient that is not finite leaves every variable untouched", "DESIGN 8"),
    ("35a", "each kind of bad file is found before training starts, named with expected and found", "DESIGN 9"),
    ("35b", "each kind of bad list entry is refused", "DESIGN 9"),
    ("35c", "--verify_data finds what only decoding shows", "DESIGN 9"),
    ("35d", "bad content fails at its batch, the same for one reader thread and for many", "DESIGN 9"),
    ("36", "the folders train/ and val/ are the other layout of the data", "DESIGN 9"),
    ("37a", "supernet_eval scores codes given by --codes and --codes_file at the checkpoint asked for", "DESIGN 10"),
    ("37b", "supernet_eval scores random codes, by their seed", "DESIGN 10"),
    ("37c", "supernet_eval --checkpoint last gives the pool the scores of the last evaluation", "DESIGN 10"),
    ("37d", "supernet_eval adds to a table only what has its checkpoint, settings and data", "spec/04 5(4)"),
    (
        "38",
        "the zero-flow EPE is the mean length of the flow, and a supernet that is or falls back near it is warned of",
        "DESIGN 7",
    ),
    (
        "39",
        "moving averages keep nine tenths, one update per cycle; those of unused layers stay as they are",
        "DESIGN 6",
    ),
    ("40", "EPE is kept per sample, of the last and the best evaluation, as NumPy computes it", "DESIGN 10"),
    ("41a", "every file that holds codes or weights names its search space by name and digest", "DESIGN 4"),
    ("41b", "codes and weights of another space are refused, both named, and nothing is written", "DESIGN 4"),
    ("42a", "a checkpoint holds variables, moments and counters only; the last two and the best are kept", "DESIGN 11"),
    ("42b", "an epoch is committed before its evaluation: a kill there costs the evaluation only", "DESIGN 11"),
    ("42c", "events and trace have each step once after a resume", "DESIGN 11"),
    ("42d", "a kill ahead of any change that a commit makes leaves last and best whole", "DESIGN 11"),
    ("42e", "a damaged newest checkpoint falls back to the one before it and to its best", "DESIGN 11"),
    ("43", "folders named like patterns train, resume and are scored like any other", "DESIGN 11"),
    ("44", "--allow_changed lets the keys it names change, and the manifest records them", "DESIGN 11"),
    ("45", "a synthetic set is FC2's format, exact off occlusions, the same bytes for the same seed", "DESIGN 9"),
    ("46a", "two processes compute the bits of one with the same micro-batches, and its rows", "DESIGN 16"),
    ("46b", "a process is fed its part of every batch, which the data files prove", "DESIGN 16"),
    ("46c", "when a process dies, the other ends with one line and the last commit is good", "DESIGN 16"),
    ("46d", "processes that differ are refused before the first step, the difference named", "DESIGN 16"),
    ("46e", "a process that stalls is given up after runtime.exchange_timeout, with every stack", "DESIGN 16"),
)

GATE_4 = _gate(
    4,
    ("1", "a two-epoch smoke run leaves every artifact", "spec/04 6(1)"),
    ("1b", "the report's figures are those of the tables, digit by digit; paired errors recompute", "spec/02 9"),
    ("1c", "the pictures decode, show something and differ", "DESIGN 12"),
    ("1d", "the samples kept are those of the best and the worst subnet", "DESIGN 12"),
    (
        "2",
        "the manifest has seed, config_hash, git_commit, input_shape, optimizer, lr_schedule, wd and grad_clip",
        "spec/04 6(2)",
    ),
    ("3a", "the manifest's commit is the HEAD of the source", "spec/04 6(2)"),
    ("3b", "the manifest's configuration hash recomputes from its configuration", "spec/04 6(2)"),
    ("3c", "the manifest's input shape, optimizer, rates and clip are those that the run used", "spec/04 6(2)"),
    ("4", "the options' counts are equal, and equal to the cycles run", "spec/04 6(3)"),
    ("5", "check_manifest accepts the run", "spec/04 6, command 2"),
    ("6a", "check_manifest refuses a manifest that lacks a field, whichever it is", "spec/04 6(2)"),
    ("6b", "check_manifest refuses a manifest with a wrong value, in whichever field", "spec/04 6(2)"),
    ("6c", "check_manifest refuses unequal fairness counts", "spec/04 6(3)"),
    ("6d", "check_manifest refuses a history with a row missing", "spec/04 6(1)"),
    ("6e", "check_manifest refuses a history, timing table or trace with a row doubled", "spec/04 6(1)"),
    ("6f", "check_manifest refuses a history out of order", "spec/04 6(1)"),
    ("6g", "check_manifest refuses a swapped checkpoint", "spec/04 6(1)"),
    ("6h", "check_manifest refuses a truncated checkpoint", "spec/04 6(1)"),
    ("6i", "check_manifest refuses a best checkpoint of the wrong epoch", "spec/04 5(6)"),
    ("6j", "check_manifest refuses a changed cell of a table, whichever it is", "spec/04 6(1)"),
    ("7", "the local and the HPC template agree but for paths, resources and what SLURM is told", "spec/04 6(4)"),
    ("8", "the environment record names the versions and the device that the run used", "spec/04 6, task 2"),
    ("9", "--require_gpu demands a visible GPU", "spec/04 6, task 2"),
    ("10a", "a long run without a valid gate 3 is refused in one line that gives the command to run", "spec/04 7(3)"),
    ("10b", "--unsigned overrides the refusal, and the manifest records the state of every gate", "spec/04 7(3)"),
    (
        "10c",
        "the rule for long runs counts from the first step, however a run is divided; a refusal leaves every file",
        "DESIGN 14",
    ),
    ("10d", "a long run needs the sign-off of its own search space", "DESIGN 14"),
    ("10e", "an override stays in the manifest of the run, whatever later resumes say", "DESIGN 14"),
    ("11a", "every file of package, gates and configurations is signed", "DESIGN 14"),
    ("11b", "the records are a chain: an edit, a gap or a later signature breaks what follows", "DESIGN 14"),
    ("11c", "a gate is blocked, and not run, before the one ahead of it passes", "spec/04 1"),
    ("11d", "a gate is signed by one attempt at each clause", "DESIGN 14"),
    ("12", "the sign-off can be written as an in-toto statement of its results", "DESIGN 14"),
)

# Clauses that may be skipped, with the reason; checked both ways. A machine without a GPU needs none: it runs on the
# CPU. Where Horovod is installed, nothing is skipped.
NO_HOROVOD = "Horovod is not installed; scripts/build_horovod.sh builds it"
TWO_PROCESSES = ("G3.46a", "G3.46b", "G3.46c", "G3.46d", "G3.46e")
SKIPS: Dict[str, str] = {} if importlib.util.find_spec("horovod") else dict.fromkeys(TWO_PROCESSES, NO_HOROVOD)

TABLE = Table(GATE_1 + GATE_2 + GATE_3 + GATE_4, SKIPS)
