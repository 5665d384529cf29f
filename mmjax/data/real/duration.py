"""How long a sound lasts, as an attribute that can be asked for."""

import io
from collections.abc import Mapping
from typing import Any

# Seconds up to which a sound is called so; longer ones are "long".
_ENDS = {"short": 0.5, "medium": 2.0}


def look(data: bytes) -> Mapping[str, Any]:
  """The seconds of a sound file, and which length that is."""
  import soundfile

  with soundfile.SoundFile(io.BytesIO(data)) as file:
    seconds = file.frames / file.samplerate
  length = next((x for x, end in _ENDS.items() if seconds <= end), "long")
  return {"seconds": round(seconds, 3), "length": length}
