"""From what a program does to the time that it takes at least."""

import dataclasses
from collections.abc import Sequence

from mmjax.plan.chips import Chip
from mmjax.plan.collectives import Collective


@dataclasses.dataclass(frozen=True)
class Roofline:
  """Seconds of a run, each as if nothing else took time.

  Attributes:
    compute: of matrix products at the chip's peak.
    memory: of the traffic to main memory; None when not known.
    link: between the devices of a slice or node.
    network: between slices or nodes.
  """

  compute: float
  memory: float | None = None
  link: float | None = None
  network: float | None = None

  @property
  def seconds(self) -> float:
    """With all of it at the same time: no run is faster."""
    return max(t for t in dataclasses.astuple(self) if t is not None)

  @property
  def bound(self) -> str:
    """What takes longest."""
    times = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
    return max(times, key=times.__getitem__)


def roofline(
  chip: Chip,
  operations: float,
  traffic: int | None = None,
  talk: Sequence[Collective] | None = None,
) -> Roofline:
  """The bound of a program.

  Args:
    chip: what a device can do.
    operations: of the device that has most, those that it does twice included.
    traffic: bytes of a device's main memory.
    talk: collectives; None when not known.
  """

  def sent(between: bool) -> float:
    return sum(c.sent for c in talk if c.between == between)

  return Roofline(
    compute=operations / chip.flops,
    memory=None if traffic is None else traffic / chip.bandwidth,
    link=None if talk is None else sent(False) / chip.link,
    network=None if talk is None else sent(True) / chip.network,
  )
