"""The transform, on the device and by the batch: uint8 tiles to what the network was trained on."""

from __future__ import annotations

import torch
from torch.nn import functional

from pathpipe.encoders.encoder import EncoderRecord


class Transform(torch.nn.Module):
    """Resize (antialiased), cut out the centre where the record says so, and normalise.

    Equal to PIL's resize + scaling to [0, 1] + normalisation up to PIL's rounding to whole grey levels; without a
    resize, equal to the last bit of float32.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, record: EncoderRecord) -> None:
        super().__init__()
        self.input_px = record.input_px
        self.resize_px = record.resize_px or record.input_px
        self.interpolation = record.interpolation
        mean, std = torch.tensor(record.mean).view(1, 3, 1, 1), torch.tensor(record.std).view(1, 3, 1, 1)
        # (x / 255 - mean) / std as one multiply-add
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, H, W, 3) uint8 -> (N, 3, input_px, input_px) float32, normalised."""
        images = pixels.permute(0, 3, 1, 2).float()  # (N, 3, H, W)
        size = (self.resize_px, self.resize_px)
        if images.shape[-2:] != size:
            images = functional.interpolate(images, size, mode=self.interpolation, antialias=True, align_corners=False)
            images = images.clamp_(0, 255)  # bicubic overshoots
        if self.resize_px != self.input_px:
            edge = round((self.resize_px - self.input_px) / 2)
            images = images[..., edge : edge + self.input_px, edge : edge + self.input_px]
        return torch.addcmul(self.shift, images, self.scale)
