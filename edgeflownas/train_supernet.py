"""Entry point of training: configuration, lock, checks, then `engine.trainer`. `--help` and `--dry_run` import no
TensorFlow."""

import contextlib
import logging
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from edgeflownas import signoff
from edgeflownas.command_line import Request, describe, parse_train
from edgeflownas.config import Config, NetworkConfig, config_hash, to_dict
from edgeflownas.device import asked_for, choose_device, visible
from edgeflownas.errors import RunFailed, UserError, run_cli
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.search_space import require_same_space
from edgeflownas.run.checkpoint import has_checkpoint
from edgeflownas.run.folder import CHECKPOINTS, REPORT, run_folder
from edgeflownas.run.manifest import FAILED, RUNNING
from edgeflownas.run.run_log import log_to, log_to_terminal, only_errors_on_terminal

if TYPE_CHECKING:  # these import TensorFlow, or are not needed before it is
    from edgeflownas.data.fc2_index import FC2Index
    from edgeflownas.engine.run_state import RunState
    from edgeflownas.engine.signals import StopSignals
    from edgeflownas.engine.trainer import Trainer
    from edgeflownas.run.checkpoint import Generation
    from edgeflownas.run.manifest import Manifest

log = logging.getLogger("edgeflownas")
FREE_EPOCHS = 5  # a longer run needs gate 3 (execution gates, section 7)
REQUIRED_GATE = 3


def main(argv: Optional[List[str]] = None) -> int:
    """Runs the trainer and returns the exit code."""
    config, origins, request = parse_train(argv)
    # UserError if there is no such space or pool.
    build_pool(config.train.arch_seed, config.eval.pool_size, space_of(config.network))
    choose_device(config.runtime.gpu_device, config.runtime.deterministic, config.runtime.distributed)
    if request.dry_run:
        print(describe(config, origins))
        return 0
    words = ["python", "-m", "edgeflownas.train_supernet"] + list(sys.argv[1:] if argv is None else argv)
    command = " ".join(shlex.quote(word) for word in words)
    return _train(config, origins, request, command)


def _train(config: Config, origins: Dict[str, str], request: Request, command: str) -> int:
    # Imported only here, because some of these import TensorFlow, which takes seconds.
    from edgeflownas.engine.agreement import facts, refuse_differences
    from edgeflownas.engine.exchange import connect
    from edgeflownas.engine.run_state import changed_keys
    from edgeflownas.engine.signals import StopSignals
    from edgeflownas.engine.trainer import Limits, Trainer
    from edgeflownas.run.folder import RunLock, archive_previous
    from edgeflownas.run.manifest import Manifest
    from edgeflownas.run.provenance import machine, write_config

    folder, early = run_folder(config), log_to_terminal()
    with contextlib.ExitStack() as stack:
        stop, exchange = stack.enter_context(StopSignals()), stack.enter_context(connect(config))
        stop.shared, first = exchange.size > 1, exchange.rank == 0
        if first:
            stack.enter_context(RunLock(folder))
        else:
            only_errors_on_terminal()
        request = settled(request, folder)
        resumed = _resume_point(folder) if request.resume else None
        index = _index(config, request, stop)
        refuse_differences(exchange, facts(config, index, resumed, request._asdict()))
        changed = changed_keys(resumed[1], config, index.fingerprint, request.allow_changed) if resumed else []
        weights_from = _weights_from(config, request)
        _refuse_unsupported_gpu(config, request)
        trainer = Trainer(config, folder, index, Limits(request.max_epochs, request.max_steps), exchange)
        stack.callback(trainer.close)
        gates = _check_gates(trainer, resumed and resumed[1], request)
        stop.agree(exchange.gather_rows([stop.received])[:, 0])
        stop.raise_if_received()
        if resumed is None:
            moved = archive_previous(folder) if first else None
            if moved:
                print(f"the run that stood in {folder} was moved to {moved}", file=sys.stderr)
            trainer.start(weights_from)
        else:
            trainer.resume(*resumed)  # before the log and the manifest, because it may raise a UserError
        exchange.barrier()  # before it, the folder may still have the files of an earlier run
        exchange.log_faults_to(log_to(folder, exchange.rank, early))
        invocation = {
            "command": command,
            "device": _device(config),
            "gates": dict(gates, unsigned=request.unsigned),
            "unsupported_gpu_allowed": request.allow_unsupported_gpu,
            "ranks": exchange.size,
        }
        manifest = None
        if first:
            fields = manifest_fields(config, origins, index, trainer)
            fields.update(machine(), resume_command=_resume_command(write_config(folder, config), request))
            if resumed is not None and Manifest.exists(folder):
                manifest = Manifest.open(folder)
            else:
                weights = weights_from and weights_from.path
                manifest = Manifest.create(folder, initial_weights=weights, **fields, **invocation)
            if resumed is not None:
                manifest.resumed(invocation, global_step=trainer.state.step, changed=changed)
                manifest.update(**fields, ranks=exchange.size)
        return _run(trainer, manifest, stop)


