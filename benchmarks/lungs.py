"""Lung fields on radiographs without drawn lungs: how often they are found, and which way round the chests look.

``python -P -m benchmarks.lungs --data DIR [--model chest-lungs] [--every 20] [--out sheet.png]``

Every image is shown as it is and mirrored. Images hang as usual (the patient's left on the right of the picture), so
*mirrored* is wrong of the first and right of the second. Time is the processor's for one image, network and regions.
The last lines say on how many images that the gate lets through a lung reaches the edge: of each view, of RSNA's
normals, and of all images without their lower quarter.

Patients' images are on the sheet: it belongs beside the data, not into a repository.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path
from time import process_time

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from models.contract import ModelInput
from models.gate import assess
from models.lung_fields import LungFields, lung_fields
from models.manifest import read_manifest
from models.model_registry import read_registry
from models.model_spec import ModelSpec
from models.radiograph.contrast import letterbox_for, prepare
from models.runtime.executor import Executor
from models.runtime.loading import load
from models.training.datasets import pixels, read_dataset
from models.training.datasets.cxr import NORMAL
from models.training.datasets.sample import Sample
from models.training.metrics import proportion

TILE = 240
ACROSS = 10
NOT_FOUND = "not found"


def fields_of(image: ModelInput, spec: ModelSpec, executor: Executor) -> LungFields | None:
    letterbox = letterbox_for(image, spec.input)
    answer = executor.run(prepare(image, letterbox, spec.input)[np.newaxis])
    return lung_fields(answer["maps"][0], letterbox)


def passes(image: ModelInput, gate: ModelSpec, executor: Executor) -> bool:
    """Whether the gate lets an image through."""
    answer = executor.run(prepare(image, letterbox_for(image, gate.input), gate.input)[np.newaxis])
    return assess(answer["probabilities"][0], float(answer["distance"][0]), gate) is None


def without_lower_quarter(image: ModelInput) -> ModelInput:
    return replace(image, pixels=np.ascontiguousarray(image.pixels[: image.shape[0] * 3 // 4]))


def tile(image: ModelInput, fields: LungFields | None) -> NDArray[np.uint8]:
    """The image in grey, the rims of the lungs: green as usual, red mirrored, yellow unsure; none where not found."""
    grey = Image.fromarray((255 * image.pixels).astype(np.uint8)).resize((TILE, TILE), Image.Resampling.BILINEAR)
    shown = np.stack([np.asarray(grey)] * 3, axis=-1)
    if fields is not None:
        colour = {"usual": (0, 255, 0), "mirrored": (255, 0, 0), "unsure": (255, 255, 0)}[fields.hanging.value]
        for lung in fields.lungs:
            mask = fields.letterbox.mask_to_source(lung.astype(np.float32), 0.5)
            small = np.asarray(Image.fromarray(mask).resize((TILE, TILE), Image.Resampling.NEAREST))
            rim = small ^ (small & np.roll(small, 1, 0) & np.roll(small, -1, 0) & np.roll(small, 1, 1))
            shown[rim] = colour
    return shown


def is_normal(sample: Sample) -> bool:
    """Whether a reader of RSNA has called the image normal; NIH's labels say too little for that."""
    return bool(sample.boxed) and sample.labels.get(NORMAL, 0.0) >= 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="chest-lungs", help="a bundled model, or the path of a manifest")
    parser.add_argument("--every", type=int, default=1, help="only every n-th image")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    named = options.model.endswith(".toml")
    spec = read_manifest(Path(options.model)) if named else read_registry().find(options.model)
    executor = load(spec, device="cpu", threads=1)
    counts: dict[str, Counter[str]] = {"as they are": Counter(), "mirrored": Counter()}
    gate = read_registry().find("chest-gate")
    gate_executor = load(gate, device="cpu", threads=1)
    edges: dict[str, Counter[bool]] = {}
    tiles, seconds = [], []
    for sample in track(read_dataset.read(options.data).samples[:: options.every], description="looking"):
        image = pixels.read(sample.image)
        turned = replace(image, pixels=np.ascontiguousarray(image.pixels[:, ::-1]))
        begin = process_time()
        fields = fields_of(image, spec, executor)
        seconds.append(process_time() - begin)
        for way, found in (("as they are", fields), ("mirrored", fields_of(turned, spec, executor))):
            counts[way][found.hanging.value if found is not None else NOT_FOUND] += 1
        groups = [(sample.view or "no view", image), *([("normal", image)] if is_normal(sample) else [])]
        for group, shown in (*groups, ("without the lower quarter", without_lower_quarter(image))):
            if passes(shown, gate, gate_executor):
                found = fields if shown is image else fields_of(shown, spec, executor)
                edges.setdefault(group, Counter())[found is not None and found.cut] += 1
        if options.out is not None:
            tiles.append(tile(image, fields))
    for way, count in counts.items():
        total = sum(count.values())
        shares = {name: proportion(count[name], total) for name in ("usual", "unsure", "mirrored", NOT_FOUND)}
        texts = [f"{name} {each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for name, each in shares.items()]
        print(f"{total} images {way}: {'; '.join(texts)}")
    for group, reached in edges.items():
        print(f"{group}: a lung reaches the edge of {reached[True]} of {sum(reached.values())} images")
    print(f"one image: {1000 * float(np.median(seconds)):.0f} ms")
    if options.out is not None:
        sheet = Image.new("RGB", (ACROSS * TILE, -(-len(tiles) // ACROSS) * TILE))
        for place, picture in enumerate(tiles):
            sheet.paste(Image.fromarray(picture), ((place % ACROSS) * TILE, (place // ACROSS) * TILE))
        sheet.save(options.out)


if __name__ == "__main__":
    main()
