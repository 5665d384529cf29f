"""Where a process belongs, from variables; no other process is there."""

import os
import types

import numpy as np
import pytest

from mmjax import distributed
from mmjax.distributed import Place, find_place

TOLD = {
  "MMJAX_COORDINATOR": "node1:8476",
  "MMJAX_PROCESSES": "4",
  "MMJAX_PROCESS": "3",
}
STEP = {
  "SLURM_JOB_ID": "70000",
  "SLURM_STEP_NODELIST": "gpu[07-09,12],other",
  "SLURM_NTASKS": "8",
  "SLURM_PROCID": "5",
  "SLURM_LOCALID": "1",
  "SLURM_STEP_TASKS_PER_NODE": "2(x4)",
}


def test_alone():
  assert find_place({"PATH": "/bin"}) is None
  assert find_place({"TPU_WORKER_HOSTNAMES": "localhost"}) is None


def test_told():
  assert find_place(TOLD) == Place("node1:8476", 4, 3)
  assert find_place(TOLD | STEP) == Place("node1:8476", 4, 3)
  six = TOLD | {"MMJAX_COORDINATOR": "[::1]:80"}
  assert find_place(six) == Place("[::1]:80", 4, 3)


@pytest.mark.parametrize(
  "changes, problem",
  [
    ({"MMJAX_PROCESS": None}, "but not MMJAX_PROCESS"),
    ({"MMJAX_PROCESS": "4"}, "MMJAX_PROCESS is 4; expected 0 to 3"),
    ({"MMJAX_PROCESS": "-1"}, "MMJAX_PROCESS is -1"),
    ({"MMJAX_PROCESSES": "four"}, "MMJAX_PROCESSES is 'four'"),
    ({"MMJAX_COORDINATOR": "node1"}, "MMJAX_COORDINATOR is 'node1'"),
    ({"MMJAX_COORDINATOR": "a b:1"}, "expected host:port"),
  ],
)
def test_told_wrongly(changes, problem):
  told = {k: v for k, v in (TOLD | changes).items() if v is not None}
  with pytest.raises(ValueError, match=problem):
    find_place(told)


def test_a_misspelt_variable_is_told(caplog):
  distributed.warn_of_unknown(
    TOLD | {"MMJAX_DATA": "x", "MMJAX_PROCES": "1", "OTHER": "2"}
  )
  (record,) = caplog.records
  assert "MMJAX_PROCES means nothing here" in record.getMessage()
  assert "Did you mean 'MMJAX_PROCESS'?" in record.getMessage()


def test_proxies_are_left_out(monkeypatch, caplog):
  monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
  monkeypatch.setenv("no_proxy", "localhost")
  monkeypatch.setenv("PROXY", "kept")
  distributed._drop_proxies()
  left = {name for name in os.environ if name.lower().endswith("_proxy")}
  assert not left and os.environ["PROXY"] == "kept"
  assert "HTTPS_PROXY" in caplog.text and "proxy:3128" not in caplog.text


def test_a_step_of_slurm():
  port = 61440 + 70000 % 4096
  assert find_place(STEP) == Place(f"gpu07:{port}", 8, 5, (1,))
  assert find_place(STEP | {"SLURM_NTASKS": "1"}) is None


@pytest.mark.parametrize(
  "variables, devices",
  [
    ({"SLURM_STEP_TASKS_PER_NODE": "1(x8)"}, None),
    ({"SLURM_GPUS_ON_NODE": "8"}, (4, 5, 6, 7)),
    ({"CUDA_VISIBLE_DEVICES": "0,1"}, (1,)),
    # Each task sees only its own.
    ({"CUDA_VISIBLE_DEVICES": "3", "SLURM_GPUS_ON_NODE": "2"}, None),
  ],
)
def test_the_accelerators_of_a_task(variables, devices):
  assert find_place(STEP | variables).devices == devices


@pytest.mark.parametrize(
  "variables",
  [{"SLURM_JOB_NUM_NODES": "2"}, {"SLURM_NTASKS": "2"}],
)
def test_a_job_of_slurm_without_srun(variables):
  with pytest.raises(ValueError, match="Use srun"):
    find_place({"SLURM_JOB_ID": "1"} | variables)
  assert find_place({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1"}) is None


@pytest.mark.parametrize(
  "nodes, first",
  [
    ("a7", "a7"),
    ("a7,b1", "a7"),
    ("a[7-9]", "a7"),
    ("a[007,012],b", "a007"),
    ("rack[1-2]-ib,b", "rack1-ib"),
  ],
)
def test_the_first_node(nodes, first):
  assert distributed.first_host(nodes) == first


def mesh_of(shape, processes):
  """A mesh whose devices are shared out in their order."""
  count = int(np.prod(shape))
  devices = np.array(
    [
      types.SimpleNamespace(process_index=i * processes // count)
      for i in range(count)
    ]
  )
  return types.SimpleNamespace(
    axis_names=("data", "fsdp", "sequence", "tensor"),
    devices=devices.reshape(shape),
    shape=dict(zip(("data", "fsdp", "sequence", "tensor"), shape)),
  )


@pytest.mark.parametrize(
  "shape, processes, parts",
  [
    ((4, 1, 1, 1), 2, [(0, 2), (1, 2)]),
    ((1, 2, 1, 4), 2, [(0, 2), (1, 2)]),
    # The axis `tensor` goes over the processes: they read the same rows.
    ((1, 1, 1, 4), 2, [(0, 1), (0, 1)]),
    ((1, 2, 1, 4), 4, [(0, 2), (0, 2), (1, 2), (1, 2)]),
  ],
)
def test_which_rows_a_process_reads(shape, processes, parts, monkeypatch):
  mesh = mesh_of(shape, processes)
  for index, part in enumerate(parts):
    monkeypatch.setattr(distributed.jax, "process_index", lambda i=index: i)
    assert distributed.readers(mesh, ("data", "fsdp")) == part


def test_rows_that_processes_share_in_part():
  with pytest.raises(ValueError, match="fill whole processes"):
    distributed.readers(mesh_of((3, 1, 1, 2), 2), ("data", "fsdp"))