def _run(trainer: "Trainer", manifest: "Optional[Manifest]", stop: "StopSignals") -> int:
    """Trains and returns the exit code. Rank 0 has the manifest and keeps it and the report up to date."""
    from edgeflownas.engine.exchange import PeerLost
    from edgeflownas.tfcompat import tf

    def tell(status: str = RUNNING, **fields: Any) -> None:
        if manifest is not None:
            fields.update({"throughput": trainer.throughput} if trainer.throughput else {})
            manifest.update(status=status, **trainer.state.standing(), **fields)
            _report(trainer.folder)

    if trainer.state.finished:
        log.info(
            "nothing to do: the run in %s is finished (%d epochs, %d steps%s)",
            trainer.folder,
            trainer.state.evaluations,
            trainer.state.step,
            ", stopped early" if trainer.state.early_stopped else "",
        )
    _announce(trainer)
    status, fields = FAILED, {}
    together = False  # whether all ranks end here
    try:
        status = trainer.run(stop, tell)
        together = True
    except KeyboardInterrupt:  # nothing was committed, so the run counts as failed
        fields = {"error": f"stopped at once; {trainer.way_back}"}
        log.warning("%s", fields["error"])
        return 130
    except (UserError, tf.errors.ResourceExhaustedError) as error:
        said = error if isinstance(error, UserError) else _out_of_memory(error)
        said = PeerLost(f"{said}; {trainer.way_back}") if isinstance(said, PeerLost) else said
        fields, together = {"error": str(said)}, isinstance(said, RunFailed)
        log.debug("failed: %s", said)  # to train.log only; `run_cli` prints the line on the terminal
        raise said
    finally:
        tell(status, **fields)
        if together:  # else a launcher could see one rank end and kill rank 0 while it writes the report
            trainer.exchange.barrier()
    if stop.requested:
        log.info("stopped by %s after step %d, committed; --resume continues", stop.name, trainer.state.step)
        return int(stop.exit_code)
    log.info(
        "%s after epoch %d, step %d; report: %s",
        status if trainer.state.finished else "stopped as asked, --resume goes on,",
        trainer.state.evaluations,
        trainer.state.step,
        os.path.join(trainer.folder, REPORT),
    )
    return 0


def _out_of_memory(error: Exception) -> UserError:
    return UserError(
        f"out of memory: {str(error).splitlines()[0]}; use --micro_batch_size, a smaller --batch_size or "
        "--cycle_mode sequential"
    )


