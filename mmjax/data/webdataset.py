"""WebDataset's layout: members of a tar that share a key are one record.

s/1.jpg  s/1.txt  2.jpg    ->    s/1: jpg, txt    2: jpg
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from mmjax.data.tar import Member

log = logging.getLogger(__name__)

# What a member may be; others (.pkl, .pth, .npy, .py) are never read.
SUFFIXES = frozenset(
  ("avi", "cls", "flac", "gif", "jpeg", "jpg", "json", "m4a", "mkv", "mov")
  + ("mp3", "mp4", "ogg", "png", "txt", "wav", "webm", "webp")
)


# Key, its (suffix, offset, size), and why it cannot be used: a tuple, because
# there may be millions, which are sent to every worker.
Group = tuple[str, list[tuple[str, int, int]], str]


def group(members: Sequence[Member], path: str) -> list[Group]:
  """The records of a shard, in the order of their first members.

  A member with a problem makes its record bad, whatever its suffix is; one
  with an unsafe name is a bad record of its own. Other members with a suffix
  that is not read are left out, which is told.
  """
  groups: dict[str | int, list] = {}
  problems: dict[str | int, str] = {}
  unread = []
  for number, member in enumerate(members):
    key, suffix = (number, "") if member.unsafe else _split(member.name)
    if member.problem:
      groups.setdefault(key, [])
      problems.setdefault(key, problem(member, path))
    elif suffix in SUFFIXES:
      part = (suffix, member.offset, member.size)
      groups.setdefault(key, []).append(part)
    else:
      unread.append(member.name)
  if unread:
    log.warning(
      "%s: %d members are left out, such as %r. What is read has one dot in "
      "its name, and behind it one of %s.",
      *(path, len(unread), unread[0], ", ".join(sorted(SUFFIXES))),
    )
  return [
    (str(key), parts, problems.get(key, "")) for key, parts in groups.items()
  ]


def problem(member: Member, path: str) -> str:
  """What is wrong with a member, in a line that names it and its shard."""
  return f"{Path(path).name} holds {member}; only plain files are read."


def _split(name: str) -> tuple[str, str]:
  """Key and suffix: `a/1.seg.PNG` has the key `a/1`."""
  folder, _, base = name.rpartition("/")
  stem, _, suffix = base.partition(".")
  return f"{folder}/{stem}" if folder else stem, suffix.lower()
