"""A job as a JobSet for GKE, queued by Kueue where there is a queue.

A TPU slice is one Job of the set, GPU nodes are one Job together; every node
is a pod. Pods do not restart: a set is restarted as a whole, when all pods of
the attempt before are gone.

What restarts is decided by what does not: a pod that ends with a code of
`FINAL`, where another start is of no use, fails its Job by `podFailurePolicy`
and the set with it. After 75, 76 or an end by a signal (a preempted or dead
node, a process whose peers are gone) the Job fails by its `backoffLimit` of 0
and the set restarts, `max_restarts` times.
"""

import dataclasses
import math
import re
import subprocess
from typing import Any

import yaml

from launch.job import (
  COORDINATOR,
  DEVICES,
  FINAL,
  PORT,
  PROCESS,
  PROCESSES,
  Job,
  check_cluster_path,
  check_match,
  option,
)

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_IMAGE = re.compile(r"(?=.{1,500}$)[A-Za-z0-9][\w./:@-]*", re.ASCII)
_TOPOLOGY = re.compile(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){1,2}")
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
_CONTAINER = "train"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gke:
  """What only this target is told."""

  image: str = option(dataclasses.MISSING, "container image that has mmjax")
  accelerator: str = option(
    dataclasses.MISSING,
    "as GKE names it: tpu-v6e-slice, nvidia-h200-141gb, ...",
  )
  topology: str = option("", "of a TPU slice, such as 4x4; none for GPUs")
  slices: int = option(1, "TPU slices, which share the nodes evenly")
  queue: str = option("", "Kueue's LocalQueue; default: none, start at once")
  namespace: str = option("default", "of Kubernetes")
  claim: str = option("", "PersistentVolumeClaim that all nodes can write")
  mount: str = option("/mnt/shared", "where the claim is; the workdir is in it")
  service_account: str = option("", "of the pods")
  grace: int = option(300, "seconds to save in, once told to stop")

  def __post_init__(self):
    label = "a-z, 0-9 and -, 63 at most"
    for name, pattern, expected in (
      ("image", _IMAGE, "an image, such as us-docker.pkg.dev/me/mmjax:1"),
      ("accelerator", _LABEL, label),
      ("topology", _TOPOLOGY, "chips by axis, such as 4x4 or 4x4x8"),
      ("queue", _DOMAIN, label),
      ("namespace", _LABEL, label),
      ("claim", _DOMAIN, label),
      ("service_account", _DOMAIN, label),
    ):
      if getattr(self, name) or name in ("image", "accelerator", "namespace"):
        check_match(name, getattr(self, name), pattern, expected)
    check_cluster_path("mount", self.mount)
    if self.slices < 1 or self.grace < 1:
      raise ValueError(
        f"slices={self.slices} and grace={self.grace}, expected 1 or more."
      )


def render(job: Job, options: Gke) -> str:
  """The JobSet as YAML."""
  return yaml.safe_dump(job_set(job, options), sort_keys=False, width=79)


def submit(job: Job, options: Gke) -> int:
  """Gives the JobSet to kubectl.

  It is created, not applied: applying what is there already, finished or
  running, would do nothing and say nothing.
  """
  command = ["kubectl", "create", "-f", "-"]
  return subprocess.run(
    command, input=render(job, options), text=True
  ).returncode


def job_set(job: Job, options: Gke) -> dict[str, Any]:
  """The JobSet as a dict.

  Raises:
    ValueError: for a job whose nodes, devices and slices do not fit together,
      or whose workdir would be lost with its pod.
  """
  _check(job, options)
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": _metadata(job, options),
    "spec": {
      # The coordinator is looked for before its pod is ready.
      "network": {
        "enableDNSHostnames": True,
        "publishNotReadyAddresses": True,
      },
      "successPolicy": {"operator": "All"},
      "failurePolicy": {
        "maxRestarts": job.max_restarts,
        "restartStrategy": "BlockingRecreate",
        "rules": [
          {
            "name": "final",
            "action": "FailJobSet",
            "onJobFailureReasons": ["PodFailurePolicy"],
          },
          {"name": "again", "action": "RestartJobSet"},
        ],
      },
      "replicatedJobs": [
        {
          "name": _group(options),
          "replicas": options.slices,
          "template": {"spec": _job(job, options)},
        }
      ],
    },
  }


