"""Two attacks that rebuild training images from a gradient, and networks to try them on; no workers here.

How a gradient is got hold of, and what averages over workers do to it, is shown in
``examples/gradient_leakage.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# L-BFGS stops at these; the defaults would stop while the images are still grey.
_TOLERANCE = 1e-14


def small_mlp() -> nn.Module:
    """Make a network with a linear first layer for 64 pixels and 10 classes, the same at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 16), nn.Sigmoid(), nn.Linear(16, 10)).double()


def small_cnn() -> nn.Module:
    """Make a smooth network of two convolutions for 8x8 pixels and 10 classes, the same at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 8, kernel_size=3, stride=2, padding=1),
            nn.Sigmoid(),
            nn.Conv2d(8, 8, kernel_size=3, padding=1),
            nn.Sigmoid(),
            nn.Flatten(),
            nn.Linear(8 * 4 * 4, 10),
        ).double()


def gradient_of(network: nn.Module, images: Tensor, labels: Tensor, *, create_graph: bool = False) -> Tensor:
    """Compute the gradient of the mean cross-entropy, as one vector.

    Args:
        network: Maps images ``(N, D)`` to logits ``(N, C)``.
        images: Shape ``(N, D)``.
        labels: Shape ``(N,)``, int64.
        create_graph: Whether the gradient is to be differentiated itself.

    Returns:
        Shape ``(P,)``, all parameters' gradients in the network's order.
    """
    loss = F.cross_entropy(network(images), labels)
    gradients = torch.autograd.grad(loss, tuple(network.parameters()), create_graph=create_graph)
    return torch.cat([gradient.flatten() for gradient in gradients])


def invert_first_layer(network: nn.Module, gradient: Tensor) -> Tensor:
    """Read images off the gradient of a linear first layer.

    Row i of the weight's gradient is the sum over images of ``delta_i * image``, and entry i of the bias's
    gradient the sum of ``delta_i``. With one image the quotient is the image, exactly; with several it is a
    weighted mixture of them, another one in each row.

    Source: Phong et al. 2018, "Privacy-preserving deep learning via additively homomorphic encryption",
    section III.

    Args:
        network: Its first layer is linear, with a bias.
        gradient: Shape ``(P,)``, as from `gradient_of`.

    Returns:
        One candidate per unit of the layer, shape ``(units, D)``.

    Example:
        >>> network, image = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2)), torch.rand(1, 4)
        >>> gradient = gradient_of(network, image, torch.tensor([1]))
        >>> torch.allclose(invert_first_layer(network, gradient), image.expand(3, 4), atol=1e-4)
        True
    """
    units, pixels = next(network.parameters()).shape
    weight, bias = gradient[: units * pixels].view(units, pixels), gradient[units * pixels :][:units]
    return weight / bias[:, None]


def label_of(gradient: Tensor, classes: int) -> int:
    """Read the label of a single image off the last layer's bias.

    Its gradient is ``softmax - one_hot``: negative for the true class only.

    Source: Zhao et al. 2020, "iDLG: improved deep leakage from gradients", section 3.

    Args:
        gradient: Shape ``(P,)``; the last layer's bias is at the end.
        classes: Number of classes.
    """
    return int(gradient[-classes:].argmin())


def deep_leakage(
    network: nn.Module,
    gradient: Tensor,
    labels: Sequence[int],
    *,
    pixels: int,
    steps: int = 1000,
    seed: int = 0,
) -> Tensor:
    """Search for the images whose gradient is the one seen.

    Source: Zhu, Liu and Han 2019, "Deep leakage from gradients", Algorithm 1, with L-BFGS. The images are
    kept within [0, 1] by a sigmoid, which helps the attacker.

    Args:
        network: Maps images ``(N, D)`` to logits; smooth, since its gradient is differentiated.
        gradient: Shape ``(P,)``, the mean over N images. Use float64: the search is stiff.
        labels: The N labels.
        pixels: D, the length of an image.
        steps: Iterations of L-BFGS.
        seed: Seed of the images that the search starts from.

    Returns:
        Shape ``(N, D)``, in [0, 1]; in no particular order among images of one label.
    """
    start = torch.randn(len(labels), pixels, generator=torch.Generator().manual_seed(seed))
    hidden = start.to(gradient.dtype).requires_grad_()
    targets = torch.tensor(labels)
    search = torch.optim.LBFGS(
        [hidden],
        max_iter=steps,
        max_eval=2 * steps,
        history_size=50,
        tolerance_grad=_TOLERANCE,
        tolerance_change=_TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    def distance() -> Tensor:
        search.zero_grad()
        guess = gradient_of(network, hidden.sigmoid(), targets, create_graph=True)
        loss = (guess - gradient).square().sum() / gradient.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotations lack it
        return loss

    search.step(distance)  # type: ignore[no-untyped-call]  # likewise
    return hidden.detach().sigmoid()


def nearest(candidates: Tensor, image: Tensor) -> tuple[Tensor, float]:
    """Choose the candidate that is nearest to the truth, as only a lucky attacker can.

    Args:
        candidates: Shape ``(N, D)``.
        image: Shape ``(D,)``.

    Returns:
        The candidate, shape ``(D,)``, and its mean squared error.

    Example:
        >>> nearest(torch.tensor([[0.0, 1.0], [0.0, 0.5]]), torch.tensor([0.0, 0.0]))
        (tensor([0.0000, 0.5000]), 0.125)
    """
    errors = (candidates - image).square().mean(1)
    best = int(errors.argmin())
    return candidates[best], float(errors[best])
