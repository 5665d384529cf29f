"""Programs read from their text: counts that are known beforehand."""

import numpy as np
import pytest

from mmjax.plan import collectives, hlo, loops, traffic
from tests import eight_devices

# Three rounds of a loop: 1 KiB is sliced from a stack, gathered over four
# devices and added to a sum that stays in fast memory.
LOOP = """HloModule jit_f, is_scheduled=true

%fused (p0: f32[3,256], p1: s32[]) -> f32[1,256] {
  %p0 = f32[3,256]{1,0:T(8,128)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  ROOT %cut = f32[1,256]{1,0:T(8,128)} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,256}
}

%body (arg: (s32[], f32[3,256], f32[4,256])) -> (s32[], f32[3,256], f32[4,256]) {
  %arg = (s32[]{:T(128)}, f32[3,256]{1,0:T(8,128)}, /*index=2*/f32[4,256]{1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  %stack = f32[3,256]{1,0:T(8,128)} get-tuple-element(%arg), index=1
  %sum = f32[4,256]{1,0:T(8,128)S(1)} get-tuple-element(%arg), index=2
  %row = f32[1,256]{1,0:T(8,128)} fusion(%stack, %i), kind=kLoop, calls=%fused
  %all = f32[4,256]{1,0:T(8,128)} all-gather(%row), channel_id=1, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
  %new = f32[4,256]{1,0:T(8,128)S(1)} add(%sum, %all)
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  ROOT %out = (s32[]{:T(128)}, f32[3,256]{1,0:T(8,128)}, f32[4,256]{1,0:T(8,128)S(1)}) tuple(%next, %stack, %new)
}

%condition (arg.1: (s32[], f32[3,256], f32[4,256])) -> pred[] {
  %three = s32[]{:T(128)} constant(3)
  %arg.1 = (s32[]{:T(128)}, f32[3,256]{1,0:T(8,128)}, f32[4,256]{1,0:T(8,128)S(1)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%arg.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %three), direction=LT
}

ENTRY %main (x: (s32[], f32[3,256], f32[4,256])) -> (s32[], f32[3,256], f32[4,256]) {
  %x = (s32[]{:T(128)}, f32[3,256]{1,0:T(8,128)}, f32[4,256]{1,0:T(8,128)S(1)}) parameter(0)
  ROOT %loop = (s32[]{:T(128)}, f32[3,256]{1,0:T(8,128)}, f32[4,256]{1,0:T(8,128)S(1)}) while(%x), condition=%condition, body=%body
}
"""  # noqa: E501


def test_a_loop_counts_as_often_as_it_runs():
  module = hlo.parse(LOOP)
  assert loops.executions(module) == {"main": 1, "body": 3}
  # A round reads and writes a row of 1 KiB, with its number (4 B), reads that
  # row and writes 4 KiB gathered, and reads those; the sum is not in memory.
  # The counter and what is added to it are read, and it is written.
  row = 1024
  round_ = (row + 4 + row) + (row + 4 * row) + 4 * row + 3 * 4
  assert traffic.memory_traffic(module) == 3 * round_


def test_a_collective_in_a_loop():
  (found,) = collectives.collectives(
    hlo.parse(LOOP), dict(data=2, fsdp=4), slices=2
  )
  assert (found.kind, found.axes) == ("all-gather", "fsdp")
  assert (found.count, found.runs) == (1, 3)
  assert found.bytes == 3 * 4096
  assert found.sent == 3 * 4096 * 3 / 4
  assert not found.between


@pytest.mark.parametrize(
  "text,groups",
  [
    ("replica_groups={{0,1},{2,3}}, dim", [[0, 1], [2, 3]]),
    ("replica_groups=[2,2]<=[4], x", [[0, 1], [2, 3]]),
    ("replica_groups=[2,2]<=[2,2]T(1,0), x", [[0, 2], [1, 3]]),
    ("replica_groups=mesh['a'=2,'b'=2] {'a'}, use", [[0, 2], [1, 3]]),
    ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", [[0, 1, 2, 3]]),
    (
      "replica_groups=mesh['a'=1,'b'=2,'c'=2], device_ids=([2,2]T(1,0)) {'c'}",
      [[0, 2], [1, 3]],
    ),
    ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
    ("replica_groups={}, channel", [[0, 1, 2, 3]]),
  ],
)
def test_groups(text, groups):
  np.testing.assert_array_equal(collectives._groups(text, 4), groups)


