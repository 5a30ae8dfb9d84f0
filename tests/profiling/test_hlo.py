"""Reading compiled programs, on texts written by hand."""

import pytest

from tdt_jax.profiling import hlo

PROGRAM = """HloModule jit_f, is_scheduled=true

FunctionNames
1 "main"
2 "Block.__call__"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=1 end_column=2}
2 {file_name_id=1 function_name_id=2 line=1 end_line=1 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%fused (p: f32[8]) -> f32[8] {
  %e = f32[8] add(%p, %p), backend_config={"estimated_cycles":"1000000"}
}

%inner (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = f32[8] add(%x, %y), backend_config={"estimated_cycles":"7"}
}

%inner_condition (p: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %b = f32[8] fusion(%x), calls=%fused, backend_config={"estimated_cycles":"100"}
  %w.1 = (s32[], f32[8]{0:T(8,128)S(1)}) while(%t), condition=%inner_condition, body=%inner
}

%outer_condition (p: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%cheap (p: f32[8]) -> f32[8] {
  %c = f32[8] copy(%p), backend_config={"estimated_cycles":"1"}
}

%dear (p: f32[8]) -> f32[8] {
  %d = f32[8] copy(%p), backend_config={"estimated_cycles":"20"}
}

%called (p: f32[8]) -> f32[8] {
  %k = f32[8] copy(%p), backend_config={"estimated_cycles":"3000"}
}

ENTRY %main.2 (x: f32[8]) -> f32[8] {
  %f = f32[8] copy(%x), metadata={op_name="jit(f)/add" stack_frame_id=2}, \
backend_config={"estimated_cycles":"40000"}
  %c.1 = f32[8] conditional(%i, %x, %x), branch_computations={%cheap, %dear}
  %k.1 = f32[8] call(%x), to_apply=%called
  %w = (s32[], f32[8]) while(%t), condition=%outer_condition, body=%outer, \
metadata={op_name="jit(f)/gradients_of_tiles/while"}
}
"""

EXCHANGES = """
%start (p: bf16[4,8]) -> bf16[32,8] {
  %g = bf16[32,8]{1,0} all-gather(%p), channel_id=3, \
replica_groups=mesh['a'=2,'b'=8], device_ids=([8,2]T(1,0)) {'b'}, dimensions={0}
  ROOT %s = (bf16[4,8], bf16[32,8]) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (p: bf16[4,8]) -> bf16[32,8] {
  %g.1 = bf16[32,8]{1,0} all-gather(%p), channel_id=3, replica_groups=mesh['a'=2,'b'=8] {'b'}
}

%done (p: bf16[4,8]) -> bf16[32,8] {
  %g.2 = bf16[32,8]{1,0} all-gather(%p), channel_id=3, replica_groups=mesh['a'=2,'b'=8] {'b'}
  ROOT %d = bf16[32,8] custom-call(%g.2), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.1 (p: f32[16,4]) -> f32[2,4] {
  %r = f32[16,4] all-reduce(%p), channel_id=4, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%sum
}

ENTRY %main (x: bf16[4,8]) -> bf16[4,8] {
  %one = (bf16[4,8], bf16[32,8]) fusion(%x), kind=kCustom, calls=%start
  %two = (bf16[2,2], bf16[32,8]) fusion(%one), calls=%async_collective_fusion.1, \
backend_config={"estimated_cycles":"50"}
  %more = bf16[2,2] fusion(%x), calls=%sum, backend_config={"estimated_cycles":"8"}
  %three = bf16[32,8] fusion(%two), kind=kCustom, calls=%done
  %four = f32[2,4] fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
  %five = (f32[8]{0:T(256)}, s32[]) all-reduce(%x, %i), replica_groups=[2,4]<=[8], to_apply=%sum
  %six = (bf16[8,4]{1,0}, bf16[8,4]{1,0}, u32[]) collective-permute-start(%x), \
source_target_pairs={{0,1},{1,0}}
  %last = bf16[2,2] copy(%x), backend_config={"estimated_cycles":"9"}
  %seven = bf16[8,4]{1,0} collective-permute-done(%six)
}
"""


def test_loops_calls_and_branches_count_as_often_as_they_run():
    program = hlo.read(PROGRAM, {"gradients_of_tiles": 3})
    assert program.cycles == 40000 + 20 + 3000 + 3 * (100 + 5 * 7)
    assert program.within("gradients_of_tiles").cycles == 3 * (100 + 5 * 7)


def test_an_operation_says_where_it_comes_from():
    program = hlo.read(PROGRAM, {"gradients_of_tiles": 3})
    first = program.operations[0]
    assert (first.opcode, first.scope) == ("copy", "jit(f)/add")
    assert first.stack == "main/Block.__call__"


def test_a_known_length_is_in_the_text():
    text = PROGRAM.replace("body=%outer,", 'body=%outer, known_trip_count":{"n":"11"},')
    assert hlo.read(text).cycles == 43020 + 11 * 135


