"""Compute at which steps a training read a record, from its plan alone."""

from __future__ import annotations

from datasets.stream.plan import Plan


def reading_steps(plan: Plan, record: int, batch_size: int, num_steps: int) -> list[int]:
    """Return the steps that read a record, counted from 1 as checkpoints count: a checkpoint after n steps has read
    the record if the first of these is at most n.

    record: its number in the order of shards, from 0.
    batch_size: of the global batch.
    num_steps: of the whole training, or up to a checkpoint.
    Raises ValueError if the plan has no such record.
    """
    if not 0 <= record < plan.num_records:
        raise ValueError(f"the plan has the records 0 to {plan.num_records - 1}, not {record}")
    epochs = -(-num_steps * batch_size // plan.num_records)
    steps = (plan.position_of(epoch, record) // batch_size + 1 for epoch in range(epochs))
    return [step for step in steps if step <= num_steps]
