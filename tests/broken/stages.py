"""Mutants of second stages, of how runs resume in them, and of the panels over measured NC1."""

STAGE = "tests/test_second_stage.py"
RUNS = "tests/test_second_stage_runs.py -k 'changes or counts or best or fit_its or noise'"
RESUMED = "tests/test_second_stage_runs.py -k 'stop and (crt or between or estimates)'"
OVER = "tests/test_compare_over_collapse.py"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("training/retraining.py", STAGE): [
        ("return self.factor * nn.functional.linear(", "return nn.functional.linear("),
        ("return self.factor * nn.functional", "return self.factor.square() * nn.functional"),
        ("head.weight.copy_(trained.factor[:, None] * trained.rows)", "head.weight.mul_(trained.factor[:, None])"),
        ("head.bias.copy_(trained.factor * trained.bias_rows)", "pass"),
        ("replace(super().optim(first), decay_norm_and_bias=False)", "super().optim(first)"),
        ("copy.deepcopy(head).requires_grad_(requires_grad=False)", "copy.deepcopy(head)"),
        ("scales.requires_grad_(True)", "pass"),
        ("        return fresh\n", "        return copy.deepcopy(head)\n"),
        ("if not any(p.ndim >= 2", "if not any(p.ndim >= 0"),
        ("owner.fixed is None and owner.raw.ndim == 1", "owner.fixed is None"),
    ],
    ("training/second_stage.py", STAGE): [
        ("requires_grad_(requires_grad=False).eval()", "requires_grad_(requires_grad=False)"),
        ("super().train(mode=False)", "super().train(mode)"),
        ("    @torch.no_grad()\n    def forward", "    def forward"),
        ("lr=first.lr * self.lr_ratio", "lr=first.lr"),
        ("round(self.share * first)", "round(first)"),
        ("max(1, round(", "max(0, round("),
        ("        stage.fold(trained.head, model.head)\n", ""),
        ("replace(stage.optim(optim), sharpness=None)", "replace(optim, sharpness=None)"),
        ("replace(stage.optim(optim), sharpness=None)", "stage.optim(optim)"),
        ("training.epochs), mixing=None)", "training.epochs))"),
        ("    stage.check(model.head)\n", ""),
        ("EpochsAfter(batches, training.epochs)", "batches"),
        ("self._first + epoch, start)", "self._first + epoch)"),
    ],
    ("training/post_hoc.py", STAGE): [
        ("head.weight.detach(), self.tau)", "head.weight.detach(), 1.0)"),
        ("self.tau))\n        if head.bias is not None:\n            head.bias.zero_()", "self.tau))"),
        ("rows.copy_(means)\n        if head.bias is not None:\n            head.bias.zero_()", "rows.copy_(means)"),
        ("rows.copy_(means)", "rows.copy_(-means)"),
        ("self.tau >= 0", "self.tau > -1"),
    ],
    ("training/loop.py", RESUMED): [("keep_last if state.step == total else due:", "state.step < total and due:")],
    ("experiment/checkpoints.py", RESUMED): [
        ("for path in (self.main, self.second)", "for path in (self.main,)"),
        ("for path in (self.main, self.second)", "for path in (self.first, self.main, self.second)"),
        ("return self.first.exists() or self.main.exists()", "return self.main.exists()"),
        ("for path in (self.first, self.main, self.second):", "for path in (self.first, self.main):"),
    ],
    ("experiment/second_stage.py", RUNS): [
        ("        return seconds\n", "        return 0.0\n"),
        ("epoch_end(first + 1, {}, model)", "pass"),
        ("epoch_end(first + epoch, values, mended)", "epoch_end(epoch, values, mended)"),
        ("indices, sampling=BalancedSampling())", "indices)"),
    ],
    ("experiment/execute.py", RESUMED): [("keep_last=job.config.second_stage is not None", "keep_last=False")],
    ("experiment/second_stage.py", RESUMED): [("resume=job.resume,", "resume=False,")],
    ("experiment/setup.py", RUNS): [("sampling=sampling or data.sampling", "sampling=data.sampling or sampling")],
    ("experiment/execute.py", RUNS): [
        ("fitted.seconds + after", "fitted.seconds"),
        ("samples * (before.epochs + self.epochs)", "samples * self.epochs"),
        ("samples * (before.epochs + self.epochs)", "samples * self.training.epochs"),
        ("last = epoch == self.epochs", "last = epoch == self.training.epochs"),
    ],
    ("experiment/run.py", RUNS): [("variant.second_stage.check(model.head)", "pass")],
    ("compare/over_collapse.py", OVER): [
        ("key=lambda point: point.x)", "key=lambda point: -point.x)"),
        ("math.fsum(math.log(x) for _, x, _ in seeds)", "math.fsum(math.log(y) for _, _, y in seeds)"),
        ("math.exp(math.fsum(math.log(x) for _, x, _ in seeds) / len(seeds))", "max(x for _, x, _ in seeds)"),
        ("LEAST_JOINED = 4", "LEAST_JOINED = 3"),
        ("LEAST_JOINED = 4", "LEAST_JOINED = 5"),
        ('[config.get("head"), config.get("second_stage")]', '[config.get("head")]'),
        ('[config.get("head"), config.get("second_stage")]', '[config.get("second_stage")]'),
        ("LEAST_ARMS = 4", "LEAST_ARMS = 3"),
        ("LEAST_ARMS = 4", "LEAST_ARMS = 5"),
        ("if value > 0}", "if value >= 0}"),
        ('("msp", "max_logit", "energy")', '("energy", "max_logit", "msp")'),
        ("if p.arm == baseline else", "if p.arm != baseline else"),
    ],
    ("compare/place_names.py", OVER): [
        ("        taken.append(boxes[best])\n", ""),
        ("costs.index(min(costs))", "0"),
        ("+ _outside(box, _Box(*area))", ""),
        ('"middle": length / 2', '"middle": 0.0'),
    ],
}  # fmt: skip