def test_a_loop_of_unknown_length_is_an_error():
    with pytest.raises(ValueError, match="'jit\\(f\\)/gradients_of_tiles/while' is not in"):
        hlo.read(PROGRAM, {"recursion": 3})


def test_exchanges_have_kinds_bytes_and_what_runs_beside_them():
    found = [
        (x.kind, x.num_bytes, x.num_devices, x.dtypes, x.hidden_cycles)
        for x in hlo.read(EXCHANGES).collectives
    ]
    assert found == [
        ("all-gather", 32 * 8 * 2, 8, "bf16", 58),
        ("reduce-scatter", 16 * 4 * 4, 4, "f32", 0),
        ("all-reduce", 8 * 4 + 4, 4, "f32+s32", 0),
        ("collective-permute", 8 * 4 * 2, 0, "bf16", 9),
    ]


@pytest.mark.parametrize(
    ("shape", "num_bytes"),
    [
        ("f32[2,3]{1,0:T(8,128)}", 24),
        ("pred[]", 1),
        ("(bf16[4], (u8[3], s32[]), c64[2])", 8 + 3 + 4 + 16),
        ("f8e4m3fn[10]", 10),
    ],
)
def test_bytes_of_shapes(shape, num_bytes):
    assert hlo.shape_bytes(shape) == num_bytes


def test_a_gpus_compiler_estimates_microseconds():
    """Of several estimates of a fusion by Triton, that of the indexing model counts."""
    estimate = '{{"exec_time_us":{},"compute_time_us":0.1,"name":"{}"}}'
    both = estimate.format("2000.5", ""), estimate.format("1.25", "indexing-cost-model")
    for estimates, cycles in ((both, 1250), (both[:1], 2_000_500)):
        config = f'backend_config={{"reification_cost":[{",".join(estimates)}]}}'
        text = f"ENTRY %main (x: f32[8]) -> f32[8] {{\n  ROOT %a = f32[8] fusion(%x), {config}\n}}"
        assert hlo.read(text).cycles == cycles


def test_what_the_compiler_cannot_estimate_counts_as_nothing():
    text = PROGRAM.replace('"estimated_cycles":"3000"', '"estimated_cycles":"9223372036854775807"')
    number = {"gradients_of_tiles": 3}
    assert hlo.read(PROGRAM, number).cycles - hlo.read(text, number).cycles == 3000


KERNELS = """HloModule jit_f, is_scheduled=true

ENTRY %main (x: bf16[8,16], y: bf16[16,4]) -> f32[8,4] {
  %x = bf16[8,16]{1,0} parameter(0)
  %y = bf16[16,4]{1,0} parameter(1)
  %cublas.1 = (f32[8,4]{1,0}, s8[32]{0}) custom-call(%x, %y), \
custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(f)/dot_general"}, \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{\
"lhs_contracting_dimensions":["1"]}},"reification_cost":[{"exec_time_us":2020.5,"name":"sol"}]}
  %cublas.2 = (bf16[8,4]{1,0}, s8[32]{0}) custom-call(%x, %y), \
custom_call_target="__cublas$lt$matmul", \
backend_config={"reification_cost":[{"exec_time_us":1.5,"name":"sol"}]}
  %norm = bf16[8,16]{1,0} fusion(%x), kind=kCustom, \
backend_config={"reification_cost":[{"exec_time_us":3000.0,"name":""},\
{"exec_time_us":2.5,"memory_access_time_us":2.5,"name":"indexing-cost-model"}]}
  %lattice = f32[8,4]{1,0} custom-call(%x), custom_call_target="tpu_custom_call", \
backend_config={"custom_call_config":{"cost_estimate":{"flops":"300","bytes_accessed":"70"}}}
  ROOT %conv = bf16[8,4]{1,0} custom-call(%x, %y), custom_call_target="__cudnn$convForward"
}
"""


def test_kernels_without_a_usable_estimate_are_kept_apart():
    program = hlo.read(KERNELS)
    assert program.cycles == 1500 + 2500
    assert [(each.kernel, each.num_bytes, each.flops) for each in program.kernels] == [
        ("__cublas$lt$matmul", 2 * 8 * 16 + 2 * 16 * 4 + 4 * 8 * 4 + 32, 2 * 8 * 16 * 4),
        ("tpu_custom_call", 70, 300),
        ("__cudnn$convForward", 2 * 8 * 16 + 2 * 16 * 4 + 2 * 8 * 4, 0),
    ]


def test_loops_by_their_names():
    assert hlo.loops(PROGRAM, {"gradients_of_tiles": 3})["w.1"] == hlo.Loop("", 5, False)
    text = PROGRAM.replace("body=%outer,", 'body=%outer, known_trip_count":{"n":"11"},')
    known = [loop for loop in hlo.loops(text).values() if loop.is_known]
    assert known == [hlo.Loop("jit(f)/gradients_of_tiles/while", 11, True)]
