"""What every paper promises, checked for each folder of jobs/generators: a new one is covered on arrival."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from functools import cache
from types import ModuleType
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor

from benchmarks.batches import make_batch, visible
from files.errors import UserError
from jobs.generators import PRESETS, build, card, load, names, preset_config
from jobs.layers.composite import composite
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Recipe
from jobs.recipe.padding import crop, pad_batch
from tests.jobs.generators.steps import build_tiny, gradients, run_step, start_phase

pytestmark = pytest.mark.parametrize("name", names())


@cache
def side(name: str) -> int:
    """The tiny size where a paper fixes it, 64 elsewhere."""
    return getattr(card(name).Config.tiny(), "image_size", 64)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, request) -> dict[str, dict[str, dict[str, Tensor]] | str]:
    """Generator -> update -> parameter -> gradient as two processes have it together, or why they have none."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.jobs.generators.steps", str(folder)]
    selected = {item.callspec.params["name"] for item in request.session.items if "two_processes" in item.fixturenames}
    ranks = [subprocess.Popen([*command, str(rank), *sorted(selected)]) for rank in range(2)]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    return torch.load(folder / "gradients.pt")


def inpaint(recipe: Recipe, batch: Batch) -> Outputs:
    return build.inpaint(recipe, visible(batch))


def parameters_of(networks: Networks) -> dict[str, list[Tensor]]:
    return {key: [p.detach().clone() for p in network.parameters()] for key, network in networks.items()}


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


def test_the_card_has_three_different_presets(name):
    configs = [preset_config(name, preset) for preset in PRESETS]
    assert all(isinstance(config, card(name).Config) for config in configs)
    assert all(one != other for one, other in itertools.combinations(configs, 2))


def test_the_preset_small_needs_no_file_and_has_half_the_widths_of_the_paper(name):
    small, paper = preset_config(name, "small"), preset_config(name, "paper")
    assert "random" in (getattr(small, "features", "random"), getattr(small, "teacher", "random"))
    for field in ("width", "d_width"):
        if hasattr(paper, field):
            assert getattr(small, field) == getattr(paper, field) // 2
    recipe = load(name).build(small)
    assert recipe.steps >= 20_000


def test_the_config_is_frozen_and_made_of_plain_values(name):
    config = card(name).Config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().batch_size = 1
    for field, kind in get_type_hints(config).items():
        kinds = get_args(kind) if get_origin(kind) is tuple else (kind,)
        plain = all(k in (int, float, bool, str) or get_origin(k) is Literal for k in kinds)
        assert plain, f"{field}: {kind}"


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
        assert set(phase.trained) | set(phase.learning_rates) | set(phase.train_mode) <= set(recipe.networks)
        assert not set(phase.trained) & set(phase.train_mode)
        assert all(update.every >= 1 for update in phase.updates)
        for module in phase.frozen + phase.fixed_statistics:
            network, _, path = module.partition(".")
            assert network in phase.trained
            assert list(recipe.networks[network].get_submodule(path).parameters())


def test_every_update_moves_its_networks_and_no_other(name):
    recipe = build_tiny(name)
    batch = make_batch((side(name), side(name)), recipe.columns)
    for phase in recipe.phases:
        start_phase(recipe, phase)
        before = parameters_of(recipe.networks)
        seen: list[str] = []

        def check(update, terms, before=before, seen=seen):
            after = parameters_of(recipe.networks)
            for key in recipe.networks:
                assert moved(before[key], after[key]) == (key in update.networks), f"{update.networks} moves {key}"
            for key in update.networks:
                # A parameter that takes no part would stall distributed training; one that is frozen must take none.
                with_gradient = {n for n, p in recipe.networks[key].named_parameters() if p.grad is not None}
                wanted = {n for n, p in recipe.networks[key].named_parameters() if p.requires_grad}
                assert with_gradient == wanted, f"{key}: {with_gradient ^ wanted}"
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
    assert all(p.isfinite().all() for tensors in parameters_of(recipe.networks).values() for p in tensors)
    assert all(tensor.isfinite().all() for tensor in inpaint(recipe, batch).values())


def test_steps_and_output_are_finite_in_bfloat16(name):
    recipe = build_tiny(name)
    batch = make_batch((side(name), side(name)), recipe.columns)
    with torch.autocast("cpu", torch.bfloat16):
        for phase in recipe.phases:
            start_phase(recipe, phase)
            assert all(term.isfinite() for term in run_step(recipe, phase, batch).values())
        outputs = inpaint(recipe, batch)
    assert all(p.isfinite().all() for tensors in parameters_of(recipe.networks).values() for p in tensors)
    assert all(tensor.isfinite().all() for tensor in outputs.values())


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
    except UserError:
        assert recipe.multiple == 1
        return
    assert output.shape == batch.image.shape
    # Padding must not carry the hole's content to where it counts as known.
    other = dataclasses.replace(batch, image=composite(torch.rand(batch.image.shape), batch.image, batch.mask))
    assert torch.equal(inpaint(recipe, other)["output"], output)


def test_the_size_is_padded_to_the_multiple_and_cropped(name):
    recipe = build_tiny(name)
    size = max(recipe.smallest_side, 5 if recipe.multiple > 1 else side(name))
    batch = make_batch((size, side(name)), recipe.columns)
    outputs = inpaint(recipe, batch)
    assert all(tensor.shape[-2:] == batch.image.shape[-2:] for tensor in outputs.values())
    padded = inpaint(recipe, pad_batch(batch, recipe.multiple))
    assert padded.keys() == outputs.keys()
    assert all(torch.equal(crop(padded[key], size, side(name)), outputs[key]) for key in outputs)
    if recipe.smallest_side > 1:
        with pytest.raises(UserError, match=f"at least {recipe.smallest_side} pixels, got {size - 1} x"):
            inpaint(recipe, make_batch((size - 1, side(name)), recipe.columns))


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
        parameters_of(build_tiny(name, 5).networks),
        parameters_of(build_tiny(name, 5).networks),
        parameters_of(build_tiny(name, 6).networks),
    )
    assert not any(moved(first[key], again[key]) for key in first)
    assert all(moved(first[key], other[key]) for key in first)


def test_ten_steps_of_every_phase_stay_finite(name):
    recipe = build_tiny(name)
    for phase in recipe.phases:
        start_phase(recipe, phase)
        for step in range(10):
            batch = make_batch((side(name), side(name)), recipe.columns, seed=step)
            for term, value in run_step(recipe, phase, batch, step=step).items():
                assert value.isfinite(), f"{phase.name}/{term} is {value} at step {step}"
    assert all(tensor.isfinite().all() for tensor in inpaint(recipe, batch).values())


def test_two_processes_have_the_gradients_of_one(name, two_processes):
    """Same global batch, in float64: only the order of sums differs."""
    alone = gradients(name)
    together = two_processes[name]
    assert not isinstance(together, str), together
    assert alone.keys() == together.keys()
    for update, parameters in alone.items():
        assert parameters.keys() == together[update].keys()
        scale = max(gradient.abs().max() for gradient in parameters.values())
        assert scale > 0
        for key, gradient in parameters.items():
            torch.testing.assert_close(
                together[update][key], gradient, rtol=1e-5, atol=1e-5 * scale, msg=f"{update}: {key}"
            )
