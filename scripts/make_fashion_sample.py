"""Make edgecv/data/fashion_mnist_sample/{train,test}.npz from the public Fashion-MNIST files.

    python scripts/make_fashion_sample.py [--out FOLDER]

1,200 training and 300 test images of each class, drawn without replacement by a fixed seed from
the official split of the same name, and interleaved by class, so that any first n are balanced.
The same files come out each time, up to the compressor's version.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from edgecv.data import fashion_mnist

SEED = 2017
PER_CLASS = {"train": 1200, "test": 300}


def sample(split: str) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 (N, 28, 28), uint8 (N,)) of the split, checksums verified."""
    images, labels = (
        fashion_mnist.read_idx(fashion_mnist.content(*file), file[0])
        for file in fashion_mnist.FILES[split]
    )
    draw = np.random.default_rng(SEED)
    chosen = np.stack(
        [
            draw.choice(np.flatnonzero(labels == k), PER_CLASS[split], replace=False)
            for k in range(len(fashion_mnist.CLASSES))
        ]
    ).T.ravel()  # one of each class, then one of each class, ...
    return images[chosen], labels[chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=fashion_mnist.SAMPLE)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for split in PER_CLASS:
        images, labels = sample(split)
        path = out / f"{split}.npz"
        classes = np.array(fashion_mnist.CLASSES)
        np.savez_compressed(path, images=images, labels=labels, classes=classes)
        print(f"{path}: {len(images)} images, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
