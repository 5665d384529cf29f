"""Each system's way to write a document as token ids, slots and weights."""

from mmjax.text.prompts.base import Written
from mmjax.text.prompts.caption import Caption
from mmjax.text.prompts.chat import Chat
from mmjax.text.prompts.cued import Cued
from mmjax.text.prompts.flamingo import Flamingo
from mmjax.text.prompts.open_flamingo import OpenFlamingo

PROMPTS = {
  "caption": Caption,
  "chat": Chat,
  "cued": Cued,
  "flamingo": Flamingo,
  "open_flamingo": OpenFlamingo,
}

__all__ = [
  "PROMPTS",
  "Caption",
  "Chat",
  "Cued",
  "Flamingo",
  "OpenFlamingo",
  "Written",
]
