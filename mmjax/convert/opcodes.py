"""A small machine for the opcodes with which PyTorch writes a state dict.

It knows numbers, text, tuples, lists, dicts, tensors and their storages. It
imports nothing and calls nothing: a global is a name looked up in two tables,
and one that is not there ends the reading. The classes of a TorchScript archive
are no exception: their code is in the archive, and an object of one is read as
the dict of its attributes. `pickletools` only parses.
"""

import dataclasses
import io
import math
import mmap
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

STORAGES: Mapping[str, np.dtype] = {
  f"torch {name}Storage": np.dtype(dtype)
  for name, dtype in {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
  }.items()
}
# Elements of a tensor; 2^48 numbers are more than any file holds.
_LARGEST = 2**48


class RefusedFile(ValueError):
  """A file that is damaged, or asks for more than tensors."""


@dataclasses.dataclass(frozen=True)
class Storage:
  """A run of `count` numbers that the file holds under `key`."""

  key: str
  dtype: np.dtype
  count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A strided view of a storage; strides and offset count elements."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class Module(dict):
  """An object of a TorchScript class: its attributes by name."""


@dataclasses.dataclass(frozen=True)
class _Global:
  name: str


def run(file: io.BytesIO | mmap.mmap) -> Any:
  """Executes one program, up to its STOP, and returns what it built.

  Raises:
    RefusedFile: for a global or an opcode that no state dict needs, and for a
      program that is cut or malformed.
  """
  machine = _Machine()
  try:
    for opcode, argument, _ in pickletools.genops(file):
      machine.step(opcode.name, argument)
    return machine.stack.pop()
  except RefusedFile:
    raise
  except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
    raise RefusedFile(f"its program is damaged: {error!r:.200}") from error


# What an opcode pushes: its own argument, or something new.
_ARGUMENT = frozenset(
  {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "LONG4",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
  }
)
_CONSTANT: Mapping[str, Callable[[], Any]] = {
  "NONE": lambda: None,
  "NEWTRUE": lambda: True,
  "NEWFALSE": lambda: False,
  "EMPTY_TUPLE": tuple,
  "EMPTY_LIST": list,
  "EMPTY_DICT": dict,
}
_SHORT_TUPLE = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = frozenset({"PROTO", "FRAME", "STOP"})


class _Machine:
  """Stack, marks and memo of one program."""

  def __init__(self):
    self.stack: list[Any] = []
    self.marks: list[list[Any]] = []
    self.memo: dict[int, Any] = {}

  def step(self, name: str, argument: Any) -> None:
    if name in _ARGUMENT:
      self.stack.append(argument)
    elif name in _CONSTANT:
      self.stack.append(_CONSTANT[name]())
    elif name in _SHORT_TUPLE:
      self.stack.append(tuple(self._pop(_SHORT_TUPLE[name])))
    elif name in _ACTIONS:
      _ACTIONS[name](self, argument)
    elif name not in _NOTHING:
      raise RefusedFile(f"its program uses {name}, which no state dict needs")

  def _pop(self, count: int) -> list[Any]:
    if len(self.stack) < count:
      raise RefusedFile("its program takes more than it has put down")
    taken = self.stack[len(self.stack) - count :]
    del self.stack[len(self.stack) - count :]
    return taken

  def _mark(self, _):
    self.marks.append(self.stack)
    self.stack = []

  def _since_mark(self) -> list[Any]:
    items, self.stack = self.stack, self.marks.pop()
    return items

  def _put(self, index):
    self.memo[index] = self.stack[-1]

  def _memoize(self, _):
    self.memo[len(self.memo)] = self.stack[-1]

  def _get(self, index):
    self.stack.append(self.memo[index])

  def _tuple(self, _):
    items = self._since_mark()
    self.stack.append(tuple(items))

  def _append(self, _):
    (item,) = self._pop(1)
    _of(list, self.stack[-1]).append(item)

  def _appends(self, _):
    items = self._since_mark()
    _of(list, self.stack[-1]).extend(items)

  def _setitem(self, _):
    pair = self._pop(2)
    self._set(pair)

  def _setitems(self, _):
    self._set(self._since_mark())

  def _set(self, items):
    target = _of(dict, self.stack[-1])
    for key, value in zip(items[::2], items[1::2], strict=True):
      target[_key(key)] = value

  def _global(self, name):
    known = name in STORAGES or name in _CALLS or _is_script(name)
    if not known:
      raise RefusedFile(
        f"it asks for {name.replace(' ', '.')!s:.200}; only tensors, dicts and "
        "storages are read, nothing else is imported or called"
      )
    self.stack.append(_Global(name))

  def _stack_global(self, _):
    module, name = self._pop(2)
    self._global(f"{_of(str, module)} {_of(str, name)}")

  def _reduce(self, _):
    function, arguments = self._pop(2)
    call = _CALLS.get(function.name) if isinstance(function, _Global) else None
    if call is None:
      raise RefusedFile(f"it calls a {type(function).__name__}")
    self.stack.append(call(*_of(tuple, arguments)))

  def _new_object(self, _):
    kind, arguments = self._pop(2)
    if not isinstance(kind, _Global) or not _is_script(kind.name) or arguments:
      raise RefusedFile(
        f"its program makes an object (NEWOBJ) of a {type(kind).__name__}, "
        "which no state dict and no TorchScript needs"
      )
    self.stack.append(Module())

  def _build(self, _):
    # Attributes of a dict, such as a state dict's versions: nothing to keep.
    (state,) = self._pop(1)
    target = _of(dict, self.stack[-1])
    if isinstance(target, Module):
      target.update({_of(str, k): v for k, v in _of(dict, state).items()})

  def _persistent(self, _):
    (ident,) = self._pop(1)
    if len(_of(tuple, ident)) not in (5, 6) or ident[0] != "storage":
      raise RefusedFile("it points at something that is no storage")
    kind, key, _, count = ident[1:5]
    if len(ident) == 6 and ident[5] is not None:
      raise RefusedFile("it holds views of storages (PyTorch before 0.4)")
    if not isinstance(kind, _Global) or kind.name not in STORAGES:
      raise RefusedFile("a storage of it has no type")
    self.stack.append(
      Storage(_of(str, key), STORAGES[kind.name], _natural(count))
    )


