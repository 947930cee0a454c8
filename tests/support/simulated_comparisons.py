"""Runs of a comparison with no true difference, drawn from known seed, frame and image effects."""

from dataclasses import dataclass

import numpy as np

from nc_tools.comparison import ComparedRun
from nc_tools.comparison.image_values import ImageValues

PRIMARY = "test/gen/balanced_accuracy"


@dataclass(frozen=True)
class World:
    """Standard deviations of the effects of one simulated comparison; every arm's true mean is 0.

    The effect of a seed differs between arms (``seed``); what a seed does to all arms cancels in a pair. ``frame`` and
    ``image`` are those of single frames and single test images; ``rest`` is drawn for every run.
    """

    seeds: int
    seed: float = 1.0
    frame: float = 0.0
    image: float = 0.0
    rest: float = 0.5
    draws: int = 1
    images: int = 200
    rule: str = "own"  # or "crossed": the same frames at every seed; or "fixed": one frame
    missing: float = 0.0  # chance that a run was stopped
    heavy: bool = False  # effects from a t distribution with 3 degrees of freedom instead of the normal one
    skewed: bool = False  # effects of frames from a log-normal distribution with mean 0


def simulate(world, arms, generator):
    """Return the runs of a baseline and of framed arms."""

    def draw(sd, shape=()):
        return sd * (generator.standard_t(3, shape) if world.heavy else generator.normal(size=shape))

    def skewed_frame():
        spread = np.sqrt((np.e - 1) * np.e)  # the standard deviation of exp of a standard normal variable
        return world.frame * float((np.exp(generator.normal()) - np.exp(0.5)) / spread)

    labels = np.arange(world.images) % 10
    shared = draw(3.0, world.seeds)
    runs = []
    for arm in ["linear", *arms]:
        framed = arm != "linear"
        by_seed = draw(world.seed, world.seeds)
        by_image = draw(world.image, world.images) if world.image else None
        common = draw(world.frame, world.draws)
        for seed in range(world.seeds):
            for number in range(world.draws if framed else 1):
                frame = skewed_frame() if world.skewed else draw(world.frame) if world.rule == "own" else common[number]
                value = float(shared[seed] + by_seed[seed] + framed * frame + draw(world.rest))
                frame_seed = 1000 * seed + number if world.rule == "own" else number
                images = None
                if by_image is not None:
                    values = value + by_image + generator.normal(size=world.images)
                    images = ImageValues(values, labels, by_class=True)
                    value = images.metric
                status = "KILLED" if generator.random() < world.missing else "FINISHED"
                final = {PRIMARY: value} if status == "FINISHED" else {}
                seeds = frame_seed if framed else None
                runs.append(ComparedRun(arm, seed, number, status, final, frame_seed=seeds, images=images))
    return runs
