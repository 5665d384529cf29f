"""A run of BLIP-2's first stage as LAVIS' file of it, without the tower."""

from pathlib import Path

from mmjax.cli.families import FAMILIES
from mmjax.cli.whole_run import config_of, only, trained_by
from mmjax.cli.writing import write_model
from mmjax.cli.x_instructblip_run import whole_qformer
from mmjax.systems import blip2


def export(run: Path, target: Path, limit: int) -> None:
  """Writes what a run's newest checkpoint holds, heads and temperature too.

  Args:
    run: directory of the run.
    target: new directory.
    limit: bytes of a file.

  Raises:
    ValueError: for a run of which a part was frozen.
  """
  model = config_of(run)["model"]
  family = FAMILIES["blip2"]
  fields = dict(
    qformer=whole_qformer(model["qformer"]),
    encoder=None,
    joint_width=blip2.build(model).joint_width,
    repeated=[],
  )
  arrays = only(family.shapes(fields), trained_by(run), run)
  write_model(target, family, fields, arrays, limit=limit)
