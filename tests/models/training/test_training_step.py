"""What a training needs, from one measured step."""

import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

import keras  # noqa: E402

from benchmarks.training_step import Step, describe, operations  # noqa: E402
from models.training.recipe import RECIPES, read_recipe  # noqa: E402

pytestmark = pytest.mark.training


def test_operations_of_nested_networks_are_counted() -> None:
    image = keras.Input((8, 8, 1))
    inner = keras.Model(image, keras.layers.Conv2D(4, 3, padding="same")(image))
    outer = keras.Input((8, 8, 1))
    network = keras.Model(outer, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inner(outer))))
    assert operations(network) == 2 * (9 * 4 * 64 + 4 * 2)


def test_hours_and_memory_follow_from_the_step() -> None:
    recipe = read_recipe(RECIPES / "unet-resnet34-siim.toml")
    step = Step(2, parameters=10_000_000, operations=10**11, loading=0.5, learning=4.0, grown=2_160_000_000)
    lines = list(describe(recipe, step, 10_000, 10.0))
    assert "memory for a batch of 8 in float32: 7.6 GiB (0.15 GiB and 0.93 GiB an image)" in lines[2]
    assert "40000 steps" in lines[3]
    assert "2.7 hours at 10 x 10^12 a second; batches need 22.2 hours of one core" in lines[3]
