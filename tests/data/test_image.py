import io
import resource

import numpy as np
import pytest
from PIL import Image

from mmjax.data import image
from mmjax.data.document import BadSample
from tests.data.mutations import damaged
from tests.data.pictures import encode, hostile, photo, png_bomb


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "JPEG"])
def test_decode_equals_pil(format):
  options = {"lossless": True} if format == "WEBP" else {}
  data = encode(photo(), format, **options)
  expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
  np.testing.assert_array_equal(image.decode(data), expected)
  assert image.decode(data).dtype == np.uint8


@pytest.mark.parametrize("name", sorted(hostile()))
def test_hostile_pictures_are_named_errors(name):
  with pytest.raises(BadSample, match="the_record"):
    image.decode(hostile()[name], "the_record")


@pytest.mark.parametrize("format", image.FORMATS)
def test_damaged_pictures_are_bad_samples_or_pictures(format):
  bad = 0
  for data in damaged(encode(photo(), format), 300):
    try:
      assert image.decode(data).dtype == np.uint8
    except BadSample:
      bad += 1
  assert bad > 50


def test_a_bomb_takes_no_memory():
  bomb = png_bomb(13_000, 13_000)
  assert len(bomb) < 50_000
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  with pytest.raises(BadSample, match="13000x13000"):
    image.decode(bomb)
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert after - before < 20_000  # kilobytes, of 507,000 when decoded


def test_too_many_bytes(monkeypatch):
  monkeypatch.setitem(image.MAX_BYTES, "image", 10)
  with pytest.raises(BadSample, match="cap is 10"):
    image.decode(encode(photo()))


def test_alpha_is_put_on_white():
  pixels = np.zeros((2, 2, 4), np.uint8)
  pixels[0, 0] = (255, 0, 0, 255)
  pixels[0, 1] = (0, 0, 0, 128)
  out = image.decode(encode(pixels))
  np.testing.assert_array_equal(out[0, 0], [255, 0, 0])
  np.testing.assert_array_equal(out[0, 1], [127, 127, 127])
  np.testing.assert_array_equal(out[1, 1], [255, 255, 255])


def test_other_modes():
  grey = image.decode(encode(np.full((3, 3), 77, np.uint8)))
  assert (grey == 77).all() and grey.shape == (3, 3, 3)
  deep = image.decode(encode(np.full((3, 3), 257 * 90, np.uint16)))
  assert (deep == 90).all()
  # 65535 is 255: a byte's step is 257, not 256.
  deep = image.decode(encode(np.full((3, 3), 512, np.uint16)))
  assert (deep == 1).all()
  palette = Image.fromarray(photo()).convert("P")
  data = io.BytesIO()
  palette.save(data, "PNG", transparency=0)
  assert image.decode(data.getvalue()).shape == (40, 60, 3)


def test_first_frame_of_an_animation():
  frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
  data = io.BytesIO()
  frames[0].save(data, "GIF", save_all=True, append_images=frames[1:])
  np.testing.assert_array_equal(
    image.decode(data.getvalue())[0, 0], [255, 0, 0]
  )


@pytest.mark.parametrize(
  "size", [(40, 60), (61, 40), (33, 33), (7, 50), (36, 32), (32, 36)]
)
def test_clip_val_equals_torchvisions_recipe(size):
  # Resize to an int and CenterCrop, as torchvision states them for PIL.
  pixels = photo(*size)
  height, width = size
  if width <= height:
    to = (24, int(24 * height / width))
  else:
    to = (int(24 * width / height), 24)
  reference = Image.fromarray(pixels).resize(to, Image.BICUBIC)
  left = int(round((to[0] - 24) / 2.0))
  top = int(round((to[1] - 24) / 2.0))
  expected = reference.crop((left, top, left + 24, top + 24))
  out = image.ClipVal(24)(pixels, None)
  np.testing.assert_array_equal(out, np.asarray(expected))


def test_a_thread_of_a_picture_does_not_fill_the_memory():
  with pytest.raises(BadSample, match="3000000x1"):
    image.ClipVal(224)(np.zeros((1, 3_000_000, 3), np.uint8), None)


@pytest.mark.parametrize("height, width", [(100, 160), (103, 160), (161, 100)])
def test_efficientnet_lite_crops_then_resizes(height, width):
  pixels = photo(height, width)
  side = int(min(height, width) * 64 / (64 + 32))
  top, left = (height - side + 1) // 2, (width - side + 1) // 2
  crop = Image.fromarray(pixels).crop((left, top, left + side, top + side))
  expected = np.asarray(crop.resize((64, 64), Image.BICUBIC))
  out = image.EfficientNetLite(64)(pixels, None)
  np.testing.assert_array_equal(out, expected)
  whole = image.EfficientNetLite(64, crop_padding=0)(photo(64, 64), None)
  np.testing.assert_array_equal(whole, photo(64, 64))


def test_pad_to_square_keeps_the_aspect():
  out = image.PadToSquare(32, fill=(1, 2, 3))(photo(20, 40), None)
  assert out.shape == (32, 32, 3)
  expected = image.resize(photo(20, 40), (32, 16), "bicubic")
  np.testing.assert_array_equal(out[8:24], expected)
  assert (out[:8] == [1, 2, 3]).all() and (out[24:] == [1, 2, 3]).all()
  assert image.PadToSquare(8)(photo(1, 100), None).shape == (8, 8, 3)


