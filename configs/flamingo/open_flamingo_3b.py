"""OpenFlamingo-3B as it was released, to ask, evaluate or train on.

  mmjax convert checkpoint.pt $MMJAX_DATA/open_flamingo_3b --to jax \\
    --family open_flamingo
  mmjax generate --config configs/flamingo/open_flamingo_3b.py \\
    --workdir runs/of3b --image kite.png --prompt "Output:"

beside the language model, the vision tower and the tokenizer, of which
open_flamingo.py says where they lie. Other sizes are the same line.
"""

from configs.flamingo import common, open_flamingo


def get_config():
  return open_flamingo.released("3B", common.local("open_flamingo_3b"))
