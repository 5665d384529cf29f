"""Files of 3D shapes, as vertices and triangles.

A file comes as bytes and nothing else is opened: what it names (materials,
textures, buffers elsewhere) is left out or refused. What a header promises is
compared with the bytes that are there before anything is allocated.
"""
