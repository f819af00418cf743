"""DeepFill v1, ready to train: the coarse network alone if wanted, then critics at every step and the generator."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from jobs.generators.deepfill_v1 import Config
from jobs.generators.deepfill_v1.losses import box_discount, gradient_penalty, hole_discount, l1_of_known
from jobs.generators.deepfill_v1.networks import Critic, Generator
from jobs.layers.composite import composite
from jobs.layers.windows import crop_windows, window_around_hole
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Terms, Update, adam


def build(config: Config) -> Recipe:
    """DeepFill v1 with fresh weights, drawn from torch's global generator."""
    networks = {
        "generator": Generator(width=config.width, mask_pool=config.mask_pool, tf_same=config.tf_same),
        "global_d": Critic(size=config.image_size, width=config.d_width, factors=(1, 2, 4, 4), tf_same=config.tf_same),
    }
    if config.local_critic:
        networks["local_d"] = Critic(
            size=config.local_size, width=config.d_width, factors=(1, 2, 4, 8), tf_same=config.tf_same
        )
    critics = tuple(name for name in networks if name != "generator")
    box_weights = box_discount(config.local_size, config.discount)

    def coarse_forward(networks: Networks, batch: Batch) -> Outputs:
        (coarse,) = networks["generator"](batch.image, batch.mask, refine=False)
        return {"coarse": coarse}

    def forward(networks: Networks, batch: Batch) -> Outputs:
        coarse, refined = networks["generator"](batch.image, batch.mask)
        return {"coarse": coarse, "refined": refined, "completed": composite(refined, batch.image, batch.mask)}

    def box(image: Tensor, batch: Batch) -> Tensor:
        return crop_windows(image, window_around_hole(batch.mask, config.local_size), config.local_size)

    def views(batch: Batch, *images: Tensor) -> Iterator[tuple[str, list[Tensor]]]:
        """What each critic sees of the images: all of them, or their boxes."""
        for name in critics:
            yield name, [image if name == "global_d" else box(image, batch) for image in images]

    def discounted_l1(prediction: Tensor, batch: Batch) -> Tensor:
        if config.l1_region == "hole":
            weights = hole_discount(batch.mask, config.discount)
            error = ((prediction - batch.image).abs() * weights).sum((1, 2, 3)).mean()
            return error / (3 * config.local_size**2)  # the elements of the box, as below
        return (box((prediction - batch.image).abs(), batch) * box_weights.to(batch.image)).mean()

    def reconstruction(prefix: str, prediction: Tensor, batch: Batch, weight: float) -> Terms:
        return {
            f"{prefix}_l1": weight * config.l1_weight * discounted_l1(prediction, batch),
            f"{prefix}_ae": weight * config.ae_weight * l1_of_known(prediction, batch.image, batch.mask),
        }

    def coarse_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        return reconstruction("coarse", outputs["coarse"], batch, config.coarse_weight)

    def critic_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        terms: Terms = {}
        completed = outputs["completed"].detach()
        for purpose, (name, (real, fake, mask)) in enumerate(views(batch, batch.image, completed, batch.mask)):
            real_scores, fake_scores = networks[name](torch.cat((real, fake))).chunk(2)
            terms[f"{name}_wasserstein"] = fake_scores.mean() - real_scores.mean()
            penalty = gradient_penalty(networks[name], real, fake, mask, batch.uniform(purpose))
            terms[f"{name}_penalty"] = config.gradient_penalty_weight * penalty
        return terms

    def generator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        terms = coarse_terms(networks, batch, outputs) | reconstruction("refined", outputs["refined"], batch, 1.0)
        for name, (fake,) in views(batch, outputs["completed"]):
            terms[f"{name}_adversarial"] = -config.adversarial_weight * networks[name](fake).mean()
        return terms

    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        coarse, refined = networks["generator"](batch.image, batch.mask)
        return {"output": refined, "coarse": coarse}

    return Recipe(
        networks=networks,
        optimizers=adam(networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)),
        phases=(
            Phase(
                name="pretrain",
                steps=config.pretrain_steps,
                forward=coarse_forward,
                updates=(Update(networks=("generator",), terms=coarse_terms),),
                frozen=("generator.refinement",),
            ),
            Phase(
                name="adversarial",
                steps=config.steps,
                forward=forward,
                updates=(
                    Update(networks=critics, terms=critic_terms),
                    Update(networks=("generator",), terms=generator_terms, every=config.num_critic),
                ),
            ),
        ),
        inpaint=inpaint,
        batch_size=config.batch_size,
        multiple=8,
    )