def _metadata(job: Job, options: Gke) -> dict[str, Any]:
  metadata: dict[str, Any] = {
    "name": job.name,
    "namespace": options.namespace,
  }
  if options.queue:
    metadata["labels"] = {"kueue.x-k8s.io/queue-name": options.queue}
  if options.topology:  # One slice is one pool of nodes, and takes it whole.
    key = "alpha.jobset.sigs.k8s.io/exclusive-topology"
    metadata["annotations"] = {key: "cloud.google.com/gke-nodepool"}
  return metadata


def _check(job: Job, options: Gke) -> None:
  if job.cpu or job.processes > 1:
    raise ValueError("gke runs one process a node, on accelerators.")
  check_cluster_path("workdir", job.workdir)
  if not options.claim:
    raise ValueError(
      "A pod's own disk is gone when it restarts: name a claim "
      "(--claim, a PersistentVolumeClaim that all nodes can write)."
    )
  root = options.mount.rstrip("/")
  if not f"{job.workdir.rstrip('/')}/".startswith(f"{root}/"):
    raise ValueError(
      f"The workdir {job.workdir} is not in {root}, where the claim "
      f"{options.claim} is; take {root}/..., or another --mount."
    )
  if not options.topology:
    if options.slices > 1:
      raise ValueError("slices are of TPUs: give their --topology too.")
    return
  chips = math.prod(map(int, options.topology.split("x")))
  wanted = chips * options.slices
  if job.nodes * job.devices != wanted:
    raise ValueError(
      f"{options.slices} slice(s) of {options.topology} have {wanted} chips, "
      f"but {job.nodes} nodes of {job.devices} devices were asked for. Count "
      "the nodes of all slices."
    )
  if job.nodes % options.slices:
    raise ValueError(
      f"{job.nodes} nodes cannot be shared by {options.slices} slices."
    )


def _group(options: Gke) -> str:
  return "slice" if options.topology else "node"


def _job(job: Job, options: Gke) -> dict[str, Any]:
  """Of one slice, or of all GPU nodes."""
  nodes = job.nodes // options.slices
  return {
    "completionMode": "Indexed",
    "parallelism": nodes,
    "completions": nodes,
    "backoffLimit": 0,
    "podFailurePolicy": {
      "rules": [
        {
          "action": "FailJob",
          "onExitCodes": {
            "containerName": _CONTAINER,
            "operator": "In",
            "values": list(FINAL),
          },
        }
      ]
    },
    "template": {"spec": _pod(job, options)},
  }


def _pod(job: Job, options: Gke) -> dict[str, Any]:
  selector = {"cloud.google.com/gke-accelerator": options.accelerator}
  device = "nvidia.com/gpu"
  if options.topology:
    selector = {
      "cloud.google.com/gke-tpu-accelerator": options.accelerator,
      "cloud.google.com/gke-tpu-topology": options.topology,
    }
    device = "google.com/tpu"
  spec: dict[str, Any] = {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": options.grace,
    "nodeSelector": selector,
  }
  if options.service_account:
    spec["serviceAccountName"] = options.service_account
  amount = {device: job.devices}
  return spec | {
    "containers": [
      {
        "name": _CONTAINER,
        "image": options.image,
        "command": [_literal(part) for part in job.command("python")],
        "env": _env(job, options),
        "resources": {"requests": amount, "limits": dict(amount)},
        "volumeMounts": [
          {"name": "shm", "mountPath": "/dev/shm"},
          {"name": "shared", "mountPath": options.mount},
        ],
      }
    ],
    "volumes": [
      # NCCL and data workers need more than a container's 64 MiB.
      {"name": "shm", "emptyDir": {"medium": "Memory"}},
      {
        "name": "shared",
        "persistentVolumeClaim": {"claimName": options.claim},
      },
    ],
  }


def _env(job: Job, options: Gke) -> list[dict[str, Any]]:
  """Variables of a pod; on TPUs GKE adds those that JAX looks for."""
  env: list[dict[str, Any]] = []
  if not options.topology and job.nodes > 1:
    host = f"{job.name}-{_group(options)}-0-0.{job.name}"
    env = [
      {"name": COORDINATOR, "value": f"{host}:{PORT}"},
      {"name": PROCESSES, "value": str(job.nodes)},
      {"name": PROCESS, "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}},
    ]
  given = job.device_env()
  if options.accelerator.startswith("tpu7x"):  # A chip is two devices.
    given = given | {DEVICES: str(2 * job.each)} | dict(job.env)
  return env + [{"name": k, "value": _literal(v)} for k, v in given.items()]


def _literal(text: str) -> str:
  """Kubernetes would put variables in for $(NAME)."""
  return text.replace("$", "$$")
