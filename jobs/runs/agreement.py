"""Agreement of all processes of a training on the checkpoint from which they continue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from files.durable import file_digest
from jobs.runs.checkpoint_store import CheckpointStore, has_digest
from jobs.runs.checkpoints import STATE, newest_whole_checkpoint
from jobs.runs.folder import RunFolder

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Group:
    """The processes of one training, and how they exchange picklable objects.

    broadcast(value): returns rank 0's value in every process.
    gather(value): returns the values of all processes, by rank.
    wait: returns once all processes have called it.
    """

    rank: int
    world_size: int
    broadcast: Callable[[T], T]
    gather: Callable[[T], list[T]]
    wait: Callable[[], None]


def agree_on_checkpoint(folder: RunFolder, store: CheckpointStore | None, group: Group) -> Path | None:
    """Return where this process finds the newest undamaged checkpoint; None if there is none.

    folder: the run folder, at the same path in every process. Without a store all processes must see the same folder.
    store: of this training's checkpoints, if they are copied.

    Rank 0 chooses the checkpoint. With a store, other processes may be on machines that do not see its storage:

                                 others see rank 0's storage     some do not see it
        rank 0's storage has it  all read it there               rank 0 copies it to the store, unless it is there;
                                                                 they fetch it, once per machine
        only the store has it    rank 0 fetches it to its        the same, and they fetch it, too
                                 storage; all read it there

    Raises StoreError if the store does not answer and the checkpoint cannot be found without it.
    """
    chosen = group.broadcast(_choose(folder, store) if group.rank == 0 else None)
    if chosen is None:
        return None
    name, digest = chosen
    checkpoint = folder.checkpoints / name
    if store is None or group.world_size == 1:
        return checkpoint
    is_seen = group.rank == 0 or has_digest(checkpoint, digest)
    if all(group.gather(is_seen)):
        return checkpoint
    if group.rank == 0 and not store.holds(checkpoint):
        store.put(checkpoint)
    group.wait()
    return checkpoint if is_seen else store.fetch_once(name, digest, folder.fetched_checkpoints)


def _choose(folder: RunFolder, store: CheckpointStore | None) -> tuple[str, str] | None:
    """Return name and state digest of the newest undamaged checkpoint in the storage or the store."""
    find_newest = store.newest if store else newest_whole_checkpoint
    newest = find_newest(folder.checkpoints)
    return (newest.name, file_digest(newest / STATE)) if newest else None
