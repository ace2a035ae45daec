"""How good drawn images are: a classifier's features, set distances, sharpness."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lib import BatchLoader, ImageDataset, TrainConfig, Trainer, nearest_code
from vqvae_lib._util import eval_mode, require, seeded


class Classifier(nn.Module):
    """A network for classes of images; before its last layer: 64 features.

    Each of the ``widths``, channels of a convolution, halves the side of the image.
    """

    def __init__(
        self, channels: int, side: int, widths: Sequence[int], seed: int = 0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        with seeded(seed):
            for before, width in itertools.pairwise((channels, *widths)):
                layers.append(nn.Conv2d(before, width, kernel_size=3, padding=1))
                layers += [nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            flat = widths[-1] * (side // 2 ** len(widths)) ** 2
            # (B, C, h, w) -> (B, C * h * w) -> (B, 64)
            layers += [nn.Flatten(), nn.Linear(flat, 64), nn.ReLU(inplace=True)]
            self.net, self.head = nn.Sequential(*layers), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (B, 10) of images (B, channels, side, side) in [0, 1]."""
        return self.head(self.net(x))

    def training_step(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the cross-entropy in nats, and the share of right answers."""
        logits = self(x).float()
        accuracy = (logits.argmax(1) == labels).float().mean()
        return {"total_loss": F.cross_entropy(logits, labels), "accuracy": accuracy}

    def summarize(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Turn the means of ``training_step`` into numbers for a history."""
        return {name: float(value) for name, value in means.items()}


def train_classifier(
    train: ImageDataset,
    *,
    steps: int = 1404,
    seed: int = 0,
    widths: Sequence[int] = (32, 64),
) -> Classifier:
    """Train a classifier on real images, in float32; it never sees a drawn one."""
    config = TrainConfig(lr=4e-3, seed=seed, precision="float32")
    options = {"shuffle": True, "drop_last": True, "device": config.device}
    loader = BatchLoader(train, config.batch_size, seed=seed, **options)
    channels, side = train.images.shape[1:3]
    model = Classifier(channels, side, widths, seed=seed)
    Trainer(model, config).fit(loader, steps=steps)
    return model.eval()


@torch.no_grad()
def classify(model: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return features (n, F) and classes (n,) of images (n, C, H, W), on the CPU."""
    device = model.head.weight.device
    with eval_mode(model):
        features = torch.cat([model.net(x.to(device)) for x in images.split(512)])
        return features.cpu(), model.head(features).argmax(1).cpu()


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Compute the Fréchet distance between two feature sets (Heusel et al. 2017).

    Each set is modeled as a Gaussian: ||m1 - m2||^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). It
    depends on the number of vectors: compare sets of equal size, and know the distance
    between two sets of real images.

    Args:
        one, other: (n, F) and (m, F), n and m at least 2.

    Returns:
        The distance, 0 or more, in squared units of the features.
    """
    for name, shape in (("one", tuple(one.shape)), ("other", tuple(other.shape))):
        ok = len(shape) == 2 and shape[0] >= 2
        require(ok, name, shape, "features (n, F) with n >= 2")
    a, b = one.double().cpu(), other.double().cpu()
    # One feature's covariance is a number.
    cov_a, cov_b = (torch.atleast_2d(part.T.cov()) for part in (a, b))
    # tr (C1 C2)^(1/2) is the sum of the roots of the eigenvalues of R C2 R, which is
    # symmetric, with R = C1^(1/2).
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    both = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return float((shift + cov_a.trace() + cov_b.trace() - 2 * both).clamp(min=0))


def precision_recall(
    real: Tensor, drawn: Tensor, neighbors: int = 3
) -> tuple[float, float]:
    """Ask which drawn images look real, and which real ones are drawn.

    Around each vector is a ball that reaches to its k-th neighbor in its set. Precision
    is the share of drawn vectors inside the ball of a real one, recall the share of
    real vectors inside the ball of a drawn one (Kynkäänniemi et al. 2019).

    Args:
        real, drawn: (n, F) and (m, F) features, n and m about equal, and more than k.
        neighbors: k.
    """
    for name, features in (("real", real), ("drawn", drawn)):
        allowed = f"more than neighbors = {neighbors} vectors"
        require(len(features) > neighbors, name, len(features), allowed)

    def inside(centers: Tensor, points: Tensor) -> float:
        # Each center is its own nearest.
        radius = torch.cdist(centers, centers).kthvalue(neighbors + 1).values
        near = torch.cdist(points, centers) <= radius
        return float(near.any(dim=1).float().mean())

    return inside(real, drawn), inside(drawn, real)


def nearest_images(images: Tensor, among: ImageDataset) -> tuple[Tensor, Tensor]:
    """Find the image of a dataset that is nearest to each image, pixel by pixel.

    Args:
        images: (n, C, H, W) in [0, 1].
        among: where to look.

    Returns:
        (n,) int64, positions in the dataset, and (n,) the mean squared error per pixel.
    """
    # The quantizer's lookup serves here too: the dataset is the codebook.
    rows = images.flatten(1)
    places = nearest_code(rows, among.floats().flatten(1))
    return places, (rows - among.floats(places).flatten(1)).square().mean(1)


def sharpness(images: Tensor) -> float:
    """Compute the share of energy above a quarter of a cycle per pixel.

    Args:
        images: (n, C, H, W) in [0, 1], with its own mean subtracted from each.

    Returns:
        A number in [0, 1]; blur lowers it, grain raises it. Without contrast it is 0.
    """
    height, width = images.shape[-2:]
    contrast = images - images.mean(dim=(-2, -1), keepdim=True)
    power = torch.fft.fft2(contrast).abs().square()
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None]
    high, total = power[..., torch.hypot(rows, columns) > 0.25].sum(), power.sum()
    return float(high / total) if total > 0 else 0.0