_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
  "MARK": _Machine._mark,
  "BINPUT": _Machine._put,
  "LONG_BINPUT": _Machine._put,
  "MEMOIZE": _Machine._memoize,
  "BINGET": _Machine._get,
  "LONG_BINGET": _Machine._get,
  "TUPLE": _Machine._tuple,
  "APPEND": _Machine._append,
  "APPENDS": _Machine._appends,
  "SETITEM": _Machine._setitem,
  "SETITEMS": _Machine._setitems,
  "GLOBAL": _Machine._global,
  "STACK_GLOBAL": _Machine._stack_global,
  "REDUCE": _Machine._reduce,
  "NEWOBJ": _Machine._new_object,
  "BUILD": _Machine._build,
  "BINPERSID": _Machine._persistent,
}


def _is_script(name: str) -> bool:
  """Whether a global is a class that TorchScript compiled."""
  return name.startswith(("__torch__ ", "__torch__."))


def _ordered_dict(pairs=()) -> dict:
  return {_key(key): value for key, value in _of((list, tuple), pairs)}


def _tensor(storage, offset, shape, strides, *flags) -> Tensor:
  """`flags` are the gradient's, its hooks and the tensor's own attributes."""
  if not 2 <= len(flags) <= 3:
    raise RefusedFile("a tensor of it has the wrong number of arguments")
  count = _of(Storage, storage).count
  offset = _natural(offset)
  shape = tuple(map(_natural, _of(tuple, shape)))
  strides = tuple(map(_natural, _of(tuple, strides)))
  sizes = math.prod(shape)
  # An empty tensor has no numbers, but its other sizes may still be absurd.
  absurd = math.prod(max(size, 1) for size in shape) > _LARGEST
  if len(shape) != len(strides) or len(shape) > 32 or absurd:
    raise RefusedFile(f"a tensor of it has no proper shape: {shape!s:.100}")
  if not sizes:
    return Tensor(storage, 0, shape, (0,) * len(shape))
  # The stride of a single element is never taken; PyTorch writes anything.
  strides = tuple(t if size > 1 else 0 for size, t in zip(shape, strides))
  last = offset + sum((size - 1) * t for size, t in zip(shape, strides))
  # More elements than the storage has would be a view that repeats some.
  if last >= count or sizes > count:
    raise RefusedFile(
      f"a tensor of shape {shape} at {offset} does not fit its storage of "
      f"{count}"
    )
  return Tensor(storage, offset, shape, strides)


def _parameter(tensor, requires_grad, hooks) -> Tensor:
  del requires_grad, hooks
  return _of(Tensor, tensor)


_CALLS: Mapping[str, Callable[..., Any]] = {
  "collections OrderedDict": _ordered_dict,
  "torch._utils _rebuild_tensor_v2": _tensor,
  "torch._utils _rebuild_parameter": _parameter,
  **{
    f"torch.jit._pickle build_{kind}list": lambda items: _of(list, items)
    for kind in ("int", "double", "bool", "tensor")
  },
  "torch.jit._pickle restore_type_tag": lambda value, kind: value,
}


def _of(kind, value):
  if not isinstance(value, kind):
    wanted = kind if isinstance(kind, tuple) else (kind,)
    raise RefusedFile(
      f"it has a {type(value).__name__} where a "
      f"{' or '.join(k.__name__ for k in wanted)} belongs"
    )
  return value


def _key(value):
  return _of((str, int), value)


def _natural(value) -> int:
  if isinstance(value, bool) or not isinstance(value, int) or value < 0:
    raise RefusedFile("a size, stride or offset of it is no natural number")
  return value
