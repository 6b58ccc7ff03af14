"""Heads: what a plan may say, what is taught, and what of it is served."""

import numpy as np
import pytest

from tests.models.training.keras_or_skip import require_keras

require_keras()

from models.architectures.base import Batch, Option, Plan  # noqa: E402
from models.architectures.truths import label_weights  # noqa: E402
from models.classifiers.network import OPTIONS, head_truths, read_head  # noqa: E402

LABELS = ("normal", "opacity", "pneumothorax")


def plan(labels: tuple[str, ...] = LABELS, **options: Option) -> Plan:
    return Plan("vgg16", 64, labels, options=options)


def batch(labels: list[list[float]], known: list[list[float]] | None = None) -> Batch:
    values = np.array(labels, np.float32)
    return Batch(
        np.zeros((len(values), 64, 64, 1), np.float32),
        values,
        np.ones_like(values) if known is None else np.array(known, np.float32),
    )


def truths(of: Plan, given: Batch) -> tuple[np.ndarray, np.ndarray]:
    truth = head_truths(read_head(of, OPTIONS), given)["logits"]
    return truth[:, : truth.shape[1] // 2], truth[:, truth.shape[1] // 2 :]


def test_a_sigmoid_head_is_told_each_label_and_how_far_it_is_known() -> None:
    values, weights = truths(plan(class_weights="1, 2, 0.5"), batch([[0, 1, 1], [0, 1, 0]], [[1, 0.5, 1], [1, 0, 1]]))
    assert values.tolist() == [[0, 1, 1], [0, 1, 0]]
    assert weights.tolist() == [[1, 1, 0.5], [1, 0, 1]]


def test_a_softmax_head_is_told_one_class() -> None:
    values, weights = truths(plan(head="softmax", class_weights="1,2,4"), batch([[0, 0, 1], [1, 0, 0]]))
    assert values.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert (values * weights).sum(axis=1).tolist() == [4, 1]


def test_classes_that_are_true_together_share() -> None:
    values, _ = truths(plan(head="softmax"), batch([[0, 1, 1]]))
    assert values.tolist() == [[0, 0.5, 0.5]]


def test_an_example_of_no_class_says_nothing() -> None:
    _, weights = truths(plan(head="softmax"), batch([[0, 0, 0]]))
    assert not weights.any()


def test_an_example_of_no_class_is_of_the_first_where_that_means_nothing_found() -> None:
    given = batch([[0, 0, 0], [0, 0, 0]], [[0, 1, 1], [0, 1, 0]])
    values, weights = truths(plan(head="softmax", first_is_nothing=True), given)
    assert values[0].tolist() == [1, 0, 0]
    assert weights[0, 0] == 1
    assert not weights[1].any()  # whether it shows a pneumothorax is not known
    assert given.known[0, 0] == 0  # what was given is left as it was


def test_the_engines_own_weights_are_kept_by_a_softmax_head() -> None:
    _, weights = truths(plan(head="softmax"), batch([[0, 1, 0]], [[0.7, 0.3, 2.0]]))
    assert weights[0, 1] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("labels", "options", "sentence"),
    [
        (LABELS, {"head": "tanh"}, "head must be"),
        (("opacity",), {"head": "softmax"}, "two labels or more"),
        (LABELS, {"first_is_nothing": True}, "needs head = 'softmax'"),
        (LABELS, {"dropout": 1.0}, "dropout must be"),
        (LABELS, {"class_weights": "1,2"}, "needs 3 positive numbers"),
        (LABELS, {"class_weights": "1,2,nan"}, "needs 3 positive numbers"),
        (LABELS, {"class_weights": "a,b,c"}, "separated by commas"),
    ],
)
def test_a_plan_without_sense_is_refused(labels: tuple[str, ...], options: dict[str, Option], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_head(plan(labels, **options), OPTIONS)


def test_weights_are_one_where_none_are_given() -> None:
    assert label_weights("", LABELS) == (1.0, 1.0, 1.0)
