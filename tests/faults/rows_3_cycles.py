"""Planted faults for gate 3, in the cycles; `tests/faults/table.py` explains the columns."""

_ROUTING = "edgeflownas/network/routing.py"
_TRAINER = "edgeflownas/engine/trainer.py"
_CYCLE = "edgeflownas/engine/cycle.py"

GATE_3_CYCLES = (
    (
        "three-steps",
        _CYCLE,
        "G3.1",
        "the optimizer steps three times in a cycle",
        "before, after, l2_loss, step = self.apply(session, lr)",
        "before, after, l2_loss, step = [self.apply(session, lr) for _ in codes][-1]",
    ),
    (
        "one-path-twice",
        _TRAINER,
        "G3.1",
        "a cycle trains one of its codes twice and one not at all",
        "codes = draw(train.arch_seed, t, self.space)",
        "codes = draw(train.arch_seed, t, self.space)[[0, 0, 1]]",
    ),
    (
        "adam-twice",
        _CYCLE,
        "G3.2",
        "Adam is applied twice where one step is counted",
        "            updates = [self.adam.apply_gradients(zip(self.clipped, self.trained))]",
        "            first = self.adam.apply_gradients(zip(self.clipped, self.trained))\n"
        "        with tf.control_dependencies([first]):\n"
        "            updates = [self.adam.apply_gradients(zip(self.clipped, self.trained))]",
    ),
    (
        "sum-for-mean",
        _CYCLE,
        "G3.3",
        "the gradients of the paths are summed, not averaged",
        "tf.add_n(by_path) / (len(by_path) * self.pieces)",
        "tf.add_n(by_path) / self.pieces",
    ),
    (
        "last-path-only",
        _CYCLE,
        "G3.3",
        "only the last path has a gradient",
        "tf.add_n(by_path) / (len(by_path) * self.pieces)",
        "(by_path[-1] + 0.0 * tf.add_n(by_path)) / self.pieces",
    ),
    (
        "clip-before-averaging",
        _CYCLE,
        "G3.3",
        "each path's gradient is clipped before the average",
        "self.gradients = tf.gradients(tf.add_n(by_path) / (len(by_path) * self.pieces), self.trained, scale)",
        "self.gradients = [tf.add_n(each) / (len(by_path) * self.pieces) for each in "
        "zip(*[tf.clip_by_global_norm(tf.gradients(loss, self.trained), 5.0)[0] for loss in by_path])]",
    ),
    (
        "fused-leak",
        _ROUTING,
        "G3.3",
        "in the fused graph another option leaks into the one chosen",
        "return Paths([option(values[slot // repeats], x, norm) for slot, x in enumerate(slots)], block, shared=False)",
        "leaking = [values[(slot // repeats + 1) % len(values)] for slot in range(len(slots))]\n"
        "        return Paths([option(values[slot // repeats], x, norm) + 0.05 * option(leaking[slot], "
        "x, norm) for slot, x in enumerate(slots)], block, shared=False)",
    ),
    (
        "slots-by-path",
        _ROUTING,
        "G3.3",
        "paths go into the slots by the inverse permutation",
        "self._arrange(paths, self._path_in[block])",
        "self._arrange(paths, self._slot_of[block])",
    ),
    (
        "gradient-of-routing",
        _ROUTING,
        "G3.3",
        "the gradient of the reordering is the permutation, not its inverse",
        "return rows(results, tf.math.invert_permutation(source))",
        "return rows(results, source)",
    ),
    (
        "gradient-of-upsampling",
        "edgeflownas/network/layers.py",
        "G3.3",
        "the gradient of upsampling leaves a neighbour out",
        "return even + own + before",
        "return even + own",
    ),
    (
        "another-batch",
        _CYCLE,
        "G3.4",
        "the second path is compared with another sample's flow",
        "by_path = [multiscale_loss(path, targets, self.config.train.loss) for path in zip(*outputs)]",
        "by_path = [multiscale_loss(path, [target[::(-1) ** i] for target in targets], "
        "self.config.train.loss) for i, path in enumerate(zip(*outputs))]",
    ),
    (
        "digest-of-nothing",
        _CYCLE,
        "G3.4",
        "the digests of what was fed leave the flow out",
        "fed = feed[self.images].tobytes() + feed[self.flow].tobytes()",
        "fed = feed[self.images].tobytes()",
    ),
    (
        "clip-too-high",
        _CYCLE,
        "G3.5",
        "the clip lets a fifth more through",
        "train.grad_clip * (1.0 - CLIP_MARGIN) / before",
        "train.grad_clip * 1.2 / before",
    ),
    (
        "clip-per-variable",
        _CYCLE,
        "G3.6",
        "each variable's gradient is clipped by its own norm",
        "self.clipped = [gradient * scale for gradient in gradients]",
        "self.clipped = [tf.clip_by_norm(gradient, train.grad_clip) for gradient in gradients]",
    ),
    (
        "clip-enlarges",
        _CYCLE,
        "G3.6",
        "small gradients are enlarged to the bound",
        "scale = tf.minimum(1.0, train.grad_clip * (1.0 - CLIP_MARGIN) / before)",
        "scale = train.grad_clip * (1.0 - CLIP_MARGIN) / before",
    ),
    (
        "cosine-over-epochs",
        _TRAINER,
        "G3.7a",
        "the cosine goes by epochs instead of steps",
        "lr = cosine_lr(t, train.lr, self.state.total_steps)",
        "lr = cosine_lr(epoch, train.lr, train.num_epochs)",
    ),
    (
        "schedule-bent",
        _TRAINER,
        "G3.7a",
        "--max_epochs bends the schedule",
        "lr = cosine_lr(t, train.lr, self.state.total_steps)",
        "lr = cosine_lr(t, train.lr, self.last_epoch * self.steps_per_epoch)",
    ),
    (
        "cosine-restarted",
        _TRAINER,
        "G3.7b",
        "the cosine starts anew on resume",
        "lr = cosine_lr(t, train.lr, self.state.total_steps)",
        'lr = cosine_lr(t - self.__dict__.setdefault("first", t), train.lr, self.state.total_steps)',
    ),
    (
        "decay-on-norms",
        _CYCLE,
        "G3.8",
        "weight decay acts on batch norm's gamma and beta too",
        "if weight.name in kernels else total",
        "if weight.name else total",
    ),
    ("no-decay", _CYCLE, "G3.8", "there is no weight decay", "total + train.wd * weight if", "total if"),
    ("adam-beta2", _CYCLE, "G3.8", "Adam's beta2 is 0.99", "beta2=0.999", "beta2=0.99"),
)