def _report(folder: str) -> None:
    """Writes the report. No failure stops training, because it can be written again from the run's files."""
    try:
        from edgeflownas.reporting.write import write_report

        write_report(folder)
    # The package's only `except Exception`: an error in a drawing library must not stop training.
    except Exception as error:  # noqa: BLE001
        log.warning(
            "no report: %s%s; write it later with: python -m edgeflownas.report %s",
            "" if isinstance(error, UserError) else f"{type(error).__name__}: ",
            " ".join(str(error).split())[:300],
            shlex.quote(folder),
        )
        log.debug("its traceback", exc_info=True)  # to train.log


def _announce(trainer: "Trainer") -> None:
    log.info(
        "%d steps per epoch of %d samples, %d steps in all; search space %s; %d parameters; starting at step %d",
        trainer.steps_per_epoch,
        trainer.config.train.batch_size,
        trainer.state.total_steps,
        trainer.space.label,
        trainer.graph.net.variables.parameter_count,
        trainer.state.step,
    )
    if trainer.config.runtime.distributed:
        ranks = trainer.exchange.size
        log.info(
            "%d ranks on Horovod, %d samples of each batch on each", ranks, trainer.config.train.batch_size // ranks
        )


def settled(request: Request, folder: str) -> Request:
    """The request with --resume_if_begun decided: a run has begun once it has a checkpoint, damaged or not."""
    begun = has_checkpoint(folder)
    return request._replace(resume=request.resume or (request.resume_if_begun and begun))


def _resume_point(folder: str) -> "Tuple[Generation, RunState]":
    """(generation, state) of the newest intact checkpoint. UserError if there is none."""
    from edgeflownas.engine.run_state import RunState
    from edgeflownas.run.checkpoint import CheckpointStore

    generation = CheckpointStore(os.path.join(folder, CHECKPOINTS), log.warning).newest_valid()
    return generation, RunState.from_dict(generation.state, generation.path)


def _weights_from(config: Config, request: Request) -> "Optional[Generation]":
    """The newest intact checkpoint that gives the first weights, or None. UserError if it is missing or unfit."""
    from edgeflownas.engine.run_state import RunState
    from edgeflownas.run.checkpoint import CheckpointStore

    if not request.resume_from:
        return None
    run = os.path.join(config.runtime.output_dir, request.resume_from)
    generation = CheckpointStore(os.path.join(run, CHECKPOINTS), log.warning).newest_valid(
        f"--resume_experiment_name {request.resume_from} must name a run in {config.runtime.output_dir} that has one"
    )
    state = RunState.from_dict(generation.state, generation.path)
    require_same_space(
        state.space.identity(), space_of(config.network), f"--resume_experiment_name {request.resume_from}"
    )
    theirs = state.config.network
    if theirs != config.network:
        raise UserError(
            f"the weights of {request.resume_from} do not fit: it was trained with {_shown(theirs)}, this run has "
            f"{_shown(config.network)}"
        )
    return generation


def _shown(network: NetworkConfig) -> str:
    return f"network.init_channels {network.init_channels}, network.arch_code {network.arch_code or 'empty'}"


def _index(config: Config, request: Request, stop: "StopSignals") -> "FC2Index":
    from edgeflownas.data.fc2_index import build_index, verify_all
    from edgeflownas.engine.progress import Checking

    index = build_index(config.data, config.train.seed, progress=Checking("checking files", stop.raise_if_received))
    if request.verify_data:
        verify_all(index.train + index.val, progress=Checking("decoding every file", stop.raise_if_received))
    return index


def _refuse_unsupported_gpu(config: Config, request: Request) -> None:
    """UserError for a GPU on which TensorFlow computes wrong results, unless --allow_unsupported_gpu is given."""
    from edgeflownas import nvidia
    from edgeflownas.tfcompat import tf

    wants_gpu = not config.runtime.deterministic and asked_for(config.runtime.gpu_device)
    if wants_gpu and tf.test.is_built_with_cuda() and not request.allow_unsupported_gpu:
        nvidia.refuse_wrong_results(visible(), tf.__version__)


