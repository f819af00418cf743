"""Names of the files in the folder that the storage keeps for each training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from files.errors import UserError

WEIGHTS_NAME = "weights.safetensors"


class CheckpointError(UserError):
    """Weights or a checkpoint are missing, damaged, or belong to another network."""


@dataclass(frozen=True)
class RunFolder:
    """Name every file of one training's folder in the storage.

    path: absolute folder of one training. It exists until the training is finished and tracked.

    RUN, CODE, EVENTS, SAMPLES and MODEL are the names that remain while a finished training waits for the tracking
    server.
    """

    path: Path

    RUN: ClassVar = "run.json"
    CODE: ClassVar = "code.zip"
    EVENTS: ClassVar = "events.jsonl"
    SAMPLES: ClassVar = "samples"
    MODEL: ClassVar = "model.json"

    @property
    def experiment(self) -> Path:
        """Parameters and digests that make the experiment, as JSON."""
        return self.path / "experiment.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the committed checkpoints, one folder each."""
        return self.path / "checkpoints"

    @property
    def fetched_checkpoints(self) -> Path:
        """Folder, beside this one, of a checkpoint fetched by ranks that do not see rank 0's storage.

        It is not in `path`: rank 0 would write there if it were started again on this machine.
        """
        return self.path.with_name(f".{self.path.name}.fetched")

    @property
    def weights(self) -> Path:
        """Weights of the last step. The file exists once the training is complete."""
        return self.path / WEIGHTS_NAME

    @property
    def note(self) -> Path:
        """Note of the stage that runs this training, see `jobs/runs/note.py`."""
        return self.path / "note.json"

    @property
    def run(self) -> Path:
        """Description of the tracked run, as JSON."""
        return self.path / self.RUN

    @property
    def code(self) -> Path:
        """Archive of the code that started the training."""
        return self.path / self.CODE

    @property
    def events(self) -> Path:
        """Event log, one JSON object per line."""
        return self.path / self.EVENTS

    @property
    def records(self) -> tuple[Path, ...]:
        """Files about the whole training that are copied to an object store beside each checkpoint."""
        return self.events, self.code, self.run

    @property
    def samples(self) -> Path:
        """Folder of sample pictures."""
        return self.path / self.SAMPLES

    def sample(self, step: int) -> Path:
        """Return the path of the sample picture made after `step` steps."""
        return self.samples / f"step-{step:08d}.png"

    @property
    def stop_request(self) -> Path:
        """File whose presence asks the training to save and stop."""
        return self.path / "stop"

    @property
    def stage_lock(self) -> Path:
        """Lock of the stage that runs this training. It contains the holder's name."""
        return self.path / "lock"

    @property
    def writer_lock(self) -> Path:
        """Lock of the process that writes checkpoints and events, rank 0."""
        return self.path / "writer.lock"


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the committed checkpoints, highest step first. File times are not used, since clocks may run backwards.

    folder: of one training's checkpoints.
    """
    return sorted(folder.glob("step-*"), reverse=True)


def list_run_folders(storage: Path, generator: str | None = None) -> list[RunFolder]:
    """Return the folders of a generator's trainings, or of all, sorted by path.

    storage: folder of all live trainings.
    generator: a name, or None for every generator.
    Folders whose name begins with a dot are being removed or fetched, and are left out.
    """
    return [RunFolder(path) for path in sorted(storage.glob(f"{generator or '*'}/[!.]*"))]
