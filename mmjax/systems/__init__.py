"""Systems by the name that a config gives.

A system is a module with `build(config)`, `loss(module, params, batch)` and
`monitor(trainable)`.
"""

from mmjax.systems import contrastive, flamingo, llava, text

SYSTEMS = {
  "contrastive": contrastive,
  "flamingo": flamingo,
  "llava": llava,
  "text": text,
}
