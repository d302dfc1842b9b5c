#!/usr/bin/env python3
# make_golden.py - what PyTorch says: the golden files of tests/models/golden_test.cpp.
#
#   python3 scripts/make_golden.py [tests/data/golden]        (needs torch and numpy; the committed files came from torch 2.15)
#
# Two networks, both the chapter's class as written there, each run in fp32 and in fp64 on the same weights and batches:
#   width64   hidden 64, PyTorch's own initialisation. width64.safetensors is its plain state dict; width64_expected.safetensors
#             holds every gradient.
#   default   the chapter's defaults (hidden 256, 4 layers, 10 levels). Its 218,000 weights come from an integer hash that the
#             test repeats; default_expected.safetensors holds a strided part of every gradient and its norm.
# An expected file holds, with p = f32 or f64 the precision of the run (K = 10 batches of B rows of D = 2):
#   sigmas (L), x0 (K, B, D), eps (K, B, D), level (K, B);  p.output (B, D), p.loss (1), p.grad.<name>, p.grad_norm.<name>
#   for batch 0 at the initial weights;  p.adam_losses (K), the loss before each of K Adam steps (lr 1e-3) on batches 0 .. K-1.
# SPDX-License-Identifier: MIT
import copy
import json
import pathlib
import struct
import sys

import numpy as np
import torch
from torch import nn


class NoiseConditionalScoreNetwork(nn.Module):
    """The chapter's network."""

    def __init__(self, data_dim, hidden_dim=256, num_layers=4, num_noise_levels=10, sigma_min=0.01, sigma_max=10.0):
        super().__init__()
        self.register_buffer("sigmas", torch.exp(torch.linspace(np.log(sigma_max), np.log(sigma_min), num_noise_levels)))
        self.noise_embedding = nn.Embedding(num_noise_levels, hidden_dim)
        layers = [nn.Linear(data_dim + hidden_dim, hidden_dim), nn.SiLU()]
        for _ in range(num_layers - 2):
            layers += [nn.Linear(hidden_dim, hidden_dim), nn.SiLU()]
        layers.append(nn.Linear(hidden_dim, data_dim))
        self.network = nn.Sequential(*layers)

    def forward(self, x, noise_level_idx):
        noise_emb = self.noise_embedding(noise_level_idx)
        score = self.network(torch.cat([x, noise_emb], dim=-1))
        return score / self.sigmas[noise_level_idx].unsqueeze(-1)


def loss_of(model, x0, eps, level):
    """The chapter's denoising loss with lambda = sigma^2; also the score."""
    sigma = model.sigmas[level].unsqueeze(-1)
    score = model(x0 + sigma * eps, level)
    return (0.5 * ((score + eps / sigma) ** 2 * sigma**2).sum(dim=-1)).mean(), score


def expected(model, x0, eps, level, stride_of):
    """Outputs, gradients and Adam losses of one model in its own precision."""
    out = {}
    precision = next(model.parameters()).dtype
    prefix = "f32." if precision == torch.float32 else "f64."
    x0, eps = x0.to(precision), eps.to(precision)
    loss, score = loss_of(model, x0[0], eps[0], level[0])
    loss.backward()
    out[prefix + "output"] = score.detach().numpy()
    out[prefix + "loss"] = np.array([loss.item()], dtype=np.float64)
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.numpy().reshape(-1)
        out[prefix + "grad." + name] = gradient[:: stride_of(gradient.size)]
        out[prefix + "grad_norm." + name] = np.array([np.linalg.norm(gradient.astype(np.float64))])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for k in range(x0.shape[0]):
        optimizer.zero_grad()
        loss, _ = loss_of(model, x0[k], eps[k], level[k])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    out[prefix + "adam_losses"] = np.array(losses, dtype=np.float64)
    return out


def hash_weights(model):
    """weight[i] of tensor t = u * scale, u in [-1, 1) from a 32-bit integer hash of (t, i); exact in fp32."""
    for t, (name, parameter) in enumerate(model.named_parameters()):
        h = np.arange(parameter.numel(), dtype=np.uint64) + np.uint64(t) * np.uint64(0x9E3779B9)
        mask = np.uint64(0xFFFFFFFF)
        h &= mask
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):  # "lowbias32" of Chris Wellons' hash-prospector
            h ^= h >> np.uint64(shift)
            h = (h * np.uint64(factor)) & mask
        h ^= h >> np.uint64(16)
        u = (h >> np.uint64(8)).astype(np.float64) * 2.0**-23 - 1.0
        scale = 2.0 if name == "noise_embedding.weight" else 2.0**-4
        with torch.no_grad():
            parameter.copy_(torch.from_numpy((u * scale).astype(np.float32)).reshape(parameter.shape))


def write_safetensors(path, tensors):
    names = {np.dtype(np.float32): "F32", np.dtype(np.float64): "F64", np.dtype(np.int32): "I32"}
    header, data = {}, b""
    # Wide types first, so that every tensor is aligned to its element.
    for name, array in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        array = np.ascontiguousarray(array)
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(path, path.stat().st_size, "bytes")


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/golden")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(2)

    steps = 10
    for name, options, batch in (("width64", {"hidden_dim": 64}, 48), ("default", {}, 64)):
        model = NoiseConditionalScoreNetwork(data_dim=2, **options)
        if name == "default":
            hash_weights(model)
        x0 = 1.5 * torch.randn(steps, batch, 2)
        eps = torch.randn(steps, batch, 2)
        level = torch.randint(0, len(model.sigmas), (steps, batch))
        stride_of = (lambda n: 1) if name == "width64" else (lambda n: max(1, n // 257))
        result = {"sigmas": model.sigmas.numpy(), "x0": x0.numpy(), "eps": eps.numpy(), "level": level.numpy().astype(np.int32)}
        if name == "width64":
            write_safetensors(folder / "width64.safetensors", {key: value.numpy() for key, value in model.state_dict().items()})
        # The fp64 model holds the fp32 weights and levels, exactly.
        for run in (copy.deepcopy(model).double(), copy.deepcopy(model)):
            result.update(expected(run, x0, eps, level, stride_of))
        write_safetensors(folder / f"{name}_expected.safetensors", result)


if __name__ == "__main__":
    main()
