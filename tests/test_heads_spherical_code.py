"""The spherical-code head: its frame, its printout, and loading checkpoints."""

import math

import pytest
import torch
from torch import Tensor

from nc_tools.geometry import code_angle, haar_frame, minimal_angle, minimal_angle_bounds
from nc_tools.heads import ETFHead, FrozenRandomHead, SphericalCodeHead, normalize

D, K, WIDTH = 24, 11, 3


def head(seed: int = 0, classes: int = K, width: int = WIDTH) -> SphericalCodeHead:
    return SphericalCodeHead(D, classes, projection=width, frame_seed=seed, generator=torch.Generator().manual_seed(0))


def test_frame_is_a_code_of_the_head_width_and_draws_rotate_it() -> None:
    a, b = head(0), head(1)
    assert a.weight.shape == (K, WIDTH)
    assert minimal_angle(a.weight) == pytest.approx(code_angle(K, WIDTH), abs=1e-3)
    assert torch.allclose(a.weight @ a.weight.T, b.weight @ b.weight.T, atol=1e-6)
    assert not torch.allclose(a.weight, b.weight, atol=0.1)
    assert torch.equal(a.weight, head(0).weight)


@pytest.mark.slow
def test_without_a_projection_the_code_has_the_features_width() -> None:
    narrow = SphericalCodeHead(4, 9)
    assert narrow.weight.shape == (9, 4)
    assert narrow.minimal_angle == pytest.approx(code_angle(9, 4), abs=1e-5)


def test_up_to_d_plus_one_classes_it_is_the_etf_head() -> None:
    h = torch.randn(5, D, generator=torch.Generator().manual_seed(1))
    assert torch.equal(SphericalCodeHead(D, D + 1, frame_seed=3)(h), ETFHead(D, D + 1, frame_seed=3)(h))


def test_logits_are_scaled_cosines() -> None:
    wide = head()
    h = torch.randn(4, D, generator=torch.Generator().manual_seed(1))
    assert wide.projection is not None
    for n in range(4):
        rows = wide.projection.weight.tolist()
        u = [math.fsum(a * b for a, b in zip(row, h[n].tolist(), strict=True)) for row in rows]
        for k in range(K):
            dot = math.fsum(a * b for a, b in zip(u, wide.weight[k].tolist(), strict=True))
            cosine = dot / math.dist(u, [0] * WIDTH)
            assert float(wide(h)[n, k].detach()) == pytest.approx(float(wide.scale) * cosine, abs=1e-4)


def test_the_printout_shows_the_minimal_angle_and_its_bound() -> None:
    upper = minimal_angle_bounds(K, WIDTH).upper
    assert f"minimal_angle={code_angle(K, WIDTH):.2f} deg (at most {upper:.2f})" in repr(head())
    assert "minimal_angle=90.00 deg (at most 90.00)" in repr(SphericalCodeHead(4, 8))


def turned(frame: Tensor, degrees: float) -> Tensor:
    """Return the frame with its second row brought to so many degrees from the first."""
    u, v = frame[0], frame[1]
    across = normalize((v - (u @ v) * u)[None])[0]
    out = frame.clone()
    out[1] = math.cos(math.radians(degrees)) * u + math.sin(math.radians(degrees)) * across
    return out


def test_a_checkpoint_of_another_draw_is_taken_with_its_seed_and_angle() -> None:
    saved, loaded = head(5), head(0)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded.weight, saved.weight)
    assert loaded.minimal_angle == saved.minimal_angle
    rounded = saved.state_dict() | {"frame": saved.frame.to(torch.bfloat16)}
    loaded.load_state_dict(rounded)


@pytest.mark.parametrize("strict", [True, False])
def test_frames_with_a_smaller_angle_than_saved_or_rows_of_other_length_raise(strict: bool) -> None:
    state = head().state_dict()
    angle = head().minimal_angle
    random = FrozenRandomHead(WIDTH, K).weight
    for frame in (turned(state["frame"], angle - 2), random, 1.05 * state["frame"], 0 * state["frame"]):
        with pytest.raises(RuntimeError, match="frame must be a spherical code frame, but the checkpoint's is off by"):
            head().load_state_dict(state | {"frame": frame}, strict=strict)
    error = head().frame_error(turned(state["frame"], angle - 2))
    assert error == pytest.approx(math.radians(2), abs=1e-4)
    assert head().frame_error(state["frame"] @ haar_frame(WIDTH, WIDTH).float()) < 1e-4


def test_a_frame_is_checked_against_the_angle_it_was_saved_with() -> None:
    """A code of another version's solver may be a little worse, or better, than what is built today."""
    angle = head().minimal_angle - 3
    state = head().state_dict()
    state["frame"] = turned(state["frame"], angle)
    loaded = head()
    loaded.load_state_dict(state | {"angle": torch.tensor([angle])})
    assert loaded.minimal_angle == pytest.approx(angle, abs=1e-5)
    assert f"minimal_angle={angle:.2f} deg" in repr(loaded)
    with pytest.raises(RuntimeError, match="is off by"):
        head().load_state_dict(head().state_dict() | {"angle": torch.tensor([head().minimal_angle + 3])})


def test_another_geometry_raises() -> None:
    frozen = FrozenRandomHead(D, K, projection=WIDTH)
    with pytest.raises((RuntimeError, ValueError), match="spherical code frame"):
        head().load_state_dict(frozen.state_dict())


def test_of_a_large_frame_some_rows_are_checked() -> None:
    large = head(classes=3000, width=48)
    assert large.minimal_angle == pytest.approx(math.degrees(math.acos(0.5)), abs=1e-5)
    assert large.frame_error(large.frame) < 1e-4
    assert large.frame_error(FrozenRandomHead(48, 3000).weight) > 0.1
    again = head(seed=1, classes=3000, width=48)
    again.load_state_dict(large.state_dict())


def test_a_line_holds_two_classes() -> None:
    assert SphericalCodeHead(1, 2, normalize=False).minimal_angle == 180
    with pytest.raises(ValueError, match="of 3 classes needs feature_dim >= 2, got 1: on a line"):
        SphericalCodeHead(1, 3, normalize=False)
    with pytest.raises(ValueError, match="of 5 classes needs feature_dim >= 2, got 1"):
        SphericalCodeHead(D, 5, projection=1, normalize=False)
    with pytest.raises(
        ValueError, match="keep only their sign and have no gradient: pass normalize=False, or a projection"
    ):
        SphericalCodeHead(1, 2)
