"""Array aliases, the alphabet of dimensions, and the structs all parts share.

One letter means one thing everywhere, in annotations and in einsums:

  B batch          L sequence        S keys of an attention
  D LM width       E encoder width   F hidden width of an MLP
  N heads          K key/value heads H size of a head
  M media per example   T frames per medium   P tokens per frame
  Q queries (latents) that stand for one medium      V vocabulary
  C channels       R rank of a low-rank update

`height` and `width` of images are spelled out. `axis` speaks of the mesh,
`dim` of tensors.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt8

__all__ = [
  "Array",
  "Batch",
  "Bool",
  "Float",
  "Int",
  "Output",
  "Params",
  "PyTree",
  "UInt8",
]

PyTree: TypeAlias = Any
Params: TypeAlias = Mapping[str, Any]

# A batch is a plain dict of arrays:
#   tokens     Int   [B L]  ids, 0 where segments is 0
#   targets    Int   [B L]  the id to predict at each place
#   weights    Float [B L]  weight of that prediction in the loss
#   positions  Int   [B L]  position inside the segment, from 0
#   segments   Int   [B L]  1, 2, ... for packed documents; 0 is padding
#   key               the step's own, for what is left out by chance (dropout);
#                     none where nothing is trained
#   media      {kind: {...}}; an image is one frame, and so is a cloud; frames
#              of a sound are its segments:
#     values     UInt8 [B M T height width C], Float [B M T samples] or
#                Float [B M T points 3], or
#     keys       Int   [B M]  rows of a table of features; -1 is none, or
#     features   Float [B M T P E], what a frozen encoder made of the values
#     lengths    Int   [B M T]  samples that are real; of sounds alone
#     text       Int   [B M L]  what the connector reads with it, 0 is padding;
#                 only where it reads an instruction
#     ids        Int   [B M]  which image it is, where several rows may show one
#     mask       Bool  [B M T]  False where a slot holds no frame
#     index      Int   [B L]  the medium, 1..M, that each token may see
#                 (Flamingo) or whose token it stands for; 0 is none
Batch: TypeAlias = Mapping[str, Any]


@struct.dataclass
class Output:
  """What a system returns for a batch.

  Attributes:
    logits: next-token scores, float32.
    aux: further outputs of a system by name (boxes, embeddings, ...).
  """

  logits: Float[Array, "B L V"]
  aux: Mapping[str, Array] = struct.field(default_factory=dict)
