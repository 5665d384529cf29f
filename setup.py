"""Installs mmjax; `pip install -e .` for development."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def requirements(name: str) -> list[str]:
  lines = (HERE / name).read_text().splitlines()
  return [x for x in map(str.strip, lines) if x and x[0] not in "#-"]


setup(
  name="mmjax",
  version="0.1.0",
  description="Six multimodal systems in JAX/Flax on one set of shared parts",
  long_description=(HERE / "README.md").read_text(),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=find_packages(
    include=["mmjax", "mmjax.*", "configs", "configs.*", "launch"]
  ),
  package_data={
    "mmjax": ["data/assets/**/*", "evaluation/assets/*", "text/assets/*"]
  },
  install_requires=requirements("requirements.txt"),
  extras_require={
    "test": requirements("requirements-test.txt"),
    "tpu": requirements("requirements-tpu.txt"),
    "cuda": requirements("requirements-cuda.txt"),
  },
  entry_points={"console_scripts": ["mmjax=mmjax.cli.main:main"]},
)
