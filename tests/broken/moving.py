"""Mutants of the heads that move, grow, mix or have a background, and of the nearest ETF."""

NEAREST, MOVING = "tests/test_geometry_nearest.py", "tests/test_heads_moving.py"
HEADS = "tests/test_heads_nearest.py -k 'not processes and not learns'"
PROCESSES = "tests/test_heads_nearest.py -k processes"
AVERAGED = "tests/test_heads_nearest.py -k 'averaged'"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("geometry/nearest.py", NEAREST): [
        ("* (2 / math.sqrt(num_classes - 1)) / norm", "* (1 / math.sqrt(num_classes - 1)) / norm"),
        ("* (2 / math.sqrt(num_classes - 1)) / norm", "* (2 / math.sqrt(num_classes - 1))"),
        ("math.sqrt((num_classes - 1) / num_classes) *", "1.0 *"),
        ("pull + max(delta", "pull - max(delta"),
        ("max(delta, _TIE if", "max(delta, 0.0 if"),
        ("norm > 1e-12 * torch", "norm > 0 * torch"),
        ("etf: Tensor = math.sqrt(num_classes / (num_classes - 1))", "etf: Tensor = 1.0"),
        ("(left @ right).T", "left.T"),
        ("if feature_dim < num_classes - 1", "if feature_dim < num_classes - 2"),
    ],
    ("heads/class_means.py", HEADS): [
        ("1 - self.momentum, 1.0)", "self.momentum, 1.0)"),
        ("1 - self.momentum, 1.0)", "1 - self.momentum, 0.9)"),
        ("* (counts > 0)", ""),
        ("sums / counts.clamp(min=1).unsqueeze(1)", "sums"),
        ("- self.means[classes]", ""),
        ("self.counts.index_add_(0, classes, counts)", "self.counts.index_add_(0, classes, counts.clamp(min=1))"),
        ("return self.means.sum(dim=0) / self.seen.sum().clamp(min=1)", "return self.means.mean(dim=0)"),
        ("overall = means.sum(dim=0) / self.seen.sum().clamp(min=1)", "overall = means.mean(dim=0)"),
    ],
    ("heads/class_means.py", PROCESSES): [
        ("dist.all_reduce(packed)", "pass"),
        ("packed[:, :-1], packed[:, -1].to(counts.dtype)", "packed[:, :-1], counts"),
    ],
    ("heads/nearest.py", HEADS): [
        ("self.scale * -torch.mv", "self.scale * torch.mv"),
        ("self.scale * -torch.mv", "-torch.mv"),
        ("self.steps % self.every == 0", "self.steps % self.every == 1"),
        ("self.steps += 1", "pass"),
        ("update(outputs.embedded", "update(outputs.features"),
        ("self.frame, self.delta)", "self.frame, 0.0)"),
        ("if bool(torch.isfinite(means).all()):", "if True:"),
        ('self.steps = int(json.loads(bytes(state.cpu().tolist()).decode())["steps"])', "pass"),
        ("if not delta >= 0", "if delta < -2"),
    ],
    ("heads/prototype.py", MOVING): [
        ("prototypes.lerp(vertices, self.progress)", "vertices.lerp(prototypes, self.progress)"),
        ("return unit(prototypes.lerp", "return (prototypes.lerp"),
        ("unit(means), vertices)", "means, vertices)"),
        ("torch.where(seen.unsqueeze(1), unit(means), vertices)", "unit(means)"),
        ("self.progress.fill_(progress)", "pass"),
    ],
    ("heads/preallocated.py", MOVING): [
        ("self.frame[: self.num_classes]", "self.frame[-self.num_classes :]"),
        ("feature_dim, capacity, scale=scale", "feature_dim, num_classes, scale=scale"),
        ("if num_classes > self.capacity", "if num_classes > self.capacity + 1"),
        ("max(self.num_classes, int(", "min(self.num_classes, int("),
        ("capacity = max(width + 1, num_classes)", "capacity = max(width, num_classes)"),
        ('"num_classes": self.num_classes}', '"num_classes": 2}'),
    ],
    ("heads/rbf.py", MOVING): [
        ("default_scale(num_classes) / (2 * self.radius**2)", "default_scale(num_classes) / self.radius**2"),
        ("Scale(2 * self.gamma * self.radius", "Scale(self.gamma * self.radius"),
        ("- self.gamma * square", "+ self.gamma * square"),
        ("self.radius**2 + self.background)", "self.radius**2 - self.background)"),
        ("-self.gamma * self.radius**2 if background", "self.gamma * self.radius**2 if background"),
        ("pad(logits, (0, 1))", "pad(logits, (1, 0))"),
    ],
    ("losses/background.py", MOVING): [
        ("pad(logits, (0, 1))", "pad(logits, (0, 2))"),
        ("nn.functional.pad(logits, (0, 1)), batch", "logits, batch"),
    ],
    ("heads/two_space.py", MOVING): [
        ("(wide / feature_dim) ** 0.5 *", "1.0 *"),
        (".relu()", ""),
        ("gaussian - gaussian.mean(dim=0)", "gaussian"),
        ('stream(frame_seed, "frame", 1)', 'stream(0, "frame", 1)'),
        ("if wide <= feature_dim", "if wide < feature_dim"),
    ],
    ("heads/balanced_calibration.py", MOVING): [
        ("[share * self.linear.weight, (1 - share)", "[share * self.linear.weight, share"),
        ("[share * self.linear.weight,", "[self.linear.weight,"),
        ("* self.etf.scale * self.etf.weight", "* self.etf.weight"),
        ("return self.mix * cast", "return cast"),
        ("confidence.mean() - (winner", "confidence.mean() + (winner"),
        ("_ENDS if last > 0 else _ENDS[::-1]", "_ENDS"),
        ("math.log(share / (1 - share))", "share"),
        ("_ENDS[abs(last) < abs(first)]", "_ENDS[abs(last) > abs(first)]"),
    ],
    ("training/ema.py", AVERAGED): [
        ("and id(a) not in copied", ""),
        ("if not isinstance(part, nn.modules.batchnorm._NormBase)", ""),
    ],
}