def test_groups_of_an_unknown_form_are_refused():
  with pytest.raises(ValueError, match="unknown form"):
    collectives._groups("replica_groups=@3, dim", 4)


def test_collectives_over_slices_are_told_apart():
  text = LOOP.replace("mesh['a'=2,'b'=4] {'b'}", "{{0,4},{1,5},{2,6},{3,7}}")
  (found,) = collectives.collectives(
    hlo.parse(text), dict(data=2, fsdp=4), slices=2
  )
  assert (found.axes, found.between) == ("data", True)
  assert found.sent == 3 * 4096 / 2


def test_the_pieces_of_one_collective_count_once():
  twice = LOOP.replace(
    "  %new =",
    "  %again = f32[4,256]{1,0:T(8,128)} all-gather(%row), channel_id=1, "
    "replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}\n  %new =",
  )
  (found,) = collectives.collectives(hlo.parse(twice), dict(data=2, fsdp=4))
  assert found.count == 1


# Of LLaVA's step on eight H200.
STARTED = {
  "all-gather": (
    "((bf16[128,1024], f32[640]), (bf16[1024,1024], f32[5120])) "
    "all-gather-start(%x, %y)",
    2 * 1024 * 1024 + 4 * 5120,
  ),
  "reduce-scatter": (
    "((bf16[13824,5120]{0,1}), bf16[13824,640]{0,1}) reduce-scatter-start(%x)",
    2 * 13824 * 5120,
  ),
  "all-reduce": (
    "(f32[], f32[4]{0}) all-reduce-start(%x, %y)",
    4 * (1 + 4),
  ),
  "collective-permute": (
    "(bf16[1024], bf16[1024], u32[], u32[]) collective-permute-start(%x)",
    2 * 1024,
  ),
}


@pytest.mark.parametrize("kind", STARTED)
def test_collectives_beside_computation(kind):
  """They name their operands, and what they are of is counted once."""
  text, whole = STARTED[kind]
  (found,) = collectives.collectives(
    hlo.parse(
      "ENTRY %main (x: bf16[8]) -> bf16[8] {\n"
      "  %x = bf16[8]{0} parameter(0)\n  %y = f32[8]{0} parameter(1)\n"
      f"  %start = {text}, channel_id=1, replica_groups=[1,8]<=[8]\n"
      "  ROOT %z = bf16[8]{0} copy(%x)\n}\n"
    ),
    dict(fsdp=8),
  )
  assert (found.kind, found.bytes) == (kind, whole)


def test_a_loop_without_a_bound_is_refused():
  open_ended = LOOP.replace("constant(3)", "parameter(1)")
  with pytest.raises(ValueError, match="no known number of rounds"):
    loops.executions(hlo.parse(open_ended))


@pytest.mark.parametrize(
  "bound,start,step,rounds",
  [(8, 0, 1, 8), (4, 0, 2, 2), (7, 1, 2, 3), (5, 0, 4, 2)],
)
@pytest.mark.parametrize("form", ["plain", "copied", "fused"])
def test_loops_that_do_not_count_by_one(bound, start, step, rounds, form):
  """As in a product whose operand is gathered from both sides at once."""
  text = LOOP.replace("constant(3)", f"constant({bound})")
  text = text.replace("%one = s32[]{:T(128)} constant(1)", STEPS[form])
  text = text.replace("STEP", str(step))
  if form != "plain":
    text = text.replace("%next = s32[]{:T(128)} add(%i, %one)\n", "")
  text = text.replace(
    "%loop = (s32[]{:T(128)}, f32[3,256]{1,0:T(8,128)}, f32[4,256]"
    "{1,0:T(8,128)S(1)}) while(%x)",
    "%loop = (s32[], f32[3,256], f32[4,256]) while(%made)",
  ).replace(
    "  ROOT %loop",
    f"  %zero = s32[] constant({start})\n  %moved = s32[] copy(%zero)\n"
    "  %made = (s32[], f32[3,256], f32[4,256]) tuple(%moved, %x, %x)\n"
    "  ROOT %loop",
  )
  text = ADDITION + text if form == "fused" else text
  assert loops.executions(hlo.parse(text))["body"] == rounds


