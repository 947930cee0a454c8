"""The surest mistakes of an arm as cards of a report: a picture, true and predicted class, and at how many seeds."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from nc_tools.comparison.arm_models import Mistake
from nc_tools.comparison.figures.figure_data import csv_link
from nc_tools.comparison.result import Comparison
from nc_tools.plots.picture_url import picture_url

_TINY = 32


@dataclass(frozen=True)
class MistakeCard:
    """One image: its picture as a data URL or "", whether it has at most 32 pixels a side, and the texts beside it."""

    picture: str
    tiny: bool
    name: str
    true: str
    predicted: str
    confidence: str
    counts: str


@dataclass(frozen=True)
class MistakeGroup:
    """The surest mistakes of one arm."""

    arm: str
    cards: tuple[MistakeCard, ...]

    @property
    def pictures(self) -> int:
        """How many cards have a picture."""
        return sum(bool(card.picture) for card in self.cards)


def mistake_groups(comparison: Comparison) -> list[MistakeGroup]:
    """Return the cards of each arm whose mistakes are shown."""
    return [MistakeGroup(arm, tuple(map(_card, mistakes))) for arm, mistakes in comparison.mistakes.items()]


def mistakes_link(comparison: Comparison) -> Markup:
    """Return the link that saves the list of these images as CSV."""
    rows: list[tuple[object, ...]] = [("arm", "image", "true", "predicted", "confidence", "seed", "wrong", "seeds")]
    for arm, mistakes in comparison.mistakes.items():
        for one in mistakes:
            numbers = (f"{one.confidence:.6g}", one.seed, one.wrong, one.seeds)
            rows.append((arm, one.name, one.true, one.predicted, *numbers))
    return csv_link("surest mistakes", rows)


def _card(mistake: Mistake) -> MistakeCard:
    picture = mistake.picture
    return MistakeCard(
        picture="" if picture is None else picture_url(picture),
        tiny=picture is not None and max(picture.shape[1:]) <= _TINY,
        name=mistake.name,
        true=mistake.true,
        predicted=mistake.predicted,
        confidence=_percent(mistake.confidence),
        counts=_counts(mistake),
    )


def _percent(share: float) -> str:
    """Return a probability in per cent; one that rounds to 100 % is called more than 99.9 %."""
    return "> 99.9 %" if share > 0.9995 else f"{100 * share:.1f} %"


def _counts(mistake: Mistake) -> str:
    own = f"wrong at {mistake.wrong} of {mistake.seeds} seeds" if mistake.seeds > 1 else f"seed {mistake.seed}"
    return "; ".join([own, *(f"{arm} right at {right} of {seeds}" for arm, (right, seeds) in mistake.others.items())])
