"""NoiseTransfer's layers and training step in PyTorch, written plainly: what ours is timed against.

As the released program works: gamma and beta of every modulation on the full plane, one power
iteration in every forward call (torch's own spectral_norm), a pass of the discriminator for each
use, and the generator's and the discriminator's updates one after the other.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.parametrizations import spectral_norm


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Module:
    pad = (size - stride + 1) // 2
    return spectral_norm(nn.Conv2d(inputs, outputs, size, stride, pad, bias=False))


def _linear(inputs: int, outputs: int) -> nn.Module:
    return spectral_norm(nn.Linear(inputs, outputs, bias=False))


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.01)


def _plane(vector: Tensor, like: Tensor) -> Tensor:
    return vector[:, :, None, None].expand(-1, -1, *like.shape[2:])


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.reduce, self.expand = _conv(inputs, hidden, 1), _conv(hidden, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(_act(self.reduce(x)))


class SFT(nn.Module):
    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        hidden = (size + channels) // 4
        self.gamma = Bottleneck(size, hidden, channels)
        self.beta = Bottleneck(size + 1, hidden, channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        plane = _plane(embedding, x)
        z = torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device, dtype=x.dtype)
        return x * (1 + self.gamma(plane)) + self.beta(torch.cat([plane, z], 1))


class SFTBlock(nn.Module):
    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.sft1, self.sft2 = SFT(channels, size), SFT(channels, size)
        self.conv1, self.conv2 = _conv(channels, channels), _conv(channels, channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        y = self.conv1(_act(self.sft1(x, embedding)))
        return x + self.conv2(_act(self.sft2(y, embedding)))


class Generator(nn.Module):
    def __init__(self, width: int, size: int, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        f1, f2, f3 = width, 2 * width, 4 * width
        first, second, third = blocks
        self.first = _conv(3, f1)
        self.down1, self.down2 = _conv(f1, f2, 4, 2), _conv(f2, f3, 4, 2)
        self.up2 = spectral_norm(nn.ConvTranspose2d(f3, f2, 4, 2, 1, bias=False))
        self.up1 = spectral_norm(nn.ConvTranspose2d(f2, f1, 4, 2, 1, bias=False))
        self.skip2, self.skip1 = _conv(2 * f2, f2), _conv(2 * f1, f1)
        self.last = _conv(f1, 3, 1)
        self.levels = nn.ModuleList(
            nn.ModuleList(SFTBlock(channels, size) for _ in range(count))
            for channels, count in (
                (f1, first),
                (f2, second),
                (f3, third),
                (f2, second),
                (f1, first),
            )
        )

    def _level(self, index: int, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self.levels[index]:
            x = block(x, embedding)
        return x

    def forward(self, clean: Tensor, embedding: Tensor) -> Tensor:
        skip1 = self._level(0, self.first(2 * clean - 1), embedding)
        skip2 = self._level(1, self.down1(skip1), embedding)
        x = self._level(2, self.down2(skip2), embedding)
        x = self._level(3, self.skip2(_act(torch.cat([self.up2(x), skip2], 1))), embedding)
        x = self._level(4, self.skip1(_act(torch.cat([self.up1(x), skip1], 1))), embedding)
        return self.last(_act(x))


class ConditionalNorm(nn.Module):
    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        hidden = (size + channels) // 4
        self.gamma = Bottleneck(size, hidden, channels)
        self.beta = Bottleneck(size, hidden, channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        plane = _plane(embedding, x)
        return F.instance_norm(x) * (1 + self.gamma(plane)) + self.beta(plane)


class Branch(nn.Module):
    """One branch's own layers: its first convolution, norms and heads."""

    def __init__(self, inputs: int, width: int, size: int, blocks: Any, conditional: bool) -> None:
        super().__init__()
        self.pre = _conv(inputs, width)
        self.norms, self.projects, self.head_norms, self.features = (
            nn.ModuleList() for _ in range(4)
        )
        for level, count in enumerate(blocks):
            channels = width * 2**level

            def norm(channels: int = channels) -> nn.Module:
                if conditional:
                    return ConditionalNorm(channels, size)
                return nn.InstanceNorm2d(channels, affine=True)

            self.norms.append(nn.ModuleList(norm() for _ in range(2 * count)))
            self.projects.append(_conv(channels, channels, 1))
            self.head_norms.append(norm())
            self.features.append(_conv(channels, channels))


class Discriminator(nn.Module):
    def __init__(self, width: int, size: int, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.noise = Branch(3, width, size, blocks, conditional=False)
        self.gan = Branch(6, width, size, blocks, conditional=True)
        channels = [width * 2**level for level in range(3)]
        self.convs = nn.ModuleList(
            nn.ModuleList(_conv(c, c) for _ in range(2 * n))
            for c, n in zip(channels, blocks, strict=True)
        )
        self.downs = nn.ModuleList(_conv(c, 2 * c, 4, 2) for c in channels[:-1])
        self.logits = nn.ModuleList(_conv(c, 1, 1) for c in channels)
        self.mlp1, self.mlp2 = _linear(7 * width, 7 * width), _linear(7 * width, size)

    def _run(self, branch: Branch, x: Tensor, *embedding: Tensor) -> list[Tensor]:
        x, features = branch.pre(x), []
        for level, convs in enumerate(self.convs):
            if level:
                x = self.downs[level - 1](x)
            norms = branch.norms[level]
            for i in range(0, len(convs), 2):
                y = convs[i](_act(norms[i](x, *embedding)))
                x = x + convs[i + 1](_act(norms[i + 1](y, *embedding)))
            y = branch.head_norms[level](branch.projects[level](x), *embedding)
            features.append(branch.features[level](_act(y)))
        return features

    def embed(self, noisy: Tensor) -> tuple[list[Tensor], Tensor]:
        features = self._run(self.noise, 2 * noisy - 1)
        x = torch.cat([f.mean((2, 3)) for f in features], 1)
        return features, torch.tanh(self.mlp2(_act(self.mlp1(x))))

    def judge(
        self, clean: Tensor, embedding: Tensor, noisy: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        pair = torch.cat([2 * clean - 1, noisy - clean], 1)
        features = self._run(self.gan, pair, embedding)
        return features, [head(f) for head, f in zip(self.logits, features, strict=True)]


def _info_nce(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    query, key, queue = (F.normalize(x, dim=1) for x in (query, key, queue))
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], 1) / 0.1
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))


