"""The JobSet: valid by its own schema, and what is in it is only data."""

import copy
import functools
import re

import jsonschema
import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import (
  JobsetV1alpha2JobSet,
)

from launch import gke
from launch.gke import Gke
from launch.job import CONTRACT, Job
from tests.launch.test_slurm import HOSTILE

# Of config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml in JobSet and of
# batch/v1 in Kubernetes, whose Python models do not list them.
ALLOWED = {
  "action": {"FailJobSet", "RestartJobSet", "FailJob"},
  "operator": {"All", "Any", "In", "NotIn"},
  "restartStrategy": {"Recreate", "BlockingRecreate"},
  "completionMode": {"Indexed"},
  "restartPolicy": {"Never"},
}


@functools.cache
def schema() -> jsonschema.Draft202012Validator:
  """The JobSet project's API, with no field that it does not name.

  From its OpenAPI description, as generated into the models of the package
  kubeflow-trainer-api (Apache-2.0), with all of Kubernetes' Job and Pod.
  """
  made = JobsetV1alpha2JobSet.model_json_schema()
  for name, part in (("", made), *made["$defs"].items()):
    if name.endswith("ResourceQuantity"):  # A wrapper, in Python only.
      part.clear()
      part["type"] = ["string", "number"]
    if "properties" in part:
      part["additionalProperties"] = False
  jsonschema.Draft202012Validator.check_schema(made)
  return jsonschema.Draft202012Validator(made)


def job(**fields) -> Job:
  given = {"config": "configs/a.py", "workdir": "/mnt/shared/run"}
  return Job(**(given | {"nodes": 4, "devices": 8, "name": "demo"} | fields))


def gpus(**fields) -> Gke:
  given = {"image": "me/mmjax:1", "accelerator": "nvidia-h200-141gb"}
  return Gke(**(given | {"claim": "shared"} | fields))


def tpus(**fields) -> Gke:
  given = {"accelerator": "tpu-v6e-slice", "topology": "4x4"}
  return gpus(**(given | fields))


def read(job: Job, options: Gke) -> dict:
  """What Kubernetes reads, valid by the schema."""
  found = yaml.safe_load(gke.render(job, options))
  schema().validate(found)
  return found


def pod_of(found: dict) -> dict:
  (group,) = found["spec"]["replicatedJobs"]
  return group["template"]["spec"]["template"]["spec"]


def values(node, key: str):
  """All values of a key, at any depth."""
  if isinstance(node, dict):
    for name, value in node.items():
      if name == key:
        yield value
      yield from values(value, key)
  elif isinstance(node, list):
    for item in node:
      yield from values(item, key)


CASES = {
  "gpus": (job(), gpus()),
  "one node": (job(nodes=1), gpus(queue="team", service_account="runner")),
  "one slice": (job(nodes=4, devices=4), tpus(queue="team")),
  "slices": (job(nodes=8, devices=4), tpus(slices=2, namespace="train")),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_job_set_is_valid(case):
  found = read(*case)
  assert found["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
  for key, allowed in ALLOWED.items():
    assert set(values(found, key)) <= allowed, key


def test_the_schema_finds_mistakes():
  right = read(*CASES["gpus"])
  for change in (
    lambda x: x["spec"]["failurePolicy"].update(maxRestart=1),
    lambda x: x["spec"]["failurePolicy"].update(maxRestarts="many"),
    lambda x: x["spec"]["failurePolicy"]["rules"][0].pop("action"),
    lambda x: pod_of(x).update(restartpolicy="Never"),
    lambda x: pod_of(x)["containers"][0].update(command="python"),
  ):
    wrong = copy.deepcopy(right)
    change(wrong)
    with pytest.raises(jsonschema.ValidationError):
      schema().validate(wrong)


def test_what_restarts():
  spec = read(job(max_restarts=3), gpus())["spec"]
  assert spec["successPolicy"] == {"operator": "All"}
  policy = spec["failurePolicy"]
  assert policy["maxRestarts"] == 3
  first, second = policy["rules"]
  assert first["action"] == "FailJobSet"
  assert first["onJobFailureReasons"] == ["PodFailurePolicy"]
  assert second["action"] == "RestartJobSet"
  (group,) = spec["replicatedJobs"]
  inner = group["template"]["spec"]
  assert inner["backoffLimit"] == 0
  (rule,) = inner["podFailurePolicy"]["rules"]
  assert rule["action"] == "FailJob"
  assert rule["onExitCodes"]["values"] == [1, 2, 126, 127, 130]
  container = pod_of({"spec": spec})["containers"][0]
  assert rule["onExitCodes"]["containerName"] == container["name"]


def test_gpu_nodes_are_told_their_places():
  found = read(*CASES["gpus"])
  (group,) = found["spec"]["replicatedJobs"]
  inner = group["template"]["spec"]
  assert (inner["parallelism"], inner["completions"]) == (4, 4)
  assert inner["completionMode"] == "Indexed"
  pod = pod_of(found)
  env = {item["name"]: item for item in pod["containers"][0]["env"]}
  # <set>-<group>-<job>-<pod>.<set>, the name that JobSet gives a pod.
  assert env[CONTRACT[0]]["value"] == "demo-node-0-0.demo:8476"
  assert env[CONTRACT[1]]["value"] == "4"
  path = env[CONTRACT[2]]["valueFrom"]["fieldRef"]["fieldPath"]
  assert "batch.kubernetes.io/job-completion-index" in path
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-accelerator": "nvidia-h200-141gb"
  }
  assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 8}
  assert found["spec"]["network"]["publishNotReadyAddresses"]


