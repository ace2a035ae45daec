"""What some pages need besides the library: images, choices of codes, a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from vqvae_lib import VQVAE, Decoder, ImageDataset, PixelCNN, VQVAEConfig
from vqvae_lib._util import check_number, require
from vqvae_lib.model import check_images


def draw_scenes(count: int, *, seed: int, size: int = 32) -> ImageDataset:
    """Draw ``count`` scenes (3, size, size), labels 0: disc and bar on two colors."""
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(count, 6, 1, 1, 1, generator=g)
    colors = torch.rand(count, 4, 3, 1, 1, generator=g)
    side = torch.linspace(0, 1, size)
    y, x = torch.meshgrid(side, side, indexing="ij")
    blend = (x * u[:, 0] + y * (1 - u[:, 0])).clamp(0, 1)
    image = colors[:, 0] * blend + colors[:, 1] * (1 - blend)
    disc = (x - u[:, 1]) ** 2 + (y - u[:, 2]) ** 2 < (0.1 + 0.2 * u[:, 3]) ** 2
    bar = ((x - u[:, 4]).abs() < 0.08) & ((y - u[:, 5]).abs() < 0.35)
    image = torch.where(bar, colors[:, 2], torch.where(disc, colors[:, 3], image))
    return ImageDataset(image.mul(255).to(torch.uint8), name="scenes")


@torch.no_grad()
def choose_codes(
    model: VQVAE,
    prior: PixelCNN,
    x: Tensor,
    price: float,
    condition: Tensor | None = None,
) -> Tensor:
    """Encode images with codes that are near and cheap, (8.8), one after the other.

    k_i = argmin_k ||z_e - e_k||^2 + price * (-ln p(k | k_<i)). Greedy: it ignores
    what a choice does to the price of later codes. It takes as long as sampling, and
    holds the distances to all K codes in memory.

    Args:
        model: a trained VQ-VAE.
        prior: a prior over its codes.
        x: images (B, C, H, W) in [0, 1].
        price: the squared distance that a nat is worth, 0 or more; 0 takes the nearest
            codes, as ``model.encode`` does.
        condition: as in ``PixelCNN.forward``.

    Returns:
        (B, H/4, W/4) int64 in [0, K), on the prior's device.
    """
    check_number("price", price, 0)
    check_images(x, model.in_channels, multiple=model.multiple)
    codebook, K = model.vq.codebook, prior.config.num_embeddings
    require(len(codebook) == K, "num_embeddings", K, f"the model's, {len(codebook)}")
    z_e = model.encoder(x).to(codebook.dtype).movedim(1, -1)  # (B, h, w, D)
    distances = torch.cdist(z_e.flatten(1, 2), codebook).square()  # (B, h w, K)
    distances = distances.unflatten(1, z_e.shape[1:3]).cpu()

    def choose(logits: Tensor, i: int, j: int) -> Tensor:
        return (distances[:, i, j] - price * logits.log_softmax(-1)).argmin(-1)

    blank = torch.zeros(distances.shape[:3], dtype=torch.long)
    return prior.fill(blank, blank.bool(), choose, condition)


def latent_usage(swap_costs: Sequence[float]) -> str:
    """Say whether a decoder uses its latent, by what a swap of latents costs.

    Args:
        swap_costs: for each seed, the nats per image that are lost when each image is
            given another one's latent.

    Returns:
        ``"used"`` if each seed loses more than 1 nat, ``"collapsed"`` if each loses
        less than 1/4, ``"weak"`` if all lie between, else ``"varies across seeds"``.

    Raises:
        ValueError: no costs, or one that is not finite.
    """
    finite = len(swap_costs) > 0 and all(map(math.isfinite, swap_costs))
    require(finite, "swap_costs", list(swap_costs), "a finite number for each seed")
    answers = {
        "used" if cost > 1 else "collapsed" if cost < 0.25 else "weak"
        for cost in swap_costs
    }
    return answers.pop() if len(answers) == 1 else "varies across seeds"


def binarized(dataset: ImageDataset, side: int = 14) -> TensorDataset:
    """Make images of 0 and 1: average down to side x side, then threshold at 1/2.

    Returns:
        (N, C, side, side) float32 and the labels, for ``BatchLoader``.
    """
    parts = dataset.images.split(4096)
    small = torch.cat([F.adaptive_avg_pool2d(x.float() / 255, side) for x in parts])
    return TensorDataset((small > 0.5).float(), dataset.labels)


class ResizeDecoder(Decoder):
    """A :class:`Decoder` with upsampling and convolutions, none of them transposed."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__(config)
        layers: list[nn.Module] = []
        for layer in self.net:
            if isinstance(layer, nn.ConvTranspose2d):
                channels = layer.in_channels, layer.out_channels
                resized = nn.Conv2d(*channels, 3, padding=1)
                layers += [nn.Upsample(scale_factor=2), resized]
            else:
                layers.append(layer)
        self.net = nn.Sequential(*layers)
        nn.init.zeros_(self.net[-2].bias)


def receptive_field(layers: Iterable[nn.Conv2d]) -> tuple[int, int, int]:
    """Compute what one output of square convolutions sees, (4.4).

    Returns size, jump, padding: output i sees ``size`` pixels from i * jump - padding.
    """
    size, jump, padding = 1, 1, 0
    for layer in layers:
        size += (layer.kernel_size[0] - 1) * jump
        padding += layer.padding[0] * jump
        jump *= layer.stride[0]
    return size, jump, padding


def compression_ratio(image_shape: tuple[int, int, int], bits: float) -> float:
    """Return raw bits, 8 per pixel and channel, over the bits that an image costs."""
    require(bits > 0, "bits", bits, "above 0")
    return 8 * math.prod(image_shape) / bits
