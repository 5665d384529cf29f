"""Systems by the name that a config gives.

A system is a module with `build(config)`, `loss(module, params, batch)` and
`monitor(trainable)`.
"""

from mmjax.systems import contrastive, flamingo, text

SYSTEMS = {"contrastive": contrastive, "flamingo": flamingo, "text": text}
