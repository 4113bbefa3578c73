"""The optimiser: Muon for matrices, Adam for the embedding and the norms. Knows weights and gradients alone.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) takes momentum and replaces it by the nearest
matrix whose singular values are all about one, by five steps of a quintic Newton-Schulz iteration.
"""

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
MOMENTUM = 0.95
# Keeps the singular values of matrices below 1 / WEIGHT_DECAY: a step pushes each by the rate, decay takes its part back.
WEIGHT_DECAY = 0.3
EMBEDDING_RATE, NORM_RATE = 5e-3, 6e-3


def orthogonalised(updates):
    """Every matrix of the stack (n, rows, columns) with its singular values pushed towards one, in BF16."""
    a, b, c = NEWTON_SCHULZ
    x = updates.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True).bfloat16() + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


class Optimiser:
    """Both optimisers behind one `step`; rates are those of full speed and are scaled by the schedule."""

    def __init__(self, model, matrix_rate=0.02):
        self.matrix_rate = matrix_rate
        matrices, norms = {}, []
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                norms.append(weight)
            elif name != "embedding.weight":
                matrices.setdefault(tuple(weight.shape), []).append(weight)
        # Matrices of one shape are stepped together: a handful of batched products instead of dozens of small ones.
        self.stacks = [(weights, torch.zeros(len(weights), *shape, device=weights[0].device))
                       for shape, weights in matrices.items()]
        groups = [
            {"params": [model.embedding.weight], "full_rate": EMBEDDING_RATE},
            {"params": norms, "full_rate": NORM_RATE},
        ]
        self.adam = torch.optim.AdamW(groups, betas=(0.9, 0.97), weight_decay=0.0, fused=True)

    @torch.no_grad()
    def step(self, scale):
        """One step at `scale` of full speed; gradients are consumed."""
        for group in self.adam.param_groups:
            group["lr"] = group["full_rate"] * scale
        self.adam.step()
        self.adam.zero_grad()
        rate = self.matrix_rate * scale
        for weights, momentum in self.stacks:
            gradients = torch.stack([weight.grad for weight in weights])
            momentum.mul_(MOMENTUM).add_(gradients)
            steps = orthogonalised(gradients.add(momentum, alpha=MOMENTUM)).float()
            rows, columns = weights[0].shape
            for weight, direction in zip(weights, steps):
                weight.mul_(1 - rate * WEIGHT_DECAY)
                weight.add_(direction, alpha=-rate * max(1, rows / columns) ** 0.5)
                weight.grad = None

    def state(self):
        """What a resumed run needs."""
        return {"adam": self.adam.state_dict(), "momentum": [momentum for _, momentum in self.stacks]}

    def restore(self, state):
        """Takes back what `state` gave."""
        self.adam.load_state_dict(state["adam"])
        for (_, momentum), saved in zip(self.stacks, state["momentum"]):
            momentum.copy_(saved)
