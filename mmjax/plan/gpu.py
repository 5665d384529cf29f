"""GPUs as a text that XLA's compiler takes in place of one.

The figures are those that a driver reports; see `xla/tools/hlo_opt` and
JAX's tests/deviceless_aot_test.py for the form.
"""

from mmjax.plan.chips import Chip

# Streaming multiprocessors, clock in GHz, compute capability, L2 cache bytes,
# shared memory of a block (opt-in) and of a multiprocessor.
_FACTS = {
  "a100": (108, 1.41, (8, 0), 41_943_040, 166_912, 167_936),
  "h100": (132, 1.98, (9, 0), 52_428_800, 232_448, 233_472),
  "h200": (132, 1.98, (9, 0), 52_428_800, 232_448, 233_472),
  "b200": (148, 1.965, (10, 0), 132_644_864, 232_448, 233_472),
}


def description(chip: Chip) -> str:
  """The target of a GPU as a text proto."""
  cores, clock, (major, minor), cache, block, core = _FACTS[chip.name]
  return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {block}
  shared_memory_per_core: {core}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {64 if major == 8 else 128}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {int(chip.bandwidth)}
  l2_cache_size: {cache}
  clock_rate_ghz: {clock}
  device_memory_size: {int(chip.memory)}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  cuda_compute_capability {{ major: {major} minor: {minor} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "NVIDIA {chip.name.upper()}"
"""
