#!/usr/bin/env python3
"""PyTorch on a CUDA device: the workloads of bench/cuda_bench.cu with the same weights, held against the same answers.

  compare_torch_cuda.py MODEL ANSWERS [--quick] [--repeats N]     one JSON object on standard output

MODEL and ANSWERS are written by cuda_bench. Every row: median and spread of N runs after a warm-up, by CUDA events around the whole
run and by the host's clock; the error of the scores, |s - s64| / |s64| over the answers' rows and levels. Ways of doing it:

  eager           as users write it: the embedding concatenated, autograd off, one kernel after the other
  folded          the embedding folded into a bias for each level, inference mode, weights ready in their type
  graph           folded, a level's steps captured by hand as one CUDA graph and replayed
  compile         folded, the step through torch.compile (max-autotune-no-cudagraphs), then captured by hand
  eager Adam, fused graph                  training: torch.optim.Adam as it comes; fused and capturable, the whole update one graph

Noise is drawn inside the loop on both sides, state and update are fp32, products in fp32, tf32 or bf16. What a way cannot do is
listed under "failed" with PyTorch's own words. No network: needs a PyTorch with CUDA and nothing else.
"""

import argparse
import json
import struct
import sys
import time

import torch

LEVEL_STEPS = 100
FACTOR = 0.2
DATA_ROWS = 65536


def read_safetensors(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = bytearray(file.read())
    types = {"F32": torch.float32, "F64": torch.float64}
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in types:
            continue
        begin, end = entry["data_offsets"]
        tensors[name] = torch.frombuffer(data[begin:end], dtype=types[entry["dtype"]]).reshape(entry["shape"]).clone()
    return tensors


class ChapterNet(torch.nn.Module):
    """s(x, level) sigma_level = network(cat(x, noise_embedding(level)))."""

    def __init__(self, tensors):
        super().__init__()
        embedding = tensors["noise_embedding.weight"]
        names = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("network.")})
        self.noise_embedding = torch.nn.Embedding(*embedding.shape)
        modules = []
        for i, name in enumerate(names):
            out, columns = tensors[f"network.{name}.weight"].shape
            modules += ([torch.nn.SiLU()] if i else []) + [torch.nn.Linear(columns, out)]
        self.network = torch.nn.Sequential(*modules)
        self.load_state_dict({name: tensors[name] for name in self.state_dict()})

    def forward(self, x, level):
        return self.network(torch.cat([x, self.noise_embedding(level)], -1))


class Folded:
    """The same with one first bias a level; products in `dtype`, everything else as it comes."""

    def __init__(self, net, dtype):
        linears = [m for m in net.network if isinstance(m, torch.nn.Linear)]
        dim = linears[-1].out_features
        first = linears[0]
        with torch.no_grad():
            bias = net.noise_embedding.weight.double() @ first.weight[:, dim:].double().T + first.bias.double()
            self.bias = bias.to(dtype)
            self.first = first.weight[:, :dim].T.contiguous().to(dtype)
            self.rest = [(m.weight.T.contiguous().to(dtype), m.bias.to(dtype)) for m in linears[1:]]
        self.dtype = dtype

    def __call__(self, x, level):
        return self.at(x, self.bias[level])

    def at(self, x, bias):
        h = torch.addmm(bias, x.to(self.dtype), self.first)
        for weight, bias in self.rest:
            h = torch.addmm(bias, torch.nn.functional.silu(h), weight)
        return h.float()


