"""Mutants of spherical codes: the solver, written codes, bounds and the head."""

CODES, HEAD = "tests/test_spherical_code.py", "tests/test_heads_code.py"
SOLVER = f"{CODES} -k 'energy or descent or threads or solved_once or within_five'"
WRITTEN = f"{CODES} -k 'written_codes or whole_bases or the_bound_is'"
CLOSED = f"{CODES} -k 'right_angle or simplex or polygon or orthoplex or beyond or once or (better and taken)'"
MEASURED = f"{CODES} -k 'minimal_angle or small_angles'"
BOUNDS = f"{CODES} -k 'bound and not written and not random or polygon or impossible or tabulated'"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("geometry/tammes.py", SOLVER): [
        ("w, w.mT, alpha=-1)", "w, w.mT, alpha=1)"),
        ("mul_(-exponent)", "mul_(exponent)"),
        (".exp_().div_(gap)", ".exp_()"),
        ("pull = 2 * share @ w", "pull = share @ w"),
        ("(pull - along * w) / norm", "pull / norm"),
        ("along * w) / norm", "along * w)"),
        ("return level / exponent", "return level"),
        ("gap.diagonal(dim1=1, dim2=2).fill_(torch.inf)", "gap.diagonal(dim1=1, dim2=2).fill_(2.0)"),
        ("direction = -_inverse", "direction = _inverse"),
        ("(a - inverse * _dot(changed, q)) * moved", "(a + inverse * _dot(changed, q)) * moved"),
        ("sum(dim=(1, 2), keepdim=True)", "sum().reshape(1, 1, 1)"),
        (".argsort(stable=True)[:FINALISTS]", ".argsort(stable=True, descending=True)[:FINALISTS]"),
        ("((hasty, 4.0), (hastier, 8.0))", "()"),
        ("torch.set_num_threads(before)", "pass"),
    ],
    ("geometry/quadratic_code.py", WRITTEN): [
        ("(1.0 - 2.0 * phases", "(1.0 - phases"),
        ("bits, 2**i + 1)", "bits, 2**i)"),
        ("power = 2**j + 1\n", "power = 2**j + 2\n"),
        ("own ^ _traces(a, x, bits - 1, 1)", "own"),
        ("2 * level - bits % 2", "2 * level"),
        ("(bits - 2) // 2 + 1)", "(bits - 2) // 2)"),
        ("torch.cat([hadamard, -hadamard])", "torch.cat([hadamard, hadamard])"),
        ("torch.cat([axes, -axes])", "torch.cat([axes, axes])"),
        ("torch.arange(order) * 2**i % order", "torch.arange(order) * (i + 1) % order"),
        ("torch.cat([matrix, -matrix], 1)", "torch.cat([matrix, matrix], 1)"),
        ("(_num_forms(level, bits) + 1)", "(_num_forms(level, bits) + 2)"),
        ("(_radical(level, bits) - bits) / 2)", "(_radical(level, bits) - bits))"),
    ],
    ("geometry/spherical_code.py", CLOSED): [
        ("turn = 2 * math.pi", "turn = math.pi"),
        ("small + (part < larger)", "small + (part > larger)"),
        ("simplex_etf(dim + 1, dim)", "simplex_etf(dim, dim)"),
        ("    if bound is None or math", "    if bound is not None or math"),
        ("<= minimal_angle(solved)", "> minimal_angle(solved)"),
        ("@lru_cache(maxsize=32)", "@lru_cache(maxsize=0)"),
        ("functional.normalize(rows, dim=1)", "functional.normalize(rows, dim=0)"),
        ("math.degrees(math.acos(bound))\n    return minimal", "math.degrees(math.asin(bound))\n    return minimal"),
    ],
    ("geometry/spherical_code.py", MEASURED): [
        ("w = w / torch.linalg.vector_norm(w, dim=1, keepdim=True)", ""),
        ("vector_norm(u - v)), float", "vector_norm(u - v)), 2 * float"),
        ("math.degrees(2 * half)", "math.degrees(half)"),
        ("cosine.scatter_(1, block[:, None], -torch.inf)", "pass"),
        ("if float(value) > closest", "if float(value) < closest"),
        ("int(block[int(index) // len(w)])", "int(index) // len(w)"),
    ],
    ("geometry/code_bounds.py", BOUNDS): [
        ("num_classes / (num_classes - 2) * math.pi / 6", "num_classes / (num_classes - 1) * math.pi / 6"),
        ("** 2 - 1) / 2))", "** 2 - 1)))"),
        ("((2 * j + dim - 2) * s", "((2 * j + dim - 1) * s"),
        ("(2 * k + dim - 3) / (dim - 1)", "(2 * k + dim - 2) / (dim - 1)"),
        ("(p - after) / ((1 - s) * after)", "(p + after) / ((1 - s) * after)"),
        ("(2 * k + dim - 1) / (dim - 1)", "(2 * k + dim - 2) / (dim - 1)"),
        ("ratio = (1 + s)", "ratio = (1 - s)"),
        ("return 2 * math.comb(half", "return math.comb(half"),
        ("upper = min(upper,", "upper = max(upper,"),
        ("return 360 / num_classes if", "return 180 / num_classes if"),
        ("if num_classes == 2 else 2):", "if num_classes == 2 else 1):"),
    ],
    ("heads/code.py", HEAD): [
        ("math.radians(self.minimal_angle - angle)", "0.0"),
        ("dim=1) - 1).abs()", "dim=1) - 2).abs()"),
        ("max(uneven, math", "min(uneven, math"),
        ('            self._told_angle = float(told["minimal_angle"])', "            pass"),
        ("super().set_extra_state(state)\n", "pass\n"),
        ('| {"minimal_angle": self.minimal_angle}', '| {"minimal_angle": 0.0}'),
        ("return code_angle(self.num_classes", "return code_angle(self.num_classes + 1"),
    ],
}
