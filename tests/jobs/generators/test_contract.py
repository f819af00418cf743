"""What every paper promises, checked for each folder of jobs/generators: a new one is covered on arrival."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from functools import cache
from types import ModuleType
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor

from jobs.batches import Batch
from jobs.generators import card, load, names
from jobs.recipe import Outputs, Phase, Recipe, Terms, composite

pytestmark = pytest.mark.parametrize("name", names())


def build_tiny(name: str, seed: int = 0) -> Recipe:
    module = load(name)
    torch.manual_seed(seed)
    return module.build(module.Config.tiny())


@cache
def side(name: str) -> int:
    """The tiny size where a paper fixes it, 64 elsewhere."""
    return getattr(card(name).Config.tiny(), "image_size", 64)


def make_batch(size: tuple[int, int], columns: tuple[str, ...] = (), num_samples: int = 3) -> Batch:
    """Smooth images, one mask per sample, and made-up edges if needed."""
    height, width = size
    generator = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    phases = 3 * torch.rand(num_samples, 3, 1, 1, generator=generator)
    image = torch.sin(x + phases) * torch.cos(2 * y - phases)
    mask = torch.zeros(num_samples, 1, height, width)
    for index, sample in enumerate(mask):
        number = index % 4
        sample[:, 10 + 4 * number : 30 + 6 * number, 12 : 36 - 4 * number] = 1
        sample[:, 3:6, : width - 5 * number] = 1  # a thin stroke up to the border
    edge = (torch.rand(mask.shape, generator=generator) < 0.1).float() if "edge" in columns else None
    return Batch(image=image, mask=mask, edge=edge, key=tuple(f"sample-{n}" for n in range(num_samples)))


def visible(batch: Batch) -> Batch:
    """The batch as evaluation sees it: with the edges of the visible part."""
    return dataclasses.replace(batch, edge=None if batch.edge is None else batch.edge * (1 - batch.mask))


def inpaint(recipe: Recipe, batch: Batch) -> Outputs:
    for network in recipe.networks.values():
        network.eval()
    with torch.no_grad():
        return recipe.inpaint(recipe.networks, visible(batch))


def require_grad(recipe: Recipe, trained: tuple[str, ...]) -> None:
    for name, network in recipe.networks.items():
        network.requires_grad_(name in trained)


def start_phase(recipe: Recipe, phase: Phase) -> None:
    for name, network in recipe.networks.items():
        network.train(name in phase.trained)
    for name, rate in phase.learning_rates.items():
        for group in recipe.optimizers[name].param_groups:
            group["lr"] = rate


def run_step(recipe: Recipe, phase: Phase, batch: Batch, after_update=lambda update, terms: None) -> Terms:
    """One step of a phase as the training loop does it; `after_update` is called while gradients are still there."""
    require_grad(recipe, phase.trained)
    outputs = phase.forward(recipe.networks, batch)
    logged: Terms = {}
    for update in phase.updates:
        require_grad(recipe, update.networks)
        terms = update.terms(recipe.networks, batch, outputs)
        torch.stack(tuple(terms.values())).sum().backward()
        for name in update.networks:
            recipe.optimizers[name].step()
        after_update(update, terms)
        for name in update.networks:
            recipe.optimizers[name].zero_grad(set_to_none=True)
        logged |= {key: value.detach() for key, value in terms.items()}
    return logged


def parameters(recipe: Recipe) -> dict[str, list[Tensor]]:
    return {key: [p.detach().clone() for p in network.parameters()] for key, network in recipe.networks.items()}


def moved(before: list[Tensor], after: list[Tensor]) -> bool:
    return any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_the_card_says_what_it_must_and_imports_no_torch(name):
    module: ModuleType = card(name)
    assert isinstance(module.PAPER, str)
    assert module.PAPER
    assert isinstance(module.YEAR, int)
    assert isinstance(module.NEEDS, tuple)
    assert module.__doc__
    probe = f"import sys, jobs.generators.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe]).returncode == 0


def test_the_config_is_frozen_and_made_of_plain_values(name):
    config = card(name).Config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().batch_size = 1
    for field, kind in get_type_hints(config).items():
        kinds = get_args(kind) if get_origin(kind) is tuple else (kind,)
        plain = all(k in (int, float, bool, str) or get_origin(k) is Literal for k in kinds)
        assert plain, f"{field}: {kind}"
    assert load(name).Config is config


def test_the_recipe_names_its_parts_consistently(name):
    recipe = build_tiny(name)
    assert set(recipe.optimizers) == set(recipe.networks)
    for key, optimizer in recipe.optimizers.items():
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in recipe.networks[key].parameters()}
    assert set(recipe.columns) <= {field.name for field in dataclasses.fields(Batch)}
    assert recipe.batch_size == card(name).Config.tiny().batch_size
    assert recipe.steps > 0
    assert len({phase.name for phase in recipe.phases}) == len(recipe.phases)
    for phase in recipe.phases:
        assert phase.trained
        assert set(phase.trained) | set(phase.learning_rates) <= set(recipe.networks)


def test_every_update_moves_its_networks_and_no_other(name):
    recipe = build_tiny(name)
    batch = make_batch((side(name), side(name)), recipe.columns)
    for phase in recipe.phases:
        start_phase(recipe, phase)
        before = parameters(recipe)
        seen: list[str] = []

        def check(update, terms, before=before, seen=seen):
            after = parameters(recipe)
            for key in recipe.networks:
                assert moved(before[key], after[key]) == (key in update.networks), f"{update.networks} moves {key}"
            for key in update.networks:
                # A parameter that takes no part would stall distributed training.
                idle = [n for n, p in recipe.networks[key].named_parameters() if p.grad is None]
                assert not idle, f"{key}: no gradient for {idle}"
            for term, value in terms.items():
                assert value.ndim == 0, f"{term} is not a scalar"
                assert value.isfinite(), f"{term} is {value}"
            before.update(after)
            seen.extend(terms)

        run_step(recipe, phase, batch, check)
        assert len(set(seen)) == len(seen), f"phase {phase.name}: two updates share the name of a term, {seen}"


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_train_and_inpaint_without_nan(name, value):
    recipe = build_tiny(name)
    batch = make_batch((side(name), side(name)), recipe.columns)
    batch = dataclasses.replace(batch, mask=torch.full_like(batch.mask, value))
    for phase in recipe.phases:
        start_phase(recipe, phase)
        assert all(term.isfinite() for term in run_step(recipe, phase, batch).values())
    assert all(p.isfinite().all() for tensors in parameters(recipe).values() for p in tensors)
    assert all(tensor.isfinite().all() for tensor in inpaint(recipe, batch).values())


def test_the_output_has_the_right_shape_and_range_and_keeps_valid_pixels(name):
    recipe = build_tiny(name)
    batch = make_batch((side(name), side(name)), recipe.columns)
    outputs = inpaint(recipe, batch)
    assert outputs["output"].shape == batch.image.shape
    assert outputs["output"].abs().max() <= 1
    assert all(len(tensor) == len(batch.image) for tensor in outputs.values())
    filled = composite(outputs["output"], batch.image, batch.mask)
    known = batch.mask.expand_as(filled) == 0
    assert torch.equal(filled[known], batch.image[known])


def test_any_other_size_is_filled_or_refused_with_a_rule(name):
    recipe = build_tiny(name)
    batch = make_batch((70, 51), recipe.columns)
    try:
        output = inpaint(recipe, batch)["output"]
    except ValueError:
        return
    assert output.shape == batch.image.shape
    # Padding must not carry the hole's content to where it counts as known.
    other = dataclasses.replace(batch, image=composite(torch.rand(batch.image.shape), batch.image, batch.mask))
    assert torch.equal(inpaint(recipe, other)["output"], output)


def test_the_output_does_not_depend_on_what_stands_under_the_hole(name):
    recipe = build_tiny(name)
    batch = make_batch((side(name), side(name)), recipe.columns)
    noise = 2 * torch.rand(batch.image.shape, generator=torch.Generator().manual_seed(2)) - 1
    other = dataclasses.replace(batch, image=composite(noise, batch.image, batch.mask))
    assert torch.equal(inpaint(recipe, batch)["output"], inpaint(recipe, other)["output"])


def test_the_output_depends_on_what_is_known(name):
    recipe = build_tiny(name)
    batch = make_batch((side(name), side(name)), recipe.columns)
    other = dataclasses.replace(batch, image=-batch.image)
    assert not torch.equal(inpaint(recipe, batch)["output"], inpaint(recipe, other)["output"])


def test_inpainting_changes_no_network(name):
    recipe = build_tiny(name)
    batch = make_batch((side(name), side(name)), recipe.columns)
    before = {key: {k: v.clone() for k, v in net.state_dict().items()} for key, net in recipe.networks.items()}
    inpaint(recipe, batch)
    for key, network in recipe.networks.items():
        assert all(torch.equal(before[key][k], v) for k, v in network.state_dict().items())


def test_saved_networks_give_the_same_output(name, tmp_path):
    recipe, other = build_tiny(name, seed=1), build_tiny(name, seed=2)
    batch = make_batch((side(name), side(name)), recipe.columns)
    for phase in recipe.phases:
        start_phase(recipe, phase)
        run_step(recipe, phase, batch)
    torch.save({key: network.state_dict() for key, network in recipe.networks.items()}, tmp_path / "weights.pt")
    for key, state in torch.load(tmp_path / "weights.pt").items():
        other.networks[key].load_state_dict(state)
    expected, restored = inpaint(recipe, batch), inpaint(other, batch)
    assert expected.keys() == restored.keys()
    assert all(torch.equal(expected[key], restored[key]) for key in expected)


def test_the_seed_decides_the_initial_weights(name):
    first, again, other = (
        parameters(build_tiny(name, 5)),
        parameters(build_tiny(name, 5)),
        parameters(build_tiny(name, 6)),
    )
    assert not any(moved(first[key], again[key]) for key in first)
    assert all(moved(first[key], other[key]) for key in first)
