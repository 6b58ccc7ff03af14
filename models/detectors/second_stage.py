"""What the second stage learns: proposals are matched in the loss, since they change with every step.

This is the approximate joint training of Ren et al. (2015): to the loss a proposal is a place, not an answer, so no
gradient passes through it. Nothing is drawn at random: all proposals count, positives for a quarter at least, which is
what drawing one positive for three negatives aims at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from models.architectures.contract import Loss
from models.detectors.boxes import REFINING, encode, overlaps
from models.detectors.losses import smooth_l1
from models.detectors.nms import rows_of

POSITIVE = 0.5
"""A proposal answers for the box that it overlaps most, if by this at least."""
LEAST_SHARE = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """For each proposal: ``box [n, p, 4]`` and ``label [n, p]`` of its true box, and whether it answers for it."""

    box: Any
    label: Any
    positive: Any


def assign(proposals: Any, truth: Any) -> Assigned:
    """Match proposals ``[n, p, 4]`` with true boxes ``[n, m, 5 or more]`` (edges, label; -1: none)."""
    real = ops.cast(truth[:, None, :, 4] >= 0.0, proposals.dtype)
    table = overlaps(proposals, truth[..., :4], ops) * real
    own = rows_of(truth[..., :5], ops.argmax(table, axis=-1))
    positive = ops.cast(ops.max(table, axis=-1) >= POSITIVE, proposals.dtype)
    return Assigned(*(ops.stop_gradient(item) for item in (own[..., :4], own[..., 4], positive)))


def proposal_weights(positive: Any, known: Any) -> Any:
    """Weights ``[n, p]`` of proposals, summing to 1 an image; ``known [n, 1]`` is how far there is nothing else."""
    count = ops.sum(positive, axis=-1, keepdims=True)
    rest = ops.sum(1.0 - positive, axis=-1, keepdims=True)
    share = ops.where(count > 0.0, ops.maximum(count / positive.shape[1], LEAST_SHARE), 0.0)
    nothing = known * (1.0 - share) / ops.maximum(rest, 1.0)
    return positive * share / ops.maximum(count, 1.0) + (1.0 - positive) * nothing


def pack_heads(proposals: Any, logits: Any, deltas: Any) -> Any:
    """Proposals and both heads' answers side by side: ``[n, p, 4 + (1 + labels) + 4 * labels]``."""
    return ops.concatenate([proposals, logits, deltas], axis=-1)


def heads_loss(labels: int) -> Loss:
    """The loss of :func:`pack_heads` for truths of :func:`models.detectors.targets.second_stage`.

    Cross-entropy over nothing and each label, and smooth L1 of the corrections of the proposal's own label.
    """

    def loss(truth: Any, answer: Any) -> Any:
        proposals = ops.stop_gradient(answer[..., :4])
        logits, deltas = answer[..., 4 : 5 + labels], answer[..., 5 + labels :]
        found = assign(proposals, truth)
        weights = proposal_weights(found.positive, truth[:, :1, 5])
        kinds = _one_hot((found.label + 1.0) * found.positive, 1 + labels)
        entropy = ops.logsumexp(logits, axis=-1) - ops.sum(kinds * logits, axis=-1)
        each = ops.reshape(deltas, (-1, answer.shape[1], labels, 4))
        own = ops.sum(each * kinds[..., 1:, None], axis=-2)
        wanted = encode(found.box, proposals, REFINING, ops)
        correction = ops.sum(smooth_l1((own - wanted) * found.positive[..., None], 1.0), axis=-1)
        return ops.sum(weights * (entropy + correction), axis=-1)

    return loss


def _one_hot(index: Any, count: int) -> Any:
    return ops.one_hot(ops.cast(index, "int32"), count, dtype=index.dtype)