def test_flip_is_a_function_of_the_generator():
  flip, pixels = image.Flip(0.5), photo()
  first = [flip(pixels, np.random.default_rng(i)) for i in range(20)]
  again = [flip(pixels, np.random.default_rng(i)) for i in range(20)]
  np.testing.assert_array_equal(first, again)
  flipped = [np.array_equal(f, pixels[:, ::-1]) for f in first]
  assert 0 < sum(flipped) < 20
  np.testing.assert_array_equal(flip(pixels, None), pixels)
  rng = np.random.default_rng(0)
  np.testing.assert_array_equal(image.Flip(0.0)(pixels, rng), pixels)
  np.testing.assert_array_equal(image.Flip(1.0)(pixels, rng), pixels[:, ::-1])


@pytest.mark.parametrize("name", sorted(image.TRANSFORMS))
def test_transforms_keep_uint8(name):
  out = image.TRANSFORMS[name]()(photo(), np.random.default_rng(0))
  assert out.dtype == np.uint8 and out.shape[-1] == 3


def test_colour_is_a_function_of_the_generator():
  colour, pixels = image.Colour(), photo()
  first = [colour(pixels, np.random.default_rng(i)) for i in range(30)]
  again = [colour(pixels, np.random.default_rng(i)) for i in range(30)]
  np.testing.assert_array_equal(first, again)
  same = [np.array_equal(f, pixels) for f in first]
  assert 0 < sum(same) < 15
  np.testing.assert_array_equal(colour(pixels, None), pixels)
  other = [colour(photo(8, 8), np.random.default_rng(i)) for i in range(30)]
  assert same == [np.array_equal(f, photo(8, 8)) for f in other]


def strength(**options):
  """Colour with one change only, always done."""
  zero = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, p=1.0)
  return image.Colour(**zero | options)


def test_each_change_of_colour_changes_its_own():
  pixels = photo().astype(np.uint8) // 2 + 60
  grey = pixels @ image.GREY
  for seed in range(5):
    rng = np.random.default_rng
    same = strength()(pixels, rng(seed))
    np.testing.assert_array_equal(same, pixels)
    light = strength(brightness=0.3)(pixels, rng(seed)) / pixels
    assert light.std() < 0.01 and 0.69 < light.mean() < 1.31
    contrast = strength(contrast=0.3)(pixels, rng(seed)) @ image.GREY
    assert abs(contrast.mean() - grey.mean()) < 1
    assert 0.69 < contrast.std() / grey.std() < 1.31
    vivid = strength(saturation=0.3)(pixels, rng(seed))
    np.testing.assert_allclose(vivid @ image.GREY, grey, atol=1)
    assert not np.array_equal(vivid, pixels)


def test_hue_turns():
  red = np.full((2, 2, 3), (200, 0, 0), np.uint8)
  green = image.turn_hue(red, 1 / 3)
  np.testing.assert_allclose(green[0, 0], [0, 200, 0], atol=6)
  np.testing.assert_allclose(image.turn_hue(green, -1 / 3), red, atol=8)
  grey = np.full((2, 2, 3), 77, np.uint8)
  np.testing.assert_array_equal(image.turn_hue(grey, 0.4), grey)


@pytest.mark.parametrize("field", ["brightness", "saturation", "hue", "p"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_senseless_colours_are_refused(field, value):
  with pytest.raises(ValueError, match=field):
    image.Colour(**{field: value})


@pytest.mark.parametrize("size", [(30, 17), (17, 30), (16, 16), (1, 8)])
def test_expand_fills_the_shorter_side_as_llava_does(size):
  """`expand2square` of llava/mm_utils.py, with PIL."""
  picture = photo(*size, 1)
  height, width = picture.shape[:2]
  side = max(height, width)
  expected = Image.new("RGB", (side, side), (122, 116, 104))
  corner = ((side - width) // 2, (side - height) // 2)
  expected.paste(Image.fromarray(picture), corner)
  np.testing.assert_array_equal(image.Expand()(picture, None), expected)


def test_expand_is_not_led_to_fill_the_memory():
  thin = np.zeros((2, 9000, 3), np.uint8)
  assert image.Expand(longest=64)(thin, None).shape == (64, 64, 3)


def test_random_crops_are_large_parts_and_the_centre_without_chance():
  picture = photo(100, 160)
  crop = image.RandomCrop(32, scale=(0.5, 0.8))
  np.testing.assert_array_equal(
    crop(picture, None), image.ClipVal(32)(picture, None)
  )
  rng = np.random.default_rng(0)
  for _ in range(50):
    height, width, top, left = crop._box(100, 160, rng)
    assert 0.45 < height * width / 16_000 < 0.85
    assert 0.7 < width / height < 1.4
    assert 0 <= top <= 100 - height and 0 <= left <= 160 - width
  crops = [crop(picture, np.random.default_rng(seed)) for seed in (0, 0, 1)]
  assert all(x.shape == (32, 32, 3) for x in crops)
  np.testing.assert_array_equal(crops[0], crops[1])
  assert (crops[0] != crops[2]).any()
  # Of a strip no part is that large: the largest in the middle.
  assert crop._box(10, 1000, rng) == (10, 13, 0, 493)
  assert crop._box(1000, 1, rng) == (1, 1, 499, 0)
  for wrong in (dict(scale=(0.0, 1.0)), dict(ratio=(2.0, 1.0))):
    with pytest.raises(ValueError, match="expected 0 < a <= b"):
      image.RandomCrop(**wrong)
