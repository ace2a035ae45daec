"""What judges drawn images: a small classifier and its features, distances between sets of images, and sharpness."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import VQVAEConfig, best_device, require
from .data import BatchLoader, ImageDataset
from .quantizer import evaluating, nearest_code
from .training import Trainer

__all__ = [
    "Classifier",
    "classify",
    "frechet_distance",
    "nearest_images",
    "precision_recall",
    "sharpness",
    "train_classifier",
]


class Classifier(nn.Module):
    """A convolutional network for ten classes of 1 x 28 x 28 images; what stands before its last layer are features.

    Args:
        classes: how many.
        features: numbers that describe an image.
        seed: of the weights.
    """

    def __init__(self, classes: int = 10, features: int = 64, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the weights are a function of the seed
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Conv2d(1, 32, kernel_size=3, padding=1),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
                nn.Conv2d(32, 64, kernel_size=3, padding=1),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
                nn.Flatten(),  # (B, 64, 7, 7) -> (B, 64 * 7 * 7)
                nn.Linear(64 * 7 * 7, features),
                nn.ReLU(inplace=True),
            )
            self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (B, classes) of images (B, 1, 28, 28) in [0, 1]."""
        return self.head(self.net(x))

    def training_step(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the cross-entropy of one batch in nats, ``total_loss``, and the share of right answers."""
        logits = self(x).float()
        accuracy = (logits.argmax(1) == labels).float().mean()
        return {"total_loss": F.cross_entropy(logits, labels), "accuracy": accuracy}

    def summarise(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Turn the means of many ``training_step`` results into numbers for a history."""
        return {name: float(value) for name, value in means.items()}


def train_classifier(train: ImageDataset, *, steps: int = 1404, seed: int = 0) -> Classifier:
    """Train the judge on real images; it never sees a drawn one.

    Args:
        train: labelled images.
        steps: optimiser steps of 128 images.
        seed: of weights and order.

    Returns:
        The classifier, in evaluation mode. Its weights are float32 throughout, so that judgements are.
    """
    config = VQVAEConfig(lr=4e-3, seed=seed, precision="float32", device=best_device())
    loader = BatchLoader(train, config.batch_size, shuffle=True, drop_last=True, seed=seed, device=config.device)
    model = Classifier(seed=seed)
    Trainer(model, config).fit(loader, steps=steps)
    return model.eval()


@torch.no_grad()
def classify(model: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return features (n, F) and the class found (n,) int64 of images (n, 1, 28, 28) in [0, 1], on the CPU."""
    device = model.head.weight.device
    with evaluating(model):
        parts = [model.net(part.to(device)) for part in images.split(512)]
        features = torch.cat(parts)
        return features.cpu(), model.head(features).argmax(1).cpu()


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Compute the Fréchet distance of two sets of features, each taken for a Gaussian (Heusel et al. 2017).

    ||m1 - m2||^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). It depends on the features and on how many vectors there are:
    compare sets of one size, and know the distance of real images from real ones.

    Args:
        one, other: (n, F) and (m, F), n and m of 2 or more.

    Returns:
        The distance, 0 or more, in squared units of the features.
    """
    for name, features in (("one", one), ("other", other)):
        if features.dim() != 2 or len(features) < 2:
            raise ValueError(f"{name} is {tuple(features.shape)}: expected (n, F) with n of 2 or more.")
    a, b = one.double(), other.double()
    covariance_a, covariance_b = (torch.atleast_2d(part.T.cov()) for part in (a, b))  # one feature's is a number
    # tr (C1 C2)^(1/2) is the sum of the roots of the eigenvalues of R C2 R, symmetric, with R = C1^(1/2).
    values, vectors = torch.linalg.eigh(covariance_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    both = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return float((shift + covariance_a.trace() + covariance_b.trace() - 2 * both).clamp(min=0))


def precision_recall(real: Tensor, drawn: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Ask of each drawn image whether it looks real, and of each real one whether such a one is drawn.

    Around each vector of a set lies a ball that reaches to its k-th neighbour in that set. Precision is the share of
    drawn vectors in a ball of a real one, recall the share of real ones in a ball of a drawn one (Kynkäänniemi et al.
    2019).

    Args:
        real, drawn: (n, F) and (m, F) features; take n and m alike.
        neighbours: k.

    Raises:
        ValueError: a set has too few vectors to have a k-th neighbour.
    """
    for name, features in (("real", real), ("drawn", drawn)):
        require(len(features) > neighbours, name, len(features), f"more than neighbours = {neighbours} vectors")

    def inside(centres: Tensor, points: Tensor) -> float:
        radius = torch.cdist(centres, centres).kthvalue(neighbours + 1).values  # each is its own nearest
        return float((torch.cdist(points, centres) <= radius).any(dim=1).float().mean())

    return inside(real, drawn), inside(drawn, real)


def nearest_images(images: Tensor, among: ImageDataset) -> tuple[Tensor, Tensor]:
    """Find the image of a dataset that is nearest to each image, by the distance of their pixels.

    Args:
        images: (n, C, H, W) in [0, 1].
        among: where to look.

    Returns:
        (n,) int64, places in the dataset, and (n,) the mean squared difference a pixel.
    """
    # The quantizer's lookup serves here too: the dataset is the codebook.
    rows = images.flatten(1)
    places = nearest_code(rows, among.images.flatten(1).float() / 255)
    return places, (rows - among.floats(places).flatten(1)).square().mean(1)


def sharpness(images: Tensor) -> float:
    """Compute which share of the images' energy lies at high frequencies, above a quarter of a cycle a pixel.

    Args:
        images: (n, C, H, W) in [0, 1]. Each is taken without its own mean, which has no frequency.

    Returns:
        A number in [0, 1]; blurring lowers it, grain raises it. 0 for images without any contrast.
    """
    height, width = images.shape[-2:]
    power = torch.fft.fft2(images - images.mean(dim=(-2, -1), keepdim=True)).abs().square()
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None])
    total = float(power.sum())
    return float(power[..., frequency > 0.25].sum()) / total if total > 0 else 0.0
