"""Language models by the name that a config gives."""

from mmjax.lms.bert import Bert, bert
from mmjax.lms.chinchilla import chinchilla
from mmjax.lms.gpt_neox import gpt_neox
from mmjax.lms.llama import llama
from mmjax.lms.mpt import mpt
from mmjax.lms.opt import opt

LMS = {
  "chinchilla": chinchilla,
  "gpt_neox": gpt_neox,
  "llama": llama,
  "mpt": mpt,
  "opt": opt,
}

# Those that turn a text into hidden states and write none.
TEXT_ENCODERS = {"bert": bert, "custom_bert": Bert}
