"""All sets that can be fetched, by name."""

from mmjax.data.real.animated import ANIMATED
from mmjax.data.real.furniture import FURNITURE
from mmjax.data.real.item import RealSet
from mmjax.data.real.sounds import SOUNDS
from mmjax.data.real.speech import SPEECH

SETS: dict[str, RealSet] = {
  "speech": SPEECH,
  "sounds": SOUNDS,
  "animated": ANIMATED,
  "furniture": FURNITURE,
}
