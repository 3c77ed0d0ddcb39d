"""Every demand of the two specification documents with the clauses that check it, or the reason why no test can.

Data only, read by `scripts/generate_docs.py`, which refuses a demand without a clause and a clause without a demand.
`gates/demands_design.py` has the promises of the design, sections 4 to 18.
"""

from typing import List, NamedTuple, Tuple, Union

from gates.demands_design import DESIGN

Row = Tuple[str, str, Union[str, Tuple[str, ...]]]  # item, the demand in our words, clause ids or the reason


class Demand(NamedTuple):
    """One demand. Either `clauses` check it, or `reason` says why no test can."""

    document: str
    item: str
    text: str
    clauses: Tuple[str, ...]
    reason: str


OUT_OF_SCOPE = "a limit of the work, not a property of the program"

SPEC_02: Tuple[Row, ...] = (
    ("1", "the plan is about supernet training only; search and retraining are left out", OUT_OF_SCOPE),
    ("2, in 1", "the training of the supernet runs on its own, on the TensorFlow 1 stack", ("G3.19", "G4.1", "G4.8")),
    ("2, in 2", "a strictly fair single-path training cycle in the manner of FairNAS", ("G2.8", "G3.1", "G3.3")),
    ("2, in 3", "input size, data flow, budget and rules of acceptance are fixed", ("G1.6", "G4.3c")),
    ("2, in 4", "logs, checkpoints, configuration and basic evaluation are reproducible", ("G3.17", "G4.1", "G4.2")),
    ("2, out 1-3", "no architecture search, no measuring on a board, no retraining", OUT_OF_SCOPE),
    ("3(1)", "TensorFlow 1 training stack", ("G4.8",)),
    ("3(2)", "three paths on one batch, gradients accumulated, one update", ("G3.1", "G3.2", "G3.3", "G3.4")),
    ("3(3)", "shared batch norm; statistics re-estimated before a subnet is scored", ("G2.4", "G3.10a", "G3.39")),
    ("3(4)", "training data is FlyingChairs2 only", ("G3.21a", "G3.36")),
    ("3(5)", "input by random crops of 180x240", ("G1.6", "G3.21b", "G4.3c")),
    ("3(6)", "only backbone depth (1, 2, 3) and head kernel (7, 5, 3) vary", ("G1.10", "G2.4", "G2.16")),
    ("3(7)", "budget of 200 epochs", ("G1.6", "G3.7a")),
    ("3(8)", "accepted by fairness counts and the EPE of a fixed pool", ("G3.11a", "G4.4", "G4.5")),
    ("3(9)", "EPE after every epoch", ("G3.11a",)),
    ("3(10)", "a fixed pool of twelve subnets", ("G3.13a", "G3.13b")),
    ("3(11)", "early stop with patience 15 and min_delta 0.002", ("G1.6", "G3.14", "G3.27e")),
    ("3(12)", "Adam with cosine decay", ("G3.7a", "G3.7b", "G3.8", "G3.27c")),
    ("3(13)", "eight batches for the re-estimation", ("G1.6", "G3.9", "G3.10a")),
    ("3(14)", "one fixed seed", ("G1.6", "G2.10", "G3.23", "G3.24")),
    ("3(15)", "weight decay 4e-5", ("G1.6", "G3.8", "G3.22b")),
    ("3(16)", "global norm clip 5.0", ("G1.6", "G3.5", "G3.6")),
    ("3(17)", "the pool covers the options by strata", ("G3.13a", "G3.13c")),
    ("3(18)", "validation on FC2_test itself", ("G1.6", "G3.12", "G3.38")),
    ("4, head", "a code is nine values of 0, 1, 2", ("G1.7", "G1.8", "G1.9")),
    ("4(1)-(4)", "positions 0 to 3: depth of EB0, EB1, DB0, DB1", ("G1.10", "G2.3", "G2.6b")),
    ("4(5)-(9)", "positions 4 to 8: kernel of H0Out, H1, H1Out, H2, H2Out", ("G1.10", "G2.3", "G2.6b")),
    ("5(1)", "the network module", ("G2.1", "G2.6")),
    ("5(2)", "arch_codec", ("G1.11", "G1.12")),
    ("5(3)", "fair_sampler", ("G2.14",)),
    ("5(4)", "supernet_eval", ("G3.20", "G3.37a")),
    ("5(5)", "train_supernet", ("G1.2", "G3.19")),
    ("5(6)", "the wrapper run_supernet_train", ("G1.1", "G3.19")),
    ("5(7)", "the configuration supernet_fc2_180x240", ("G1.6",)),
    ("5(8)", "outputs: log, checkpoints, fairness counts, EPE curve", ("G4.1",)),
    ("6(1)", "a random permutation of the options for each block", ("G2.13a", "G2.13b", "G2.12")),
    ("6(2)", "three codes that together use every option once", ("G2.8", "G3.1")),
    ("6(3)", "one batch of FC2 crops for all paths", ("G3.4", "G3.21b")),
    ("6(4)", "forward and backward of each path", ("G3.1", "G3.22a", "G3.25d")),
    ("6(5)", "one optimizer step after the accumulation", ("G3.1", "G3.2", "G3.3")),
    ("6(6)", "the fairness counts are kept", ("G2.9", "G3.30", "G4.4")),
    ("7(1)", "EPE of the twelve subnets on the validation set after every epoch", ("G3.10a", "G3.11a", "G3.12")),
    ("7(2)", "FC2_test.txt is the validation source", ("G3.10a", "G3.38")),
    ("7(3)", "it serves the ranking only, not an independent test", "a statement on how to read the figures"),
    ("7(4)", "re-estimation refreshes statistics only, no weights", ("G3.10a", "G3.10b")),
    ("7(5)", "mean_epe_12, std_epe_12 and fairness_gap are recorded", ("G3.11a", "G3.11b")),
    ("7(6)1", "fairness_gap is 0, by cycles", ("G2.9", "G3.11a")),
    (
        "7(6)2",
        "mean_epe_12 is at its best or has settled",
        "a goal of a long run; the report judges it, the gates do not",
    ),
    ("7(7)", "15 evaluations without an improvement of more than 0.002 end the run", ("G3.14", "G3.27e")),
    ("8A(2)1", "--help answers", ("G1.1", "G1.17")),
    ("8A(2)2", "a one-step smoke run starts and logs", ("G3.28a", "G4.1")),
    ("8B(1)", "depth and kernels change with the code", ("G2.3",)),
    ("8B(2)1", "five random codes run forward", ("G2.1", "G2.7")),
    ("8B(2)2", "sizes and multiscale logic are right", ("G2.2a", "G2.2c", "G2.6")),
    ("8C(2)1", "300 steps use the options equally often", ("G2.8", "G2.14")),
    ("8C(2)2", "a fixed seed repeats the sequence", ("G2.10", "G2.11")),
    ("8D(2)1", "the evaluation gives mean and std", ("G3.11b",)),
    ("8D(2)2", "early stop triggers on simulated curves", ("G3.14",)),
    ("9(1)-(2)", "supernet_best.ckpt and supernet_last.ckpt", ("G3.15a", "G3.15b", "G4.1")),
    ("9(3)", "fairness_counts.json", ("G4.1", "G4.4")),
    ("9(4)", "eval_epe_history.csv", ("G3.11a", "G4.1")),
    ("9(5)", "train_manifest.json with seed, configuration, commit, input size", ("G4.2", "G4.3a", "G4.3b", "G4.3c")),
    ("9(6)", "supernet_training_report.md", ("G4.1", "G4.1b")),
    (
        "10",
        "the single-model trainer's flags mean the same here, --load_checkpoint and --fast_mode too",
        ("G1.16", "G3.26", "G3.28a"),
    ),
    ("10, end", "further flags for cycle, arch seed, pool and BN re-estimation", ("G1.4", "G3.24", "G3.27d")),
    ("11(1)", "optional: a holdout of the training list validates", ("G3.27a",)),
    ("11(2)", "optional: Kendall tau spot check of the ranking", "a study over many runs (design 17), not a gate"),
    ("11(3)", "optional: a second seed", ("G3.23", "G3.24")),
)

