"""Answers to the exercises of chapter 4."""

import torch
from torch import nn

from vqvae_lib import VQVAE, VQVAEConfig


def small(K: int = 512) -> VQVAE:
    return VQVAE(VQVAEConfig(hidden_dim=8, num_embeddings=K, embedding_dim=4, device="cpu"))


def fine(K: int, *, decoder: bool = True) -> VQVAE:
    """14 x 14 codes for 28 x 28 pixels."""
    model = small(K)
    model.encoder.net[2] = nn.Conv2d(4, 8, 3, padding=1)
    if decoder:
        model.decoder.net[2] = nn.Conv2d(8, 4, 3, padding=1)
    return model


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv3, self.conv1 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return x + self.conv1(self.conv3(x.relu()).relu())


def deep(encoder: int, decoder: int) -> VQVAE:
    """So many residual blocks on each side."""
    model = small()
    for net, at, count in ((model.encoder.net, 3, encoder), (model.decoder.net, 1, decoder)):
        for _ in range(count):
            net.insert(at, Block())
    return model


RIGHT = {
    "4.1": [[4, 144, 38], torch.tensor([4.0, 144.0, 38.0])],
    "4.2": [[28, 0]],
    "4.3": [0.6265, 1 - 121 / 324],
    "4.4": [fine(4)],
    "4.5": [deep(2, 2)],
}
WRONG = {
    "4.1": [[4, 144, 22], [8, 576, 38], [4, 144]],
    "4.2": [[30, 0], [28, 116]],
    "4.3": [7 / 18, 121 / 324, 0.5, 62.65],
    "4.4": [small(4), fine(256), fine(4, decoder=False), len],
    "4.5": [small(), deep(2, 1), deep(0, 2), fine(4)],
}
