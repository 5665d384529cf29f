"""What libtpu decides is read before it makes machine code."""

import dataclasses
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.data.build import plain
from mmjax.plan import (
  collectives,
  compiling,
  hlo,
  planning,
  program,
  topology,
  traffic,
)
from mmjax.plan.chips import GIB
from mmjax.plan.memory import refused, reported
from mmjax.plan.topology import parse
from mmjax.sharding import make_mesh
from tests.training.child import tiny

SLICE = parse("v5e:2x2")
needs_libtpu = pytest.mark.skipif(
  not topology.installed("libtpu"),
  reason="needs libtpu: requirements-tpu.txt",
)
needs_cuda = pytest.mark.skipif(
  not topology.installed("jax_cuda12_plugin")
  and not topology.installed("jax_cuda13_plugin"),
  reason="needs JAX's CUDA plugin: requirements-cuda.txt",
)


def config(batch=8) -> dict:
  made = plain(tiny(2)) | {"mesh": dict(data=1, fsdp=2, sequence=1, tensor=2)}
  for entry in made["data"]["datasets"].values():
    entry["batch"] = batch
  return made


def job_of(made):
  """On the devices of SLICE; on abstract ones where there is no libtpu."""
  if topology.installed("libtpu"):
    return program.make_job(made, make_mesh(made["mesh"], SLICE.devices()))
  return program.make_job(made, planning._abstract_mesh(made, SLICE))


def apart(made, finishes=False, **changes):
  (step,) = job_of(made).training()
  step = dataclasses.replace(step, **changes)
  asked = dict(generates=False, finishes=finishes)
  return compiling.compile_apart(made, SLICE, step, **asked)


def here(made):
  job = job_of(made)
  (step,) = job.training()
  return compiling.compile_here(step, job.mesh, SLICE)


@pytest.mark.heavy
@pytest.mark.long
@needs_libtpu
def test_it_is_what_the_whole_compilation_decides():
  early, late = apart(config()), apart(config(), finishes=True)
  assert early.text == late.text and early.memory == late.memory
  whole = here(config())
  ours, theirs = hlo.parse(early.text), hlo.parse(whole.text)
  assert traffic.memory_traffic(ours) == traffic.memory_traffic(theirs)
  shape = config()["mesh"]
  found = collectives.collectives(ours, shape)
  assert found and found == collectives.collectives(theirs, shape)
  assert early.memory.arguments == whole.memory.arguments
  assert early.memory.limit == whole.memory.limit == 15.75 * GIB


@pytest.mark.heavy
@pytest.mark.long
@needs_libtpu
@pytest.mark.parametrize("batch", [9 * 2**12, 2**17])
def test_what_is_too_large_is_told_as_libtpu_tells_it(batch):
  """Its own refusal names the same two figures."""
  memory = apart(config(batch)).memory
  assert not memory.fits
  with pytest.raises(jax.errors.JaxRuntimeError) as told:
    here(config(batch))
  assert f"({memory.peak / GIB:.2f}G)" in str(told.value)
  assert "(15.75G)" in str(told.value)
  assert apart(config(batch), finishes=True).memory == memory


@pytest.mark.parametrize(
  ("name", "options"), [("h200:1", compiling.UNTIMED), ("v5e:2x2", None)]
)
def test_kernels_are_not_timed_on_a_gpu_that_is_not_there(name, options):
  asked = []
  sizes = types.SimpleNamespace(
    argument_size_in_bytes=1,
    temp_size_in_bytes=1,
    output_size_in_bytes=1,
    alias_size_in_bytes=1,
    peak_memory_in_bytes=1,
  )
  made = types.SimpleNamespace(
    memory_analysis=lambda: sizes, as_text=lambda: "HloModule"
  )
  lowered = types.SimpleNamespace(
    compile=lambda compiler_options: asked.append(compiler_options) or made
  )
  step = types.SimpleNamespace(lower=lambda: lowered)
  mesh = make_mesh(dict(data=1, fsdp=1, sequence=1, tensor=1))
  found = compiling.compile_here(step, mesh, parse(name))
  assert found.text == "HloModule" and asked == [options]


@needs_cuda
def test_products_for_a_gpu_are_cublas():
  machine = parse("h200:8")
  mesh = make_mesh(
    dict(data=1, fsdp=8, sequence=1, tensor=1), machine.devices()
  )
  whole = NamedSharding(mesh, PartitionSpec())
  x, y = (
    jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=whole)
    for shape in ((8 * 257, 768), (768, 1408))
  )
  step = types.SimpleNamespace(lower=lambda: jax.jit(jnp.dot).lower(x, y))
  assert "cublas" in compiling.compile_here(step, mesh, machine).text


@needs_libtpu
def test_what_ends_the_compiler_is_told():
  with pytest.raises(
    compiling.CompilerError, match="refuses the program 'nothing'"
  ):
    apart(config(), name="nothing")


@pytest.mark.parametrize(
  "code,says",
  [
    # As libtpu dies of an error of its own.
    ("import os; os.write(2, b'Check failed'); os.abort()", "Check failed"),
    ("print('that is all')", "that is all"),
  ],
)
def test_a_compiler_that_leaves_nothing(monkeypatch, tmp_path, code, says):
  stand_in = tmp_path / "python"
  stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
  stand_in.chmod(0o755)
  monkeypatch.setattr(sys, "executable", str(stand_in))
  with pytest.raises(
    compiling.CompilerError, match=f"(died|no dump).*requirements-tpu.*{says}"
  ):
    apart(config())


