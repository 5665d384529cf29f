"""Language models by the name that a config gives."""

from mmjax.lms import bert, chinchilla, gpt_neox, llama, mpt, opt

LMS = {
  "chinchilla": chinchilla.chinchilla,
  "gpt_neox": gpt_neox.gpt_neox,
  "llama": llama.llama,
  "mpt": mpt.mpt,
  "opt": opt.opt,
}

# Those that turn a text into hidden states and write none.
TEXT_ENCODERS = {"bert": bert.bert, "custom_bert": bert.Bert}
