"""Small real sets of sound, video and 3D, made of packages of registries.

  speech     568 prompts of a telephone system, one voice, with transcripts
  sounds     165 samples of music and effects, with descriptive names
  animated   734 moving emoji as clips, with Unicode's names
  furniture  820 things as points and as a picture, with names and size

`mmjax data fetch NAME FOLDER` gets the packages and writes

  FOLDER/items.jsonl   a line a file: what is in it, and its split
  FOLDER/audio/...     the files
  FOLDER/NOTICE.md     origin, licences, what was changed
  FOLDER/licenses/     the licence files that the packages have

`items.py` makes documents of it. Nothing of these sets is part of mmjax.
"""
