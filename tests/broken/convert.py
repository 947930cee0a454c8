"""Mutants of what makes heads from features, turns them into others, and keeps them working."""

IMPRINT, PLAIN, ALIGN = "tests/test_heads_imprint.py", "tests/test_heads_plain.py", "tests/test_heads_align.py"
SAMPLES = "tests/test_keeps_working_steps.py -k 'each_sample'"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("heads/imprint.py", IMPRINT): [
        ("directions = unit(at_least_float32(features.detach()))", "directions = at_least_float32(features.detach())"),
        ("return torch.stack(cosines).argmax(0)", "return torch.stack(cosines).argmin(0)"),
        ("group = labels * num_proxies + nearest", "group = nearest * num_classes + labels"),
        ("means = unit(sums).to", "means = sums.to"),
        ("> 0, means, centres)", ">= 0, means, centres)"),
        (".to(distance) / distance", ".to(distance)"),
        (".to(distance) / distance", ".to(distance) / distance.square()"),
        ("away = 1 - (directions", "away = 1 + (directions"),
        ("torch.minimum(distance, away)", "torch.maximum(distance, away)"),
        ("cumsum(0).roll(1)", "cumsum(0)"),
        ("minlength=num_classes) == 0)", "minlength=num_classes) == -1)"),
        ("unused = torch.Generator()", "unused = None"),
    ],
    ("heads/proxy.py", IMPRINT): [
        ("amax(-1)", "mean(-1)"),
        ("return self.scale * cosines", "return cosines"),
        ("rows = unit(self.proxies)", "rows = self.proxies"),
        ("return unit(unit(self.proxies).mean(1))", "return unit(unit(self.proxies).sum(2))"),
    ],
    ("heads/least_squares.py", "tests/test_heads_least_squares.py"): [
        (
            "share = moments.counts.double() / len(values)",
            "share = torch.full_like(moments.means[:, 0], 1 / num_classes)",
        ),
        ("means = moments.means - centre", "means = moments.means"),
        ("+ means.T @ weighted", "- means.T @ weighted"),
        ("moments.within_pooled() + means.T", "means.T"),
        ("second.diagonal().add_(ridge)", "second.diagonal().mul_(1 + ridge)"),
        ("weight = target * torch", "weight = torch"),
        ("target * share - weight", "share - weight"),
        ("share - weight @ centre", "share + weight @ centre"),
    ],
    ("heads/tau_norm.py", "tests/test_heads_tau_norm.py"): [
        ("torch.ones_like(norm)) ** tau", "torch.ones_like(norm)) ** (1 - tau)"),
        ("torch.where(norm > 0, norm, torch.ones_like(norm))", "norm"),
        ("dim=1, keepdim=True", "dim=0, keepdim=True"),
        ("bias=False, generator=unused", "bias=True, generator=unused"),
    ],
    ("heads/convert.py", PLAIN): [
        (".to(weight).reshape(-1, 1) * weight", ".to(weight).reshape(-1, 1) * 0 + weight"),
        ("weight = weight / math.sqrt(weight.shape[1])", "weight = weight / math.sqrt(weight.shape[0])"),
        ('if list(layers) == ["projection"]', 'if list(layers) == ["projected"]'),
        ("eps=torch.finfo(torch.float32).tiny, ", ""),
        ("if not head.affine", "if head.affine is None"),
        ("if not error < 1e-3", "if not error < 1e9"),
        ("nn.Parameter(bias.clone())", "nn.Parameter(bias * 0)"),
        ("return plain.to(given)", "return plain"),
    ],
    ("heads/align.py", ALIGN): [
        ("left @ right", "left"),
        ("weight.to(core).T @ core).T)", "-weight.to(core).T @ core).T)"),
        ("num_classes / (num_classes - 1)", "(num_classes - 1) / num_classes"),
        ("core: Tensor = left * sizes", "core: Tensor = left"),
    ],
    ("heads/unit.py", SAMPLES): [
        ("return (_stepwise(x) * other).sum(-1)", "return (x * other).sum(-1)"),
        ("if traced():\n        return (_stepwise", "if x is None:\n        return (_stepwise"),
        ("if traced():\n        return _stepwise", "if x is None:\n        return _stepwise"),
    ],
}
