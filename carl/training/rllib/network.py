"""Networks for observations with pictures in them: RLlib's convolutions and layers over what Observations packs."""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT, Encoder
from ray.rllib.core.models.configs import CNNEncoderConfig, ModelConfig
from ray.rllib.core.models.torch.base import TorchModel

from carl.training.rllib.spaces import Observations

_TorchModel: Any = TorchModel  # RLlib leaves these untyped
_Encoder: Any = Encoder
_PPOCatalog: Any = PPOCatalog
_SACCatalog: Any = SACCatalog

SMALL = 8
"""Pixels of a side to which convolutions shrink a picture."""

LARGE = 64
"""Pixels of a side from which the first convolution is that of Mnih et al. 2015: 8x8 at every fourth pixel."""


class _SeesPictures:
    """A catalog that builds a PicturesEncoder where there are pictures, and RLlib's own encoder where not."""

    @classmethod
    def _get_encoder_config(cls, observation_space: gym.Space[Any], model_config_dict: Any, **kwargs: Any) -> Any:
        rllib: Any = super()
        observed = Observations(observation_space)
        if not (observed.pictures or observed.grids):
            return rllib._get_encoder_config(observation_space, model_config_dict, **kwargs)
        eyes = [_convolutions(shape, model_config_dict) for shape in [*observed.pictures, *observed.grids]]
        width = sum(eye.output_dims[0] for eye in eyes) + observed.width
        flat = gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        body = rllib._get_encoder_config(flat, model_config_dict, **kwargs)
        return PicturesConfig(observed=observed, eyes=eyes, body=body)


class PPONetworks(_SeesPictures, _PPOCatalog):  # type: ignore[misc]
    """RLlib's for PPO and APPO, which see pictures too."""


class SACNetworks(_SeesPictures, _SACCatalog):  # type: ignore[misc]
    """RLlib's for SAC, which see pictures too."""


@dataclass
class PicturesConfig(ModelConfig):
    """A convolutional encoder for each picture of ``observed``; ``body`` takes their outputs and the other numbers."""

    observed: Any = None
    eyes: list[Any] = field(default_factory=list)
    body: Any = None

    @property
    def output_dims(self) -> tuple[int, ...]:
        """The shape of the encoder's output, without the batch."""
        return tuple(self.body.output_dims)

    def build(self, framework: str = "torch") -> "PicturesEncoder":
        """The encoder; there is one for torch only."""
        assert framework == "torch"
        return PicturesEncoder(self)


class PicturesEncoder(_TorchModel, _Encoder):  # type: ignore[misc]
    """Observations ``[N, D]`` as Observations packs them to ``float32[N, output_dims]``."""

    def __init__(self, config: PicturesConfig) -> None:
        super().__init__(config)
        self._observed = config.observed
        self.eyes = torch.nn.ModuleList([eye.build("torch") for eye in config.eyes])
        self.body = config.body.build("torch")

    def _forward(self, inputs: dict[str, Any], **kwargs: Any) -> dict[str, Any]:  # noqa: ARG002  as RLlib calls it
        observed = self._observed
        packed = inputs[Columns.OBS]
        pixels, floats = _unpacked(packed, sum(map(prod, observed.pictures)))
        seen = [*_cut(pixels, observed.pictures, scale=255.0), *_cut(floats, observed.grids)]
        outs = [eye({Columns.OBS: picture})[ENCODER_OUT] for eye, picture in zip(self.eyes, seen, strict=True)]
        outs.append(floats[:, floats.shape[1] - observed.width :])
        out: dict[str, Any] = self.body({Columns.OBS: torch.cat(outs, dim=1)})
        return out


def _unpacked(packed: torch.Tensor, pixels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes and floats of ``packed``."""
    if packed.dtype != torch.uint8:
        return packed[:, :0], packed
    floats = packed[:, pixels:].clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.float32)
    return packed[:, :pixels], floats.reshape(len(packed), (packed.shape[1] - pixels) // 4)


def _cut(values: torch.Tensor, shapes: list[tuple[int, ...]], scale: float = 1.0) -> list[torch.Tensor]:
    """The pictures at the beginning of ``values``, ``float32[N, H, W, C]`` each."""
    parts = torch.split(values[:, : sum(map(prod, shapes))], [prod(shape) for shape in shapes], dim=1)
    pictures = [part.reshape(len(part), *shape) for part, shape in zip(parts, shapes, strict=True)]
    return [_channels_last(picture).float() / scale for picture in pictures]


def _channels_last(pictures: torch.Tensor) -> torch.Tensor:
    """``[N, H, W, C]`` of pictures that are that, or gray, or have their channels first, or are stacked in front."""
    shape = pictures.shape[1:]
    if len(shape) == 2:
        return pictures[..., None]
    if len(shape) == 4:
        return pictures.movedim(1, -2).flatten(-2)
    return pictures.movedim(1, -1) if shape[0] < min(shape[1:]) else pictures


def _convolutions(shape: tuple[int, ...], model: dict[str, Any]) -> CNNEncoderConfig:
    dims = list(_channels_last(torch.empty(1, *shape, device="meta")).shape[1:])
    return CNNEncoderConfig(
        input_dims=dims,
        cnn_filter_specifiers=model.get("conv_filters") or filters(max(dims[:2])),
        cnn_activation=model["conv_activation"],
        cnn_kernel_initializer=model["conv_kernel_initializer"],
        cnn_kernel_initializer_config=model["conv_kernel_initializer_kwargs"],
        cnn_bias_initializer=model["conv_bias_initializer"],
        cnn_bias_initializer_config=model["conv_bias_initializer_kwargs"],
    )


def filters(side: int) -> list[list[int | list[int]]]:
    """``[channels, kernel, stride]`` of convolutions for pictures whose longer side has ``side`` pixels; RLlib has them
    for five sizes."""
    layers: list[list[int | list[int]]] = []
    channels = 16
    while side > SMALL or not layers:
        kernel, stride = (8, 4) if side >= LARGE and not layers else (4, 2) if side > SMALL else (3, 1)
        layers.append([channels, kernel, stride])
        side, channels = -(-side // stride), min(2 * channels, 64)
    return layers