def _device(config: Config) -> str:
    """The device of TensorFlow, in words. Logs it if a GPU was asked for; warns if TensorFlow sees none.

    Call it after the trainer has its session, because listing devices creates TensorFlow's thread pool for all cores.
    """
    from edgeflownas.tfcompat import device_names

    device, runtime = device_names(), config.runtime
    if runtime.deterministic or not asked_for(runtime.gpu_device):
        return device
    if device == "CPU":
        log.warning(
            "no GPU: --gpu_device %s is asked for and TensorFlow sees none, so this run computes on the CPU; "
            "see: python -m edgeflownas.doctor",
            runtime.gpu_device,
        )
    else:
        log.info("computing on %s", device)
    return device


def _check_gates(trainer: "Trainer", resumed: "Optional[RunState]", request: Request) -> Dict[str, str]:
    """UserError for a long run without gate 3. Returns every gate's state for the manifest."""
    if too_long(trainer.last_epoch, trainer.steps_per_epoch, resumed, request):
        try:
            signoff.require_gate(REQUIRED_GATE, signoff.project_root(), trainer.space.name)
        except UserError as error:
            raise UserError(
                f"a run of more than {FREE_EPOCHS} epochs needs gate {REQUIRED_GATE}: {error}; or train without it: "
                "--unsigned"
            )
    return signoff.states_for_manifest(trainer.space.name)


def too_long(last_epoch: int, steps_per_epoch: int, resumed: "Optional[RunState]", request: Request) -> bool:
    """Whether the run, counted from its first step, will have more than the free epochs when this invocation ends.

    `resumed` is the state to resume from, or None. False if nothing is left to train, and with --unsigned.
    """
    done = resumed.step if resumed else 0
    end = min(last_epoch * steps_per_epoch, request.max_steps or sys.maxsize)
    over = end <= done or (resumed is not None and resumed.early_stopped and not request.allow_changed)
    return not over and not request.unsigned and end > FREE_EPOCHS * steps_per_epoch


def _resume_command(config_path: str, request: Request) -> str:
    """The shell command that continues this run, from any folder of this machine, to the end of its schedule."""
    words = ["python", "-m", "edgeflownas.train_supernet", "--config", config_path, "--resume"]
    words += ["--unsigned"] if request.unsigned else []
    words += ["--allow_unsupported_gpu"] if request.allow_unsupported_gpu else []
    return "cd {} && {}".format(shlex.quote(os.getcwd()), " ".join(shlex.quote(word) for word in words))


def manifest_fields(config: Config, origins: Dict[str, str], index: "FC2Index", trainer: "Trainer") -> Dict[str, Any]:
    """The manifest's fields, except those of the machine and the invocation."""
    from edgeflownas.run.provenance import source, versions
    from edgeflownas.tfcompat import tf

    source_fields, warning = source()
    if warning:
        log.warning("%s", warning)
    train = config.train
    return {
        "seed": train.seed,
        "arch_seed": train.arch_seed,
        "config_hash": config_hash(config),
        **source_fields,
        "input_shape": [config.data.input_height, config.data.input_width, 6],
        "optimizer": train.optimizer,
        "lr_schedule": train.lr_schedule,
        "lr": train.lr,
        "wd": train.wd,
        "grad_clip": train.grad_clip,
        "config": to_dict(config),
        "config_origins": origins,
        "versions": versions(tf.__version__),
        "dataset": {
            "fingerprint": index.fingerprint,
            "train": len(index.train),
            "val": len(index.val),
            "source": index.source,
            "base_path": os.path.abspath(config.data.base_path),
        },
        "parameter_count": trainer.graph.net.variables.parameter_count,
        "search_space": trainer.space.as_record(),
        "num_epochs": train.num_epochs,
        "steps_per_epoch": trainer.steps_per_epoch,
        "total_steps": trainer.state.total_steps,
        **trainer.state.standing(),
    }


if __name__ == "__main__":
    run_cli(main)
