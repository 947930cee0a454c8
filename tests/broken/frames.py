"""Mutants of frames, polytopes, Hadamard transforms, vertex assignment and scales."""

GEOMETRY, POLYTOPES = "tests/test_geometry.py", "tests/test_geometry_polytopes.py"
HEADS, FRAMES = "tests/test_heads.py", "tests/test_heads_frames.py -k 'not export'"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("geometry/rotation.py", GEOMETRY): [
        ("torch.randn(", "torch.rand("),
        ("frame *= on_axis.sign()", "pass"),
        ("drawn /= first - on_axis", "drawn /= first + on_axis"),
        ("1 - first / on_axis", "1 + first / on_axis"),
        ("1 <= columns <= dim", "1 <= columns <= dim + 1"),
    ],
    ("geometry/rotation.py", POLYTOPES): [
        (".copysign_(-first)", ".copysign_(first)"),
    ],
    ("geometry/simplex.py", GEOMETRY): [
        ("order * (order + 1)", "order * order"),
        ("copy_(-order)", "copy_(order)"),
        ("math.sqrt(num_classes / (num_classes - 1))", "math.sqrt((num_classes - 1) / num_classes)"),
        ("if feature_dim < num_classes - 1", "if feature_dim < num_classes"),
        ("frame[0] = frame[-1]", "frame[0] = rows[0]"),
        ("order.unsqueeze(1), value=-1)", "order.unsqueeze(1), value=1)"),
    ],
    ("geometry/polytopes.py", POLYTOPES): [
        ("(1 - 2 * (vertex % 2))", "(1 - (vertex % 2))"),
        ("(num_classes + 1) // 2", "num_classes // 2 + 1"),
        ("(num_classes - 1).bit_length()", "num_classes.bit_length()"),
        ("/ math.sqrt(dim)", "/ dim"),
    ],
    ("geometry/hadamard.py", POLYTOPES): [
        ("torch.cat((matrix, -matrix), 1)", "torch.cat((matrix, matrix), 1)"),
        ("small = small * order**-0.5", "small = small / order"),
        ("max(number - 1, 0).bit_length()", "number.bit_length()"),
        ("        behind *= width", "        behind = width"),
    ],
    ("geometry/random_hadamard.py", POLYTOPES): [
        (".to(torch.float64) * 2 - 1", ".to(torch.float64) + 1"),
        ("torch.randint(2, (2, dim)", "torch.randint(1, 2, (2, dim)"),
        ('torch.randperm(dim, generator=generator, device="cpu")', 'torch.arange(dim, device="cpu")'),
        ("stretched, factor), mean, out=", "stretched, factor), 0 * mean, out="),
        ("math.sqrt(num_classes / (num_classes - 1))], [1.0]", "1.0], [1.0]"),
        ("math.sqrt(num_classes / (num_classes - 1))", "math.sqrt((num_classes - 1) / num_classes)"),
        ("return signs / math.sqrt(whole)", "return signs / whole"),
        ("return signs * sizes.rsqrt()", "return signs * whole**-0.5"),
        ("permute(grad, inverse(order)), None", "permute(grad, order), None"),
        ("place % buckets).mul_(weights)", "place % buckets)"),
        ("_weights(signs[0], buckets).index_select(0, place)", "_weights(signs[0], buckets)"),
        ("walsh_hadamard(mixed[..., width - part :], factor)", "mixed[..., width - part :]"),
        ("walsh_hadamard(mixed[..., :part], factor), mixed", "mixed[..., :part], mixed"),
        ("if width < num_classes:", "if width < num_classes - 1:"),
    ],
    ("geometry/assignment.py", POLYTOPES): [
        ("maximize=True)[1]", "maximize=False)[1]"),
        ("centred = centred - centred.mean(0)", "pass"),
        ("centred / norms.clamp_min(torch.finfo(torch.float64).tiny)", "centred"),
        ("own[:, None] + 2 * alike", "own[:, None] - 2 * alike"),
        ("@ (placed[[i, j]] - before)", "@ (before - placed[[i, j]])"),
        ("int(gain.argmax())", "int(gain.argmin())"),
    ],
    ("heads/frame.py", HEADS): [
        ("unit(projected) if self.normalise else projected", "projected"),
        ("if error < 1e-2", "if error < 1e2"),
        ('stream(frame_seed, "frame"))', 'stream(0, "frame"))'),
    ],
    ("heads/frame.py", FRAMES): [
        ("int(p) if before is None else before[p]", "int(p)"),
        ("index_copy_(0, assignment.to(frame.device), frame)", "copy_(frame)"),
        ("self.width == 1 and normalise", "self.width == 0 and normalise"),
        ('tuple(told["assignment"]) if "assignment" in told else None', "None"),
        ("return  # with the vectors as they were", "pass"),
    ],
    ("heads/etf.py", HEADS): [
        ("(w.shape[0] * v - v.sum())", "(w.shape[0] * v + v.sum())"),
        ("v.sum()) / (w.shape[0] - 1)", "v.sum()) / w.shape[0]"),
    ],
    ("heads/frozen_random.py", HEADS): [
        ("return unit(torch.randn", "return 1 * (torch.randn"),
        ("dim=1) - 1).abs()", "dim=1) - 2).abs()"),
    ],
    ("heads/assignment.py", FRAMES): [
        ('stream(seed, "frame", 2)', 'stream(0, "frame", 2)'),
        ("frame_seed if self.seed is None else self.seed", "frame_seed"),
    ],
    ("heads/polytopes.py", FRAMES): [
        ("@ rotation.T", "@ rotation[:, :1] @ rotation[:, :1].T"),
        ("normalise=normalise and radius is None", "normalise=normalise"),
        ("scale=scale if radius is None else radius", "scale=scale"),
        ("expected = vertices @ (vertices.T @ v)", "expected = w @ (w.T @ v)"),
        ("rows.mul_(width**-0.5)", "rows.mul_(1 / width)"),
        ("width < num_classes or width != power_of_two(width)", "width != power_of_two(width)"),
    ],
    ("heads/structured_etf.py", FRAMES): [
        ("u - u.mean(-1, keepdim=True)", "u"),
        ("self.num_classes / (self.num_classes - 1)", "(self.num_classes - 1) / self.num_classes"),
        ("eye - eye.mean(0)", "eye"),
        ("return centred if self.classes is None else permute(centred, self.classes)", "return centred"),
        ("bool((signs.abs() == 1).all())", "True"),
        ("self._place_classes()\n\n    def _centred", "pass\n\n    def _centred"),
    ],
    ("heads/scale.py", HEADS): [
        ("(num_classes - 1) * confidence / (1 - confidence)", "confidence / (1 - confidence)"),
        ("(num_classes - 1) / num_classes * math", "num_classes / (num_classes - 1) * math"),
        ("raw = value + math.log(-math.expm1(-value))", "raw = value"),
        ("nn.functional.softplus(self.raw)", "self.raw"),
    ],
    ("heads/scale.py", FRAMES): [
        ("(num_classes,) if scale.per_class else ()", "()"),
    ],
}  # fmt: skip