STEPS = {
  "plain": "%one = s32[]{:T(128)} constant(STEP)",
  "copied": """%one = s32[]{:T(128)} constant(STEP)
  %sum.1 = s32[]{:T(128)} add(%one, %i)
  %next = s32[]{:T(128)} copy(%sum.1)""",
  "fused": """%one = s32[]{:T(128)} constant(STEP)
  %next = s32[]{:T(128)} fusion(%i, %one), kind=kLoop, calls=%addition""",
}
ADDITION = """HloModule x

%addition (a: s32[], b: s32[]) -> s32[] {
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %c = s32[] add(%a, %b)
}

"""


def test_a_loop_that_does_not_count_is_refused():
  idle = LOOP.replace("tuple(%next,", "tuple(%i,")
  with pytest.raises(ValueError, match="no addition"):
    loops.executions(hlo.parse(idle))


# Of LLaVA's step on v5e, in which a kernel's attributes go over three lines;
# fewer dims and shorter paths.
KERNEL = """HloModule jit_step, is_scheduled=true

FileNames
1 "/mmjax/training/step.py"

%fused_computation.442.clone.1 (param_0.3485: bf16[4,32,1,2048,128]) -> f32[4,2048,32,128] {
  %param_0.3485 = bf16[4,32,1,2048,128]{4,3,2,1,0:T(8,128)(2,1)} parameter(0)
  %bitcast.1398 = bf16[4,32,1,2048,128]{4,3,1,0,2:T(8,128)(2,1)} bitcast(%param_0.3485), frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q_dq\\": 512, \\"block_kv_dq\\": 512, \\"q_layout\\": 1, \\"k_layout\\": 1, \\"v_layout\\": 1}"
}}, metadata={op_name="jit(step)/transpose(jvp(Llava))/lm.hidden/layers/while/body/pallas_call" stack_frame_id=570}
  %convert.654 = f32[4,32,1,2048,128]{4,3,1,0,2:T(8,128)} convert(%bitcast.1398), frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q_dq\\": 512, \\"block_kv_dq\\": 512, \\"q_layout\\": 1, \\"k_layout\\": 1, \\"v_layout\\": 1}"
}}
  ROOT %bitcast.1397 = f32[4,2048,32,128]{3,1,2,0:T(8,128)} bitcast(%convert.654), metadata={op_name="jit(step)" stack_frame_id=316}
}

ENTRY %main (p: bf16[4,32,1,2048,128]) -> f32[4,2048,32,128] {
  %p = bf16[4,32,1,2048,128]{4,3,2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %f = f32[4,2048,32,128]{3,1,2,0:T(8,128)} fusion(%p), kind=kLoop, frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q_dq\\": 512}"
}}, calls=%fused_computation.442.clone.1
}

"""  # noqa: E501


def test_attributes_of_several_lines_end_no_computation():
  module = hlo.parse(KERNEL)
  inside = module.computations["fused_computation.442.clone.1"]
  assert list(inside) == [
    "param_0.3485",
    "bitcast.1398",
    "convert.654",
    "bitcast.1397",
  ]
  assert [i.root for i in inside.values()] == [False, False, False, True]
  # What stands behind them is read, too.
  (fusion,) = [i for i in module.computations["main"].values() if i.root]
  assert hlo.fused(module, fusion) is inside
  elements = 4 * 32 * 2048 * 128
  assert traffic.memory_traffic(module) == elements * (2 + 4)