def set_precision(precision):
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def median(values):
    return sorted(values)[len(values) // 2]


def timed(run, repeats):
    run()
    torch.cuda.synchronize()
    device, host = [], []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start = time.perf_counter()
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        host.append(1e3 * (time.perf_counter() - start))
        device.append(begin.elapsed_time(end))
    row = {}
    for name, values in (("device", device), ("host", host)):
        row[f"{name}_ms"], row[f"{name}_ms_min"], row[f"{name}_ms_max"] = median(values), min(values), max(values)
    return row


def captured(run):
    """run() as a graph, after three runs on a stream of its own, as PyTorch's documentation asks."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


class Race:
    def __init__(self, options):
        self.options = options
        self.tensors = read_safetensors(options.model)
        answers = read_safetensors(options.answers)
        self.x, self.score, self.sigmas = answers["x"].cuda(), answers["score"], answers["sigmas"]
        self.rows, self.failed = [], []

    def net(self, dtype=torch.float32):
        return ChapterNet(self.tensors).cuda().to(dtype)

    def error(self, score):
        """score(x, level) sigma against the answers in double."""
        with torch.no_grad():
            ours = torch.stack([score(self.x, l).double().cpu() / self.sigmas[l] for l in range(len(self.sigmas))])
        return (torch.linalg.norm(ours - self.score) / torch.linalg.norm(self.score)).item()

    def check_agreement(self):
        """In double both sides are the same function: before anything is timed."""
        net = self.net(torch.float64)
        level = lambda l: torch.full((len(self.x),), l, device="cuda")
        error = self.error(lambda x, l: net(x.double(), level(l)))
        if not error < 1e-6:  # sigmas are floats on our side, so the answers are those of rounded levels
            sys.exit(f"compare_torch_cuda.py: the two sides differ by {error} in double; they are not the same network")
        return error

    def attempt(self, what, run):
        try:
            self.rows.append({**what, **run()})
        except Exception as error:  # a way that this PyTorch cannot go is reported, not hidden
            self.failed.append({**what, "why": f"{type(error).__name__}: {error}".splitlines()[0][:300]})
        torch.cuda.empty_cache()

    def langevin(self, particles, precision, how):
        dtype = set_precision(precision)
        # A step costs the same whatever their number; a tenth of them where they are long.
        per_level = LEVEL_STEPS if particles <= 65536 else LEVEL_STEPS // 10
        sigmas = self.sigmas.tolist()
        x = torch.randn(particles, 2, device="cuda") * sigmas[0]
        if how == "eager":
            net = self.net(dtype)
            score = lambda x, l: net(x.to(dtype), torch.full((len(x),), l, device="cuda")).float()
        else:
            score = Folded(self.net(), dtype)
        error = self.error(score)

        # What changes with the level comes as a tensor, so that one compiled step serves all of them.
        steps = [torch.tensor([FACTOR * sigma / 2, FACTOR**0.5 * sigma], device="cuda") for sigma in sigmas]

        def one(x, bias, step):
            return x + step[0] * score.at(x, bias) + step[1] * torch.randn_like(x)

        compiled = torch.compile(one, mode="max-autotune-no-cudagraphs", dynamic=False) if how == "compile" else one

        def level(l):
            y = x
            for _ in range(per_level):
                if how == "eager":
                    a = FACTOR * sigmas[l] ** 2
                    y = y + a / 2 / sigmas[l] * score(y, l) + a**0.5 * torch.randn_like(y)
                else:
                    y = compiled(y, score.bias[l], steps[l])
            x.copy_(y)

        with torch.inference_mode() if how != "eager" else torch.no_grad():
            x = x.clone()
            if how in ("graph", "compile"):
                graphs = [captured(lambda l=l: level(l)) for l in range(len(sigmas))]
                run = lambda: [graph.replay() for graph in graphs]
            else:
                run = lambda: [level(l) for l in range(len(sigmas))]
            return {"steps": per_level * len(sigmas), "error": error, **timed(run, self.options.repeats)}

    def training(self, batch, precision, how):
        dtype = set_precision(precision)
        net = self.net()
        fused = how == "fused graph"
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, **({"fused": True, "capturable": True} if fused else {}))
        table = torch.randn(DATA_ROWS, 2, device="cuda")
        sigmas = self.sigmas.float().cuda()
        steps = 20

        def update():
            rows = torch.randint(DATA_ROWS, (batch,), device="cuda")
            level = torch.randint(len(sigmas), (batch,), device="cuda")
            eps = torch.randn(batch, 2, device="cuda")
            x = table[rows] + sigmas[level].unsqueeze(-1) * eps
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16, cache_enabled=not fused):
                out = net(x, level)
            loss = 0.5 * (out.float() + eps).square().sum(-1).mean()
            optimizer.zero_grad(set_to_none=not fused)
            loss.backward()
            optimizer.step()

        if fused:
            graph = captured(update)
            run = lambda: [graph.replay() for _ in range(steps)]
        else:
            run = lambda: [update() for _ in range(steps)]
        return {"steps": steps, **timed(run, self.options.repeats)}

    def run(self):
        agreement = self.check_agreement()
        particles = [1, 256, 1024, 65536] + ([] if self.options.quick else [1 << 20])
        for n in particles:
            name = "S3" if n == 1 else "S2" if n <= 1024 else "S1"
            for precision in ("bf16", "tf32", "fp32"):
                for how in ("eager", "folded", "graph", "compile"):
                    what = {"workload": name, "particles": n, "precision": precision, "how": how}
                    self.attempt(what, lambda: self.langevin(n, precision, how))
        for batch in [128, 65536] + ([] if self.options.quick else [1 << 20]):
            for precision in ("bf16", "tf32", "fp32"):
                for how in ("eager Adam", "fused graph"):
                    what = {"workload": "T1" if batch == 128 else "T2", "particles": batch, "precision": precision, "how": how}
                    self.attempt(what, lambda: self.training(batch, precision, how))
        return {
            "side": f"PyTorch {torch.__version__}",
            "device": torch.cuda.get_device_name(0),
            "repeats": self.options.repeats,
            "difference_in_double": agreement,
            "rows": self.rows,
            "failed": self.failed,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("answers")
    parser.add_argument("--quick", action="store_true", help="without the largest batches")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("compare_torch_cuda.py: this PyTorch sees no CUDA device")
    print(json.dumps(Race(options).run()))


if __name__ == "__main__":
    main()
