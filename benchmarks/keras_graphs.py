"""How far the bundled networks in TensorFlow (Keras graphs) answer otherwise than in ONNX Runtime, on radiographs.

``python -P -m benchmarks.keras_graphs --data DIR [--every 8] [--device cpu|gpu]``

Both run the same weights. With ``--device gpu`` TensorFlow runs on the GPU; ONNX Runtime stays on the CPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from models.model_registry import BUNDLED, read_registry
from models.radiograph.contrast import letterbox_for, prepare
from models.runtime.keras_executor import KerasExecutor
from models.runtime.loading import ways
from models.runtime.onnx_executor import OnnxExecutor
from models.training.datasets import pixels, read_dataset

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=int, default=8, help="take every so many-th image")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    options = parser.parse_args()
    images = [pixels.read(item.image) for item in read_dataset.read(options.data).samples[:: options.every]]
    print(f"{len(images)} images of {options.data.name}: the largest difference of any value, and the mean of all")
    for spec in read_registry(bundled=BUNDLED):
        exported, graph = ways(spec)
        one, other = OnnxExecutor(exported), KerasExecutor(graph, device=options.device, batch=BATCH)
        apart: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(images), BATCH):
            given = [
                prepare(image, letterbox_for(image, spec.input), spec.input) for image in images[start : start + BATCH]
            ]
            batch = np.stack(given)
            found, expected = other.run(batch), one.run(batch)
            for name, values in expected.items():
                apart.setdefault(name, []).append(np.abs(found[name] - values).ravel())
        for name, parts in apart.items():
            values = np.concatenate(parts)
            print(f"{spec.name} {name}: {values.max():.1e}, {values.mean():.1e}", flush=True)


if __name__ == "__main__":
    main()