# A matrix is taken of one stack and multiplied inside two fusions; the product
# goes into another stack, and an operand is handed on.
NESTED = """HloModule jit_step

%take (stack: bf16[32,256,256], i: s32[]) -> bf16[256,256] {
  %stack = bf16[32,256,256]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %cut = bf16[1,256,256]{2,1,0} dynamic-slice(%stack, %i, %zero, %zero), dynamic_slice_sizes={1,256,256}
  ROOT %one = bf16[256,256]{1,0} bitcast(%cut)
}

%put (stack.1: bf16[32,64,256], x.1: bf16[64,256], i.1: s32[]) -> bf16[32,64,256] {
  %stack.1 = bf16[32,64,256]{2,1,0} parameter(0)
  %x.1 = bf16[64,256]{1,0} parameter(1)
  %row = bf16[1,64,256]{2,1,0} bitcast(%x.1)
  %i.1 = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  ROOT %new = bf16[32,64,256]{2,1,0} dynamic-update-slice(%stack.1, %row, %i.1, %zero.1, %zero.1)
}

%both (a: bf16[32,256,256], b: bf16[32,64,256], x: bf16[64,256], j: s32[], c: bf16[8,8]) -> (bf16[32,64,256], bf16[8,8]) {
  %a = bf16[32,256,256]{2,1,0} parameter(0)
  %b = bf16[32,64,256]{2,1,0} parameter(1)
  %x = bf16[64,256]{1,0} parameter(2)
  %j = s32[] parameter(3)
  %c = bf16[8,8]{1,0} parameter(4)
  %w = bf16[256,256]{1,0} fusion(%a, %j), kind=kLoop, calls=%take
  %y = bf16[64,256]{1,0} convolution(%x, %w), dim_labels=bf_io->bf
  %out = bf16[32,64,256]{2,1,0} fusion(%b, %y, %j), kind=kLoop, calls=%put
  ROOT %pair = (bf16[32,64,256]{2,1,0}, bf16[8,8]{1,0}) tuple(%out, %c)
}

ENTRY %main (a.1: bf16[32,256,256], b.1: bf16[32,64,256], x.2: bf16[64,256], j.1: s32[], c.1: bf16[8,8]) -> (bf16[32,64,256], bf16[8,8]) {
  %a.1 = bf16[32,256,256]{2,1,0} parameter(0)
  %b.1 = bf16[32,64,256]{2,1,0} parameter(1)
  %x.2 = bf16[64,256]{1,0} parameter(2)
  %j.1 = s32[] parameter(3)
  %c.1 = bf16[8,8]{1,0} parameter(4)
  ROOT %f = (bf16[32,64,256]{2,1,0}, bf16[8,8]{1,0}) fusion(%a.1, %b.1, %x.2, %j.1, %c.1), kind=kOutput, calls=%both
}
"""  # noqa: E501


def test_of_stacks_only_what_is_used_moves():
  """One matrix in, one row of activations in and out, of stacks of 32."""
  read, row, number = 2 * 256 * 256, 2 * 64 * 256, 4
  found = traffic.memory_traffic(hlo.parse(NESTED))
  assert found == read + 2 * row + number


def test_no_module():
  with pytest.raises(ValueError, match="ENTRY"):
    hlo.parse("what is this")


REAL = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from mmjax.plan import collectives, hlo, traffic
from mmjax.sharding import make_mesh

mesh = make_mesh(dict(data=2, fsdp=4))
batch = NamedSharding(mesh, P(("data", "fsdp")))
rows = NamedSharding(mesh, P(None, "fsdp"))

def f(x, stack):
  def body(x, w):
    w = jax.lax.with_sharding_constraint(w, NamedSharding(mesh, P()))
    return jax.lax.with_sharding_constraint(x @ w, batch), None
  x, _ = jax.lax.scan(body, x, stack)
  return (x ** 2).sum()

x = jax.ShapeDtypeStruct((16, 64), np.float32, sharding=batch)
w = jax.ShapeDtypeStruct((5, 64, 64), np.float32, sharding=rows)
text = jax.jit(f).lower(x, w).compile().as_text()
module = hlo.parse(text)
found = {(c.kind, c.axes): c for c in collectives.collectives(
  module, dict(mesh.shape))}
gather = found["all-gather", "fsdp"]
# Each of five matrices, or all of them at once.
assert gather.bytes == 5 * 64 * 64 * 4, gather
assert gather.sent == gather.bytes * 3 / 4
total = found["all-reduce", "data+fsdp"]
assert total.bytes == 4 and total.sent == 2 * 4 * 7 / 8, total
# At least every matrix is read once, by each device.
assert traffic.memory_traffic(module) > 5 * 64 * 64 * 4
"""


@pytest.mark.heavy
def test_a_program_that_xla_compiled():
  eight_devices.run(REAL)