def test_one_gpu_node_is_alone():
  env = pod_of(read(*CASES["one node"]))["containers"][0]["env"]
  assert not set(CONTRACT) & {item["name"] for item in env}


def test_tpu_slices_are_jobs():
  found = read(*CASES["slices"])
  (group,) = found["spec"]["replicatedJobs"]
  assert group["replicas"] == 2
  assert group["template"]["spec"]["parallelism"] == 4
  pod = pod_of(found)
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
    "cloud.google.com/gke-tpu-topology": "4x4",
  }
  assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
  # GKE says the rest itself.
  devices = {"name": "MMJAX_DEVICES", "value": "4"}
  assert pod["containers"][0]["env"] == [devices]
  exclusive = found["metadata"]["annotations"]
  assert list(exclusive.values()) == ["cloud.google.com/gke-nodepool"]


def test_a_chip_of_two_devices():
  options = tpus(accelerator="tpu7x", topology="2x2x1")
  pod = pod_of(read(job(nodes=1, devices=4), options))
  devices = {"name": "MMJAX_DEVICES", "value": "8"}
  assert pod["containers"][0]["env"] == [devices]
  assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}


def test_a_queue_is_a_label():
  labels = read(*CASES["one slice"])["metadata"]["labels"]
  assert labels == {"kueue.x-k8s.io/queue-name": "team"}
  assert "labels" not in read(*CASES["gpus"])["metadata"]


def test_a_pod_may_save_and_share():
  pod = pod_of(read(job(), gpus(grace=120, mount="/mnt/shared/")))
  assert pod["terminationGracePeriodSeconds"] == 120
  assert pod["restartPolicy"] == "Never"
  shm, shared = pod["volumes"]
  assert shm["emptyDir"] == {"medium": "Memory"}
  assert shared["persistentVolumeClaim"] == {"claimName": "shared"}
  mounts = pod["containers"][0]["volumeMounts"]
  assert [m["mountPath"] for m in mounts] == ["/dev/shm", "/mnt/shared/"]


@pytest.mark.parametrize(
  "value",
  [*HOSTILE, "$(MMJAX_PROCESS)", "$$(A)", "no", "1e3", "a: b", "- x", "&a *a"],
)
def test_nothing_breaks_out_of_the_yaml(value):
  made = job(config=value, changes=(f"key={value}",), env={"HOSTILE": value})
  (container,) = pod_of(read(made, gpus()))["containers"]
  given = [part.replace("$$", "$") for part in container["command"]]
  assert given == made.command("python")
  (env,) = (e for e in container["env"] if e["name"] == "HOSTILE")
  assert env["value"].replace("$$", "$") == value
  # Kubernetes would put a variable in for a single $ before a parenthesis.
  texts = (*container["command"], env["value"])
  assert not [x for x in texts if re.search(r"(?<!\$)(\$\$)*\$(?!\$)", x)]


@pytest.mark.parametrize(
  "fields, options, message",
  [
    ({}, {"claim": ""}, "name a claim"),
    ({"workdir": "/home/me/run"}, {}, "is not in /mnt/shared"),
    ({"workdir": "/mnt/shared2/run"}, {}, "is not in /mnt/shared"),
    ({"workdir": "run"}, {}, "an absolute path"),
    ({"processes": 2}, {}, "one process a node"),
    ({"cpu": True}, {}, "one process a node"),
    ({}, {"slices": 2}, "slices are of TPUs"),
    ({}, {"topology": "4x4"}, "have 16 chips, but 4 nodes of 8"),
    ({"nodes": 2}, {"topology": "4x4", "slices": 2}, "have 32 chips"),
    (
      {"nodes": 1, "devices": 32},
      {"topology": "4x4", "slices": 2},
      "be shared",
    ),
    ({}, {"topology": "4by4"}, "topology is"),
    ({}, {"topology": "4x0"}, "topology is"),
    ({}, {"image": "a b"}, "image is"),
    ({}, {"image": "-x"}, "image is"),
    ({}, {"accelerator": "H200"}, "accelerator is"),
    ({}, {"queue": "a\nb"}, "queue is"),
    ({}, {"namespace": "kube/system"}, "namespace is"),
    ({}, {"namespace": ""}, "namespace is"),
    ({}, {"claim": "A"}, "claim is"),
    ({}, {"mount": "shared"}, "mount is"),
    ({}, {"service_account": "a b"}, "service_account is"),
    ({}, {"slices": 0}, "slices=0"),
    ({}, {"grace": 0}, "grace=0"),
  ],
)
def test_what_is_refused(fields, options, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    gke.render(job(**fields), gpus(**options))


def test_kubectl_gets_the_job_set(tmp_path, monkeypatch):
  kubectl = tmp_path / "kubectl"
  kubectl.write_text('#!/bin/bash\necho "$@" > "$NOTED"; cat >> "$NOTED"\n')
  kubectl.chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
  monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
  assert gke.submit(job(), gpus()) == 0
  first, rest = (tmp_path / "noted").read_text().split("\n", 1)
  assert first == "create -f -"
  assert rest == gke.render(job(), gpus())
