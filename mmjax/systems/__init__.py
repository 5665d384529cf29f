"""Systems by the name that a config gives.

A system is a module with `build(config)`, `loss(module, params, batch)` and
`monitor(trainable)`.
"""

from mmjax.systems import (
  blip2,
  contrastive,
  flamingo,
  llava,
  text,
  x_instructblip,
)

SYSTEMS = {
  "blip2": blip2,
  "contrastive": contrastive,
  "flamingo": flamingo,
  "llava": llava,
  "text": text,
  "x_instructblip": x_instructblip,
}
