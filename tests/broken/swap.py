"""Mutants of finding, refusing, swapping and watching heads."""

WATCH = "tests/test_swap_watch.py -k 'not compiled and not processes'"
HF = "tests/test_swap_hf.py -k 'not image_family and not averaged_heads_are'"

SWAP = "tests/test_swap.py -k 'changed or place or refused or probabilities or other_outputs'"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("heads/tap.py", WATCH): [
        ("if torch.is_grad_enabled() and not with_gradients", "if False"),
        ("self.record.forget()", "pass"),
        ("!= -1", "== -2"),
        ("self.record.calls[:1], (inputs", "self.record.calls[:0], (inputs"),
        ("outputs._logits = logits", "outputs._logits = None"),
        ("first.second = second", "first.second = first"),
        ("    record.on = False\n", "    record.on = True\n"),
        ("handle.remove()", "pass"),
        ("if features.ndim != 2", "if features.ndim > 9"),
    ],
    ("heads/declared.py", HF): [
        ('change(config, "num_labels", new)', "pass"),
        ("for owner, attribute, value in reversed(undo)", "for owner, attribute, value in undo[:0]"),
        ('for kept in ("id2label", "label2id")', "for kept in ()"),
        ('change(config, "problem_type", None)', "pass"),
    ],
    ("heads/refusals.py", HF): [
        ("if parameter is not None and id(parameter) in own", "if False"),
        ("if other in inside", "if True"),
        ('getattr(model, "num_labels", None) == 0', "False"),
    ],
    ("heads/trace.py", SWAP): [
        ("return _version(self.output) == self.version", "return True"),
    ],
    ("heads/refusals.py", SWAP): [
        ("(scores >= 0).all()", "(scores >= 1).all()"),
        ("torch.allclose(scores.exp().sum(1), one", "torch.allclose(scores.sum(1), one"),
        ("isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel)", "isinstance(module, str)"),
        ("seen.bare and not fitting", "fitting"),
    ],
    ("heads/trace.py", HF): [
        (".all(-1).sum(1) == 1)", ".all(-1).sum(1) >= 1)"),
        ("direct or [call", "direct and [call"),
    ],
    ("heads/examples.py", HF): [
        ("if i not in special", "if i in special"),
        ("ids[-1] = end", "pass"),
        ('and end < getattr(config, "vocab_size", end)', ""),
    ],
}
