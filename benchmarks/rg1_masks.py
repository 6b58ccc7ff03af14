"""The picture of docs/models.md: RG1 with the mask of lung opacity by the classifier alone, and by the opacity network.

``python -P -m benchmarks.rg1_masks --image WG04/RG1_JLSN.dcm [--out docs/images/rg1-masks.jpg]``

It prints each probability with its cut-off, and the share of each lung that is marked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from models.contract import Finding, ModelInput
from models.pipeline import load_pipeline
from models.predictor import load_predictor
from models.radiograph.reading import read_model_input
from workers.results.overlay import colour_of, grey_of, mask_outlines

HEIGHT, GAP = 510, 10
MODELS = ("chest-classifier", "chest-opacity")


def opacity(image: ModelInput, model: str) -> Finding:
    """What a model alone says of lung opacity."""
    prediction = load_predictor(load_pipeline(None, [model], lungs="chest-lungs"), device="cpu").predict(image)
    return next(finding for finding in prediction.findings if finding.label == "lung_opacity")


def drawn(image: ModelInput, finding: Finding) -> Image.Image:
    """The image with the outline of a finding, if it has a place."""
    rows, columns = image.shape
    scale = HEIGHT / rows
    grey = Image.fromarray(grey_of(image)).resize((round(columns * scale), HEIGHT), Image.Resampling.BOX)
    picture = grey.convert("RGB")
    pen = ImageDraw.Draw(picture)
    for points in mask_outlines(finding.mask) if finding.mask is not None else ():
        pen.line([(float(x), float(y)) for x, y in points * scale], fill=colour_of(0), width=2, joint="curve")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/images/rg1-masks.jpg"))
    options = parser.parse_args()
    image = read_model_input(options.image)
    found = [opacity(image, model) for model in MODELS]
    pictures = [drawn(image, finding) for finding in found]
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    sheet, left = Image.new("RGB", (width, HEIGHT), "white"), 0
    for picture, finding in zip(pictures, found, strict=True):
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
        share = 0.0 if finding.mask is None else float(np.mean(finding.mask))
        print(f"{finding.model}: {finding.probability:.3f} at {finding.threshold:.3f}; marked {share:.3f} of the image")
        print(f"  {finding.lungs}")
    sheet.save(options.out, quality=88)


if __name__ == "__main__":
    main()