def writes_a_dump(monkeypatch, tmp_path, then: str) -> None:
  """Puts a program in Python's place that leaves a dump, and does `then`."""
  stand_in = tmp_path / "python"
  files = {
    "after_optimizations_after_buffer_assignment": TEXT,
    "after_optimizations-memory-usage-report": REPORT,
    "after_optimizations-buffer-assignment": ASSIGNMENT,
  }
  copies = []
  for name, content in files.items():
    (tmp_path / name).write_text(content)
    copies.append(f"cp {tmp_path}/{name} m.{name}.txt")
  lines = ["#!/bin/sh", f"echo $$ > {tmp_path}/pid", "cd $3"]
  stand_in.write_text("\n".join([*lines, *reversed(copies), then, ""]))
  stand_in.chmod(0o755)
  monkeypatch.setattr(sys, "executable", str(stand_in))


def test_no_process_is_left(monkeypatch, tmp_path):
  """It is ended as soon as the dump is whole, also when it would go on."""
  writes_a_dump(monkeypatch, tmp_path, "exec sleep 600")
  found = apart(config())
  assert found.seconds < 60 and found.memory.peak == 3000
  with pytest.raises(ProcessLookupError):
    os.kill(int((tmp_path / "pid").read_text()), 0)


def test_machine_code_that_cannot_be_made(monkeypatch, tmp_path):
  """What was decided before does not hide that the compiler died."""
  writes_a_dump(monkeypatch, tmp_path, "echo it is over; kill -ABRT $$")
  with pytest.raises(compiling.CompilerError, match="died of.*it is over"):
    apart(config(), finishes=True)


def test_the_compiler_ends_with_who_asked():
  """A plan that is killed leaves nobody behind that compiles for minutes."""
  code = "import os; p = {}; from mmjax.plan.optimise import end_without as f"
  code += "; f(p)"
  waits = f"{sys.executable} -c '{code.format('os.getppid()')}' & echo $!; wait"
  asks = subprocess.Popen(["sh", "-c", waits], stdout=subprocess.PIPE)
  child = int(asks.stdout.readline())
  time.sleep(5)
  os.kill(child, 0)  # It is there while who asked is.
  asks.kill()
  asks.wait()
  soon = time.monotonic() + 30
  while Path(f"/proc/{child}").exists():
    assert time.monotonic() < soon
    time.sleep(0.1)
  other = [sys.executable, "-c", code.format(os.getppid())]
  assert subprocess.run(other, timeout=60).returncode == 1


# The second line of the entry is one of a kernel's attributes.
TEXT = (
  "HloModule m\n\n%a (p: f32[]) -> f32[] {\n}\n\n"
  "ENTRY %b {\n  x\n}}, metadata={}\n  y\n}\n"
)
REPORT = """Memory Space: default (color=0)
Total bytes: 3000 (2.9KiB)
  cumulative_size;       size;       offset; used_by_n_values; shapes_list
Memory Space: vmem (color=1)
Total bytes: 7 (7B)
"""
ASSIGNMENT = """BufferAssignment:
allocation 0: size 32, thread-local:
allocation 1: size 512, parameter 9, shape |f32[8]| at ShapeIndex {}, maybe-live-out:
 value: <10529 param.25 @0> (size=33554432,offset=0): bf16[32]{0}
allocation 2: size 500, parameter 10, shape |f32[8]| at ShapeIndex {}:
allocation 3: size 1988, preallocated-temp:
allocation 4: size 7, color 1, preallocated-temp:
"""  # noqa: E501


def test_a_report():
  found = reported(REPORT, ASSIGNMENT, 3000)
  assert (found.arguments, found.temporaries) == (1012, 1988)
  assert found.peak == 3000 and found.fits and found.compiled
  assert not reported(REPORT, ASSIGNMENT, 2999).fits


def test_a_refusal():
  said = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
    "for HLO temporaries (77.36G) exceeds available HBM (15.75G)."
  )
  found = refused(said, 2**30)
  assert not found.fits and found.limit == 15.75 * GIB
  assert found.peak == int(77.36 * GIB)
  assert found.arguments + found.temporaries == found.peak
  assert refused("INTERNAL: something else", 2**30) is None


def test_a_dump_that_is_still_written(tmp_path):
  file = tmp_path / "m.after_optimizations_after_buffer_assignment.txt"
  assert not compiling._whole(tmp_path)
  for end in range(len(TEXT)):
    file.write_text(TEXT[:end])
    assert not compiling._whole(tmp_path)
  file.write_text(TEXT)
  assert compiling._whole(tmp_path)


@pytest.mark.heavy
@needs_libtpu
def test_two_plans_at_a_time(tmp_path):
  path = tmp_path / "tiny.json"
  path.write_text(json.dumps(config()))
  command = [sys.executable, "-m", "mmjax.cli.main", "plan", "--config"]
  command += [str(path), "--topology", SLICE.name]
  both = [
    subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for _ in range(2)
  ]
  for process in both:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "train: fits" in said


@pytest.mark.heavy
@pytest.mark.long
@needs_libtpu
def test_depth_makes_no_larger_program():
  """Ten times the layers are the same scan."""

  def lines(layers):
    made = config()
    made["model"]["lm"]["num_layers"] = layers
    made["model"]["xattn"]["every"] = 4
    return len(apart(made).text.splitlines())

  assert lines(80) <= 1.02 * lines(8)


def test_the_memory_of_a_chip_is_not_all_for_programs():
  for name, usable in dict(v5e=15.75, v4=30.75, v5p=95.74).items():
    chip = topology.CHIPS[name]
    assert chip.usable == usable * GIB
  small = dataclasses.replace(SLICE.chip, usable=10.0)
  assert not planning.estimate_memory(
    config(), dataclasses.replace(SLICE, chip=small)
  ).fits
