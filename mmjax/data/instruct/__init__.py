"""Instruction data from captions and boxes, by a language model that sees none.

As in "Visual Instruction Tuning" (arXiv 2304.08485), section 3: a model that
reads only text is told what is in a picture, and writes conversations,
detailed descriptions and questions that need reasoning as if it saw it.

  pictures --prompts--> requests --endpoint--> answers --journal--> JSON
"""
