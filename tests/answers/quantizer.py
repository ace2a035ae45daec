"""Answers to the exercises of chapter 2."""

import torch

from vqvae_lib import nearest_code


def effective_codes(indices, K):
    shares = torch.bincount(indices.flatten(), minlength=K) / indices.numel()
    return torch.special.entr(shares).sum().exp()


def in_bits(indices, K):  # the exponential of an entropy in bits
    shares = torch.bincount(indices.flatten(), minlength=K) / indices.numel()
    return (torch.special.entr(shares).sum() / torch.tensor(2.0).log()).exp()


def used(indices, K):
    return len(indices.unique())


def is_right(flatten):
    z = torch.arange(96.0).view(2, 3, 4, 4)
    return torch.equal(flatten(z)[21], z[1, :, 1, 1])


def by_shape(flatten):
    return flatten(torch.zeros(2, 3, 4, 4)).shape == (32, 3)


def nearest_angle(z, codes):
    return (z @ (codes / codes.norm(dim=1, keepdim=True)).T).argmax(1)


RIGHT = {"2.1": [effective_codes], "2.2": [is_right], "2.3": [0.7, 0.8], "2.5": [nearest_angle]}
WRONG = {
    "2.1": [in_bits, used, lambda indices, K: torch.bincount(indices.flatten(), minlength=K)],
    "2.2": [by_shape, lambda flatten: False],
    "2.3": [0.5, 0.98, 1.5],
    "2.5": [nearest_code, lambda z, codes: (z @ codes.T).argmax(1)],
}
