"""Open the receipts of models/, each as the generator's that its folder names."""

from __future__ import annotations

from jobs.runs.folder import CheckpointError
from jobs.runs.receipt import Receipt, read_receipt
from pipeline.layout import model_folder


def open_receipt(generator: str) -> Receipt:
    """Read the receipt of a trained generator.

    Raises CheckpointError if there is none, or if it is another generator's: a folder copied under this name.
    """
    folder = model_folder(generator)
    receipt = read_receipt(folder)
    if receipt.generator != generator:
        raise CheckpointError(
            f"{folder} is a training of {receipt.generator}, expected {generator}; run: dvc repro train@{generator}"
        )
    return receipt
