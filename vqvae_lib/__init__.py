"""A small, tested library for the VQ-VAE.

Its modules, each built on those before it: config, metrics, pretrained, lookup,
quantizer, newer, model, standin, data, running, checkpoint, trainer, vqvae_trainer,
prior, transformer, vae, ar_vae, viz.
"""

from importlib.metadata import version

from ._util import eval_mode, seed_at, seeded
from .config import TrainConfig, VQVAEConfig, autocast_dtype, best_device, learning_rate
from .metrics import Rate, active_codes, code_frequency, collect_indices, mse
from .metrics import normalized_mse, perplexity, rate, usage_counts
from .pretrained import about_pretrained, pretrained_names
from .lookup import code_sums, kmeans, nearest_code
from .quantizer import EMAVectorQuantizer, QuantizerOutput
from .quantizer import StraightThrough, VectorQuantizer
from .newer import FSQ, LFQ, GroupedVQ, ResidualVQ, RotationTrick, SimVQ
from .model import VQVAE, Decoder, Encoder, VQVAEOutput, make_quantizer
from .data import BatchLoader, DataError, ImageDataset
from .data import create_dataloader, data_root, load_images
from .standin import draw_glyphs
from .checkpoint import CheckpointError
from .trainer import Trainer, TrainingError
from .vqvae_trainer import VQVAETrainer
from .prior import GatedLayer, GatedStack, MaskedConv2d, MaskedStack, PixelCNN
from .prior import PriorConfig, create_code_loader, gate, sampling_distribution
from .transformer import TransformerConfig, TransformerPrior
from .vae import ACTIVE_NATS, VAE, VAEConfig, gaussian_kl, reparameterize
from .ar_vae import AutoregressiveVAE, LatentPrior
from .viz import visualize_codebook_usage, visualize_reconstruction

__version__ = version("vqvae_lib")
