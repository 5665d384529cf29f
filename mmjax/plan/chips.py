"""What accelerators can do, from their makers' data sheets.

Everything is of one JAX device, in FLOP/s, bytes and bytes/s. Bandwidths
between devices are one way and of all links together, half of the
"bidirectional" figure of the sheets, so a time computed from them is a bound
that no program beats.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device.

  Attributes:
    name: as topologies write it, "v5e".
    platform: "tpu" or "cuda".
    flops: peak of bfloat16 products.
    memory: bytes that its sheet promises.
    usable: bytes that a program can have. Of TPUs, what libtpu names when it
      refuses one; of GPUs, without what the driver, cuDNN and NCCL keep.
    bandwidth: of the memory.
    link: to the other devices of its slice (ICI) or node (NVLink).
    network: to other slices or nodes, its share of the host's.
    dims: of its slices' topologies, 2 or 3; 0 where all reach all.
    per_host: devices of a host.
    options: that the compiler needs to see it as one device.
    guessed: figures that no sheet gives.
  """

  name: str
  platform: str
  flops: float
  memory: float
  usable: float
  bandwidth: float
  link: float
  network: float
  dims: int = 0
  per_host: int = 8
  options: tuple[tuple[str, str], ...] = ()
  guessed: tuple[str, ...] = ()


GIB = 2.0**30
_MEGACORE = (("chip_config_name", "megacore"),)

# Of a GPU's memory.
_MOST = 0.92

# Cloud TPU's pages "TPU v4" ... "TPU7x" (2026-06), and NVIDIA's data sheets.
CHIPS = {
  chip.name: chip
  for chip in (
    Chip(
      *("v4", "tpu", 275e12, 32 * GIB, 30.75 * GIB),
      *(1.228e12, 300e9, 6.25e9, 3, 4),
      options=_MEGACORE,
      guessed=("network",),
    ),
    Chip(
      *("v5e", "tpu", 197e12, 16 * GIB, 15.75 * GIB),
      *(0.819e12, 200e9, 3.125e9, 2, 4),
    ),
    Chip(
      *("v5p", "tpu", 459e12, 95 * GIB, 95.74 * GIB),
      *(2.765e12, 600e9, 6.25e9, 3, 4),
    ),
    Chip(
      *("v6e", "tpu", 918e12, 32 * GIB, 31.25 * GIB),
      *(1.638e12, 400e9, 12.5e9, 2, 4),
    ),
    # Two devices a chip, which share its links.
    Chip(
      *("tpu7x", "tpu", 1153.5e12, 96 * GIB, 94.75 * GIB),
      *(3.69e12, 300e9, 6.25e9, 3, 8),
      guessed=("network",),
    ),
    Chip("a100", "cuda", 312e12, 80e9, _MOST * 80e9, 2.039e12, 300e9, 25e9),
    Chip("h100", "cuda", 989e12, 80e9, _MOST * 80e9, 3.35e12, 450e9, 50e9),
    Chip("h200", "cuda", 989e12, 141e9, _MOST * 141e9, 4.8e12, 450e9, 50e9),
    Chip("b200", "cuda", 2250e12, 180e9, _MOST * 180e9, 8.0e12, 900e9, 50e9),
  )
}
