"""A small, tested library for the VQ-VAE.

Modules follow the data's way: config, data, quantizer, model, training, analysis, prior, vae, judge, stored, figures,
widgets; playground and notebook serve the chapters.
"""

from .analysis import (
    Rate,
    active_codes,
    collect_indices,
    compression_ratio,
    mse,
    normalised_mse,
    psnr,
    rate,
    usage_counts,
)
from .config import VQVAEConfig, best_device, quick
from .data import (
    BatchLoader,
    DataError,
    ImageDataset,
    create_dataloader,
    data_root,
    draw_glyphs,
    draw_scenes,
    load_images,
)
from .figures import visualize_codebook_usage, visualize_reconstruction
from .model import VQVAE, Decoder, Encoder, ResizeDecoder, VQVAEOutput, receptive_field
from .prior import (
    GatedStack,
    MaskedConv2d,
    MaskedStack,
    PixelCNN,
    PriorConfig,
    choose_codes,
    create_code_loader,
    sampling_distribution,
)
from .quantizer import (
    EMAVectorQuantizer,
    QuantizerOutput,
    StraightThrough,
    VectorQuantizer,
    code_sums,
    kmeans,
    nearest_code,
    perplexity,
)
from .training import (
    CheckpointError,
    Trainer,
    TrainingError,
    VQVAETrainer,
    autocast_dtype,
    learning_rate,
    load_or_train,
)
from .vae import VAE, AutoregressiveVAE, LatentPrior, VAEConfig, binarised, fate, gaussian_kl, reparameterise

__version__ = "0.1.0"
