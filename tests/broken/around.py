"""Mutants of what stands around the loss: mixing, sharpness, samplers, imbalance, augmentation."""

MIXING = "tests/test_data_mixing.py"
SHARPNESS = "tests/test_sharpness.py"
SAMPLING = "tests/test_data_sampling.py"
IMBALANCE = "tests/test_data_imbalance.py"
COLOUR = "tests/test_data_colour.py"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("data/mixing.py", MIXING): [
        ("torch.lerp(others, inputs, draw.share)", "torch.lerp(inputs, others, draw.share)"),
        ("side = math.sqrt(1 - draw.share)", "side = 1 - draw.share"),
        ("return mixed, 1 - (bottom", "return mixed, (bottom"),
        ("max(middle - half, 0)", "max(middle - half + 1, 0)"),
        ("labels=batch.labels.roll(1, 0)", "labels=batch.labels.roll(2, 0)"),
        ("index=batch.index.roll(1, 0)", "index=batch.index"),
        ("if share >= 0.5 else (rolled, batch)", "if share >= 0.5 else (batch, rolled)"),
        ("share = max(share, 1 - share)", "pass"),
        ("generator.beta(alpha, alpha, steps)", "generator.beta(1.0, 1.0, steps)"),
        ("draws[step]) if", "draws[step - start]) if"),
        ('stream_seed(seed, "mix", epoch)', 'stream_seed(seed, "mix")'),
        ("if share < 1 else None", "if share < 2 else None"),
    ],
    ("training/terms.py", MIXING): [
        ("batch.share * value + (1 - batch.share)", "batch.share * value + batch.share"),
        ("    with resting(loss):\n        others", "    if True:\n        others"),
        ("if loss.views != 1:", "if loss.views == 3:"),
        ("how.until == 1", "how.until == 2"),
    ],
    ("training/loop.py", MIXING): [
        ("if batch.partner is None:", "if True:"),
        ("training.mixing, seed,", "training.mixing, 0,"),
    ],
    ("training/sharpness.py", SHARPNESS): [
        ("self.rho / (_norm(slopes) + 1e-12)", "self.rho / (_norm(slopes) ** 2 + 1e-12)"),
        ("_foreach_mul(slopes, factor)", "_foreach_mul(slopes, -factor)"),
        ("+ 1e-12)", "+ 1e-3)"),
        ("            parameter.copy_(before)\n", "            pass\n"),
        ("            buffer.copy_(before)\n", "            pass\n"),
        ("        with resting(loss):\n            yield", "        yield"),
        ("loss=loss, beta=self.beta)", "loss=loss, beta=0.0)"),
        ("self.base.load_state_dict(state_dict)\n        self._share()", "self.base.load_state_dict(state_dict)"),
    ],
    ("training/loop.py", SHARPNESS): [
        ("_total(terms if uphill is loss else batch_terms(uphill, outputs, batch))", "_total(terms)"),
        ("optimizer.first_step(zero_grad=True)", "optimizer.first_step()"),
        ("_total(batch_terms(loss, forward(batch), batch))", "_total(batch_terms(uphill, forward(batch), batch))"),
    ],
    ("data/sampling.py", SAMPLING): [
        ("power_shares(counts, 0.5)", "power_shares(counts, 0.25)"),
        ("(1 - progress) * power_shares(counts, 1.0) + progress", "progress * power_shares(counts, 1.0) + progress"),
        ("epoch / self._last", "epoch / (self._last + 1)"),
        ("rank % counts[classes]", "rank % 2"),
        ('self._seed, "sampling", epoch)', 'self._seed, "sampling")'),
        (" + torch.rand(1, dtype=torch.float64, generator=generator)", " + 0.5"),
        ("torch.where(counts > 0, counts.double() ** power, 0.0)", "counts.double() ** power"),
    ],
    ("data/plan.py", SAMPLING): [
        ("order = sampler.draw(epoch)[order]", "order = sampler.draw(epoch)"),
    ],
    ("data/imbalance.py", IMBALANCE): [
        ("** (-1 / pareto_alpha)", "** (-pareto_alpha)"),
        ("((k + 0.5) / last)", "((k + 0.25) / last)"),
        ("fall + ratio * (1 - fall)", "fall"),
        ("if bool((kept > counts).any()):", "if False:"),
        ("len(wanted) != len(counts)", "False"),
    ],
    ("data/config.py", IMBALANCE): [
        ("or count < 1]", "or count < 0]"),
        ("if self.imbalance != 1:", "if self.imbalance < 1:"),
    ],
    ("data/subsets.py", IMBALANCE): [
        ("            config.pareto_alpha,\n", ""),
    ],
    ("data/colour.py", COLOUR): [
        ("(0.2989, 0.587, 0.114)", "(0.2989, 0.114, 0.587)"),
        ("base * (1 - share)", "base * share"),
        ("grey(pixels).mean((1, 2, 3), keepdim=True)", "grey(pixels).mean()"),
        ("+ 2 * brightest", "+ brightest"),
        ("6 * turn", "turn"),
        ("channel(5), channel(3), channel(1)", "channel(5), channel(1), channel(3)"),
        ("block + 4 * pixels", "block + 5 * pixels"),
        ("low + (high - low) * torch.rand", "low + high * torch.rand"),
    ],
    ("data/tables.py", COLOUR): [
        ("256 - (2 ** (8 - bits))", "256 - (2 ** bits)"),
        ("level >= threshold", "level > threshold"),
        ("(level - low)", "level"),
        ("torch.where(range_ > 0,", "torch.where(range_ > -1,"),
        ("// 255\n", "// 256\n"),
        ("(step // 2 + below)", "below"),
        ("torch.where(step > 0, spread", "torch.where(step >= 0, spread"),
        (".floor_().mean((2, 3))", ".mean((0, 2, 3), keepdim=True)[:, :, 0, 0]"),
    ],
    ("data/rand_augment.py", COLOUR): [
        ("shear_x * height / 2", "shear_x * width / 2"),
        ("shear_x - sin", "shear_x + sin"),
        ("shear_y * width / 2 - shift_y", "shear_y * width / 2 + shift_y"),
        ("150 / 331", "150 / 311"),
        ("column % 2 * 2 - 1", "column % 2 * 2"),
        ("round(8 - _BITS * size)", "round(8 - size)"),
        ("255 * (1 - size)", "255 * size"),
        ("blurred(pixels).round_()", "blurred(pixels).floor_() - 3"),
        ('mode="nearest"', 'mode="bilinear"'),
    ],
    ("data/cutout.py", COLOUR): [
        ("- self.size // 2", ""),
        ("first[:, None] + self.size)", "first[:, None] + self.size + 1)"),
        ("rows[:, None, :, None] & columns", "rows[:, None, :, None] | columns"),
        ("drawn[:, 1])", "drawn[:, 0])"),
    ],
    ("data/augmentation.py", COLOUR): [
        ("epoch, view, place)", "epoch, view)"),
        ("self.views > 1 or any(True for _ in self._further())", "self.views > 1"),
    ],
}
