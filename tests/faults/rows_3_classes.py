"""Planted faults for gate 3: one more example for each clause that goes through a whole class of mistakes (data, stops,
records); `tests/faults/table.py` explains the columns.
"""

_INDEX = "edgeflownas/data/fc2_index.py"
_TRAINER = "edgeflownas/engine/trainer.py"
_RECORDS = "edgeflownas/engine/records.py"
_RUN_STATE = "edgeflownas/engine/run_state.py"
_CHECKPOINT = "edgeflownas/run/checkpoint.py"
_SCORING = "edgeflownas/scoring/supernet_eval.py"

GATE_3_CLASSES = (
    # ---- data
    (
        "root-compared-as-text",
        "edgeflownas/data/fc2_sample.py",
        "G3.35a",
        "a folder beside the data root counts as inside if its path begins with the root's",
        "    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)",
        "    return path.startswith(root)",
    ),
    (
        "linked-folder-accepted",
        _INDEX,
        "G3.35b",
        "a linked folder of samples may leave the data root",
        "        if not folders[folder]:\n",
        "        if not folder:\n",
    ),
    (
        "explains-another-batch",
        _TRAINER,
        "G3.35d",
        "after a resume within an epoch the error is looked for in the wrong batch",
        "            self.pipeline.explain(epoch, position, str(error))  # raises",
        "            self.pipeline.explain(epoch, self._clock.cycles, str(error))  # raises",
    ),
    (
        "explains-the-first-epoch",
        _TRAINER,
        "G3.35d",
        "the error of a bad file is looked for in the first epoch",
        "            self.pipeline.explain(epoch, position, str(error))  # raises",
        "            self.pipeline.explain(0, position, str(error))  # raises",
    ),
    (
        "fingerprint-of-training-only",
        _INDEX,
        "G3.32c",
        "the validation samples are not in the data's fingerprint",
        '    for split, samples in (("train", train), ("val", val)):',
        '    for split, samples in (("train", train),):',
    ),
    (
        "fingerprint-without-order",
        _INDEX,
        "G3.32c",
        "the order of the samples is not in the data's fingerprint",
        "        for sample in samples:\n            digest",
        "        for sample in sorted(samples):\n            digest",
    ),
    (
        "fingerprint-without-size",
        _INDEX,
        "G3.32c",
        "the size of the frames is not in the data's fingerprint",
        'digest.update(f"{split} {sample.name} {sample.height}x{sample.width}\\n".encode())',
        'digest.update(f"{split} {sample.name}\\n".encode())',
    ),
    (
        "fingerprint-of-paths",
        _INDEX,
        "G3.32c",
        "the same data in another folder count as other data",
        'digest.update(f"{split} {sample.name} {sample.height}x{sample.width}\\n".encode())',
        'digest.update(f"{split} {sample.img0} {sample.height}x{sample.width}\\n".encode())',
        "exit code got 2, want 0",
    ),
    (
        "scores-on-other-data",
        "edgeflownas/scoring/supernet.py",
        "G3.32c",
        "supernet_eval does not notice other data",
        "        if index.fingerprint != state.dataset and not other_data:\n",
        "        if index.fingerprint is None and not other_data:\n",
    ),
    (
        "flow-without-rotation",
        "edgeflownas/data/scene.py",
        "G3.45",
        "the synthetic flow leaves out each layer's rotation and zoom",
        "        u, v = _motion_at(layer, columns - layer.center[0], rows - layer.center[1])",
        "        u, v = layer.shift",
    ),
    # ---- stops and resumes
    (
        "signal-waits-for-epoch",
        "edgeflownas/engine/trainer.py",
        "G3.30",
        "a run that gets a signal goes on to the end of its epoch",
        "while position < self.steps_per_epoch and not stop.requested and not self._limit_reached:",
        "while position < self.steps_per_epoch and not self._limit_reached:",
    ),
    (
        "second-signal-kills",
        "edgeflownas/engine/signals.py",
        "G3.30",
        "a second signal of any kind stops at once, without a commit",
        "        if self.received == signal.SIGINT and number == signal.SIGINT:",
        "        if self.received:",
        "exit code got 130, want (138, 143)",
    ),
    (
        "finished-before-evaluation",
        _RUN_STATE,
        "G3.42b",
        "a run killed in its last evaluation counts as finished",
        "        return self.early_stopped or (\n"
        "            self.step >= self.total_steps and self.evaluations >= self.config.train.num_epochs\n"
        "        )",
        "        return self.early_stopped or self.step >= self.total_steps",
    ),
    (
        "late-trace-not-cut-back",
        _RECORDS,
        "G3.42c",
        "a trace begun after the last checkpoint is not cut back",
        "            if name in lengths or os.path.exists(table.path):\n"
        "                table.cut_back(lengths.get(name, 0))",
        "            if name in lengths:\n                table.cut_back(lengths[name])",
    ),
    (
        "untraced-resume-keeps-trace",
        _RECORDS,
        "G3.42c",
        "a resume that does not trace leaves the trace as it is",
        "        files += [self._trace] if self.tracing or os.path.exists(self._trace.path) else []",
        "        files += [self._trace] if self.tracing else []",
    ),
    (
        "events-of-lost-evaluation-kept",
        _RECORDS,
        "G3.42c",
        "a lost evaluation's events stay, and its scalars stand twice after the resume",
        "        kept = first_step - 1 if evaluation_due else first_step",
        "        kept = first_step",
    ),
    (
        "last-cycle-not-told-again",
        _RECORDS,
        "G3.42c",
        "a resume with an evaluation to do loses the last cycle's scalars",
        "            self._cycle_scalars(read_table(self.steps.path, StepRow).values()[-1])",
        "            pass",
    ),
    (
        "collects-ahead-of-the-swap",
        _CHECKPOINT,
        "G3.42d",
        "old checkpoints are removed before the link to the last one is swapped",
        "                self._point_to(generation)\n            except BaseException:\n",
        "                self._collect(generation)\n"
        "                self._point_to(generation)\n            except BaseException:\n",
    ),
    (
        "best-of-the-older-removed",
        _CHECKPOINT,
        "G3.42e",
        "a new best removes the best of the checkpoint before it",
        "                    keep.add(self._read(name).best)\n",
        "                    pass\n",
    ),
    (
        "backslash-is-a-pattern",
        "edgeflownas/tfcompat.py",
        "G3.43",
        "a checkpoint below a folder with a backslash in its name is not found",
        'PATTERN = re.compile(r"[*?\\[\\]{}\\\\]|://")',
        'PATTERN = re.compile(r"[*?\\[\\]{}]|://")',
        "ValueError: The passed save_path is not a valid checkpoint",
    ),
    # ---- records
    (
        "records-what-was-allowed",
        "edgeflownas/train_supernet.py",
        "G3.44",
        "the manifest lists the keys that were allowed to change, changed or not",
        "manifest.resumed(invocation, global_step=trainer.state.step, changed=changed)",
        "manifest.resumed(invocation, global_step=trainer.state.step, changed=request.allow_changed)",
    ),
    (
        "pool-from-one-start",
        "edgeflownas/nas/eval_pool.py",
        "G3.13c",
        "the pool's exchanges start from one table instead of 24",
        "    return min(24, max(1, 288 // size))",
        "    return min(24, max(1, 12 // size))",
    ),
    (
        "clip-share-of-one",
        _RUN_STATE,
        "G3.22c",
        "the clip is said to have touched every step",
        "clip_share=sums.clipped / sums.cycles,",
        "clip_share=1.0,",
    ),
    (
        "best-samples-of-the-first",
        "edgeflownas/run/epe_samples.py",
        "G3.40",
        "only the first evaluation is kept per sample as the best",
        "best = epe if best_epoch == epoch else",
        "best = epe if epoch == 1 else",
    ),
    (
        "table-forgets-bn-batches",
        _SCORING,
        "G3.37d",
        "a table does not know by how many BN batches its rows were scored",
        '            "bn_recal_batches": 0 if supernet.stored_statistics else evaluation.bn_recal_batches,\n'
        '            "batch_size": evaluation.batch_size,',
        '            "batch_size": evaluation.batch_size,',
    ),
    (
        "table-forgets-other-data",
        _SCORING,
        "G3.37d",
        "a table does not know that its rows were scored on the run's own data",
        '        "dataset": {"other_data": path, "fingerprint": dataset} if other_data else dataset,',
        '        "dataset": dataset,',
    ),
)