SPEC_04: Tuple[Row, ...] = (
    ("1", "gates in order; none is entered before the one ahead passes", ("G4.11b", "G4.11c")),
    ("1, end", "the engineering rules for files and style come first", "that document is not part of this project"),
    ("2", "four gates: basis, model and sampler, training and evaluation, delivery", ("G4.11c",)),
    ("3, command 1", "the wrapper's --help", ("G1.1",)),
    ("3, command 2", "the wrapper's --dry_run", ("G1.2",)),
    ("3, command 3", "arch_codec --self_test", ("G1.11", "G1.12")),
    ("3(1)", "--help has gpu_device, num_epochs, batch_size, lr, config, supernet_mode", ("G1.1", "G1.14")),
    ("3(2)", "dry-run prints the final configuration and builds no graph", ("G1.2", "G1.3")),
    ("3(3)", "wrong lengths and values of a code are stopped with a clear message", ("G1.7", "G1.8", "G1.9")),
    ("3, products", "wrapper, trainer, codec, configuration", ("G1.1", "G1.2", "G1.6", "G1.11")),
    ("4, task 1", "the network switches with the code", ("G2.3", "G2.6b")),
    ("4, command 1", "model_shape_check", ("G2.7",)),
    ("4, command 2", "fair_sampler --check", ("G2.14",)),
    ("4(1)", "twenty random codes run forward", ("G2.1",)),
    ("4(2)", "outputs of 45x60, 90x120, 180x240", ("G2.2a",)),
    ("4(3)", "equal counts, fairness_gap 0", ("G2.8", "G2.9")),
    ("4(4)", "the same seed gives the same bytes", ("G2.10", "G2.11", "G2.12")),
    ("4, products", "fair_sampler_check.json", ("G2.14",)),
    ("5, task 1", "accumulation over three paths, one update", ("G3.3", "G3.25a")),
    ("5, task 2", "Adam, cosine, wd 4e-5, clip 5.0", ("G3.6", "G3.7a", "G3.8")),
    ("5, task 3", "pool of twelve, 8 BN batches, EPE records", ("G3.10a", "G3.12", "G3.13a")),
    ("5, task 4", "early stop, best and last, resume", ("G3.14", "G3.15b", "G3.17", "G3.18")),
    ("5, commands", "30 steps with a trace; the evaluation; three epochs and a resume to five", ("G3.19", "G3.20")),
    ("5(1)", "the log shows forward and backward x3, optimizer_step x1", ("G3.1", "G3.2")),
    ("5(2)", "global_grad_norm_after <= 5.0", ("G3.5",)),
    ("5(3)", "each epoch writes mean, std and gap", ("G3.11a", "G3.11b")),
    ("5(4)", "each subnet's log has bn_recal_batches=8", ("G3.9", "G3.37d")),
    (
        "5(5)",
        "global_step is continuous across a resume, nothing twice or skipped",
        ("G3.16a", "G3.16b", "G3.17", "G3.18"),
    ),
    ("5(6)", "best and last exist and point to the right epoch", ("G3.15a", "G3.15b", "G4.6i")),
    ("5, products", "checkpoints, pool and history files", ("G3.13b", "G3.15a", "G4.1")),
    ("6, task 1", "manifest, fairness and history make a run reproducible", ("G4.2", "G4.5")),
    ("6, task 2", "the smoke run in the environment of the group", ("G4.1", "G4.8", "G4.9")),
    ("6, task 3", "an HPC template", ("G4.7",)),
    ("6, command 1", "the two-epoch smoke command", ("G4.1",)),
    ("6, command 2", "check_manifest", ("G4.5",)),
    (
        "6(1)",
        "two epochs, checkpoints and evaluation log",
        ("G4.1", "G4.6d", "G4.6e", "G4.6f", "G4.6g", "G4.6h", "G4.6j"),
    ),
    ("6(2)", "the manifest's eight fields", ("G4.2", "G4.3a", "G4.3b", "G4.3c", "G4.6a", "G4.6b")),
    ("6(3)", "equal counts in fairness_counts.json", ("G4.4", "G4.6c")),
    ("6(4)", "local and HPC template differ in paths and resources only", ("G4.7",)),
    ("6, products", "manifest, counts, history, report, HPC script", ("G4.1", "G4.1b", "G4.7")),
    ("7(1)", "a failed gate is mended within the gate", ("G4.11b", "G4.11c")),
    ("7(2)", "after a repair all of the gate's commands run again", ("G4.11a", "G4.11d")),
    ("7(3)", "no long run while gate 3 fails", ("G4.10a", "G4.10b", "G4.10c")),
    ("8", "where to begin", "advice on the order of the work"),
)


def _demands(document: str, rows: Tuple[Row, ...]) -> List[Demand]:
    return [
        Demand(document, item, text, () if isinstance(held, str) else held, held if isinstance(held, str) else "")
        for item, text, held in rows
    ]


DEMANDS = _demands("spec/02", SPEC_02) + _demands("spec/04", SPEC_04) + _demands("DESIGN", DESIGN)


def problems(known: List[str]) -> List[str]:
    """Sentences on demands without a clause or reason, clauses without a demand, and clauses that do not exist."""
    named = {clause for demand in DEMANDS for clause in demand.clauses}
    found = [f"{d.document} {d.item} has neither a clause nor a reason" for d in DEMANDS if not (d.clauses or d.reason)]
    found += [f"the demands name {clause}, which is no clause" for clause in sorted(named - set(known))]
    return found + [f"no demand names the clause {clause}" for clause in known if clause not in named]