def _matching(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    return sum(F.l1_loss(f, r.detach()) for r, f in zip(real, fake, strict=True)) / len(real)


def _bce(logits: list[Tensor], target: float) -> Tensor:
    terms = [F.binary_cross_entropy_with_logits(x, torch.full_like(x, target)) for x in logits]
    return sum(terms) / len(terms)


class Trainer:
    """Both networks, the key encoder, the queue and one training step."""

    def __init__(self, config: Any, device: str = "cpu", channels_last: bool = False) -> None:
        model = config.model
        sizes = model.width, model.embedding_size
        generator = Generator(*sizes, tuple(model.blocks))
        discriminator = Discriminator(*sizes, tuple(model.discriminator_blocks))
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.generator = generator.to(device, memory_format=layout)
        self.discriminator = discriminator.to(device, memory_format=layout)
        self.key_encoder = copy.deepcopy(self.discriminator).requires_grad_(False)
        queue = torch.randn(model.queue_length, model.embedding_size, device=device)
        self.queue, self.pointer, self.momentum = F.normalize(queue, dim=1), 0, model.momentum
        taps = torch.exp(-0.5 * ((torch.arange(21.0, device=device) - 10) / 3.5) ** 2)
        self.blur = (taps[:, None] * taps / taps.sum() ** 2).expand(3, 1, 21, 21)
        settings = {"lr": config.train.learning_rate, "betas": (0.5, 0.99), "weight_decay": 1e-7}
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), **settings)
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), **settings)

    def _blurred(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (10, 10, 10, 10), mode="reflect"), self.blur, groups=3)

    def step(self, clean: Tensor, noisy: Tensor, reference: Tensor) -> float:
        """Makes one update of everything; [B, 3, H, W] images."""
        d = self.discriminator
        with torch.no_grad():
            key = self.key_encoder.embed(reference)[1]
        generated = clean + self.generator(clean, key)

        d.requires_grad_(True)
        loss_d = _info_nce(d.embed(noisy)[1], key, self.queue)
        loss_d = loss_d + _bce(d.judge(clean, key, noisy)[1], 1.0)
        loss_d = loss_d + _bce(d.judge(clean, key, generated.detach())[1], 0.0)
        self.optimizer_d.zero_grad()
        loss_d.backward()
        self.optimizer_d.step()

        d.requires_grad_(False)
        with torch.no_grad():
            real_noise, real_gan = d.embed(noisy)[0], d.judge(clean, key, noisy)[0]
        fake_noise, query = d.embed(generated)
        fake_gan, logits = d.judge(clean, key, generated)
        loss_g = _info_nce(query, key, self.queue) + _bce(logits, 1.0)
        loss_g = loss_g + 100 * _matching(real_noise, fake_noise)
        loss_g = loss_g + 100 * _matching(real_gan, fake_gan)
        loss_g = loss_g + 100 * F.l1_loss(self._blurred(generated), self._blurred(noisy))
        self.optimizer_g.zero_grad()
        loss_g.backward()
        self.optimizer_g.step()

        with torch.no_grad():
            pairs = zip(self.key_encoder.parameters(), d.parameters(), strict=True)
            for ours, theirs in pairs:
                ours.lerp_(theirs, 1 - self.momentum)
            self.queue[self.pointer : self.pointer + len(key)] = key
            self.pointer = (self.pointer + len(key)) % len(self.queue)
        return float(loss_g.detach())

    @torch.inference_mode()
    def transfer(self, clean: Tensor, embedding: Tensor) -> Tensor:
        """Transfers noise to [1, 3, H, W] in one piece, spectral norms fixed."""
        self.generator.eval()
        noisy = (clean + self.generator(clean, embedding)).clamp(0, 1)
        self.generator.train()
        return noisy


def torch_step(
    config: Any,
    images: np.ndarray,
    device: str,
    tf32: bool = False,
    bf16: bool = False,
    compiled: bool = False,
) -> Callable[[], float]:
    """Makes a function for one training step; reading the loss waits for the device.

    Args:
      config: training config.
      images: clean, noisy and reference of every step, [3, B, H, W, 3] float32 in [0, 1].
      device: `cpu` or `cuda`.
      tf32: products and convolutions of float32 values in tf32, on a GPU.
      bf16: under bfloat16 autocast, channels last.
      compiled: the networks through torch.compile.
    """
    trainer = Trainer(config, device, channels_last=bf16)
    if compiled:
        trainer.generator.compile()
        trainer.discriminator.embed = torch.compile(trainer.discriminator.embed)
        trainer.discriminator.judge = torch.compile(trainer.discriminator.judge)
        trainer.key_encoder.embed = torch.compile(trainer.key_encoder.embed)
    batch = torch.from_numpy(images).permute(0, 1, 4, 2, 3).contiguous().to(device)

    def run() -> float:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            return trainer.step(*batch)

    return run
