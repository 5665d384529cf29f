"""Published results, to stand beside one's own.

Model to task (of `chat_tasks.CHAT_TASKS`) to score; a pair is a mean and what
it varies by. From arXiv 2304.08485 (LLaVA), 2310.03744 (LLaVA-1.5) and the
official repository (LoRA, POPE by split).
Authors report ±20 on MME between identical runs.
"""

from collections.abc import Mapping

Value = float | tuple[float, float]
_BENCH = ("conv", "detail", "complex", "all")
_SCIENCEQA = ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12")


def _bench(*values: Value) -> dict[str, Value]:
  return dict(zip(_BENCH, values, strict=True))


def _llava_15(
  vqav2: float,
  gqa: float,
  vizwiz: float,
  scienceqa: float,
  textvqa: float,
  pope: Mapping[str, float],
  mme: float,
  wild: float,
) -> dict[str, dict[str, Value]]:
  return {
    "vqav2": {"accuracy": vqav2},
    "gqa": {"accuracy": gqa},
    "vizwiz": {"accuracy": vizwiz},
    "scienceqa": {"IMG": scienceqa},
    "textvqa": {"accuracy": textvqa},
    "pope": dict(pope),
    "mme": {"perception": mme},
    "llava_bench_wild": {"all": wild},
  }


def _pope(mean: float, *splits: float) -> dict[str, float]:
  names = ("random/f1", "popular/f1", "adversarial/f1")
  return {"f1": mean} | dict(zip(names, splits))


def _step(gqa: float, mme: float) -> dict[str, dict[str, Value]]:
  return {"gqa": {"accuracy": gqa}, "mme": {"perception": mme}}


PUBLISHED: Mapping[str, Mapping[str, Mapping[str, Value]]] = {
  "LLaVA-1.5-7B": _llava_15(
    *(78.5, 62.0, 50.0, 66.8, 58.2, _pope(85.9, 87.3, 86.1, 84.2)),
    *(1510.7, 65.4),
  ),
  "LLaVA-1.5-13B": _llava_15(
    *(80.0, 63.3, 53.6, 71.6, 61.3, _pope(85.9, 87.1, 86.2, 84.5)),
    *(1531.3, 72.5),
  ),
  "LLaVA-1.5-7B-LoRA": _llava_15(
    *(79.1, 63.0, 47.8, 68.4, 58.2, _pope(86.4), 1476.9, 67.9)
  ),
  "LLaVA-1.5-13B-LoRA": _llava_15(
    *(80.0, 63.3, 58.9, 71.2, 60.2, _pope(86.7), 1541.7, 69.5)
  ),
  "LLaVA-13B": {
    "llava_bench_coco": _bench(83.1, 75.3, 96.5, 85.1),
    "llava_bench_wild": _bench(
      (57.3, 1.9), (52.5, 6.3), (81.7, 1.8), (67.3, 2.0)
    ),
    "scienceqa": {"average": 90.92}
    | dict(
      zip(
        _SCIENCEQA,
        (90.36, 95.95, 88.00, 89.49, 88.00, 90.66, 90.93, 90.90),
        strict=True,
      )
    ),
  },
  # The ablation of the data: what the instructions of stage 2 are of.
  "LLaVA-13B, detail and complex": {
    "llava_bench_coco": _bench(81.5, 73.3, 90.8, 81.9)
  },
  "LLaVA-13B, conv and a little of both": {
    "llava_bench_coco": _bench(81.0, 68.4, 91.5, 80.5)
  },
  "LLaVA-13B, conv": {"llava_bench_coco": _bench(76.5, 59.8, 84.9, 73.8)},
  "LLaVA-13B, no instructions": {
    "llava_bench_coco": _bench(22.0, 24.0, 18.5, 21.5)
  },
  # The ablations of ScienceQA.
  "LLaVA-7B": {"scienceqa": {"average": 89.84}},
  "LLaVA-13B, last layer": {"scienceqa": {"average": 89.96}},
  "LLaVA-13B, answer first": {"scienceqa": {"average": 89.77}},
  "LLaVA-13B, no pretraining": {"scienceqa": {"average": 85.81}},
  "LLaVA-13B-336-LoRA": {"llava_bench_wild": {"all": 70.1}},
  # Table 2 of LLaVA-1.5: each adds to the one before, the last is LLaVA-1.5.
  "LLaVA-7B + VQAv2": _step(47.0, 1197.0),
  "LLaVA-7B + format": _step(46.8, 1323.8),
  "LLaVA-7B + MLP": _step(47.3, 1355.2),
  "LLaVA-7B + OKVQA, OCR": _step(50.0, 1377.6),
  "LLaVA-7B + regions": _step(50.3, 1426.5),
  "LLaVA-7B + 336 pixels": _step(51.4, 1450.0),
  "LLaVA-7B + GQA": _step(62.0, 1469.2),
  "BLIP-2": {"llava_bench_wild": _bench(54.6, 29.1, 32.9, 38.1)},
  "OpenFlamingo": {"llava_bench_wild": _bench(19.3, 19.0, 19.1, 19.1)},
  "GPT-4, text only": {"scienceqa": {"average": 82.69}},
}
