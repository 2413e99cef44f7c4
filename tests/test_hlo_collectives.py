"""What devices send each other, read from a compiled program."""

import jax
import jax.numpy as jnp

from dfm_jax.profiling.hlo_collectives import collectives

PROGRAM = """HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[4,4]{1,0})->f32[4,4]{1,0}}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%inner_condition (p: (s32[], f32[8])) -> pred[] {
  %five = s32[]{:T(128)} constant(5)
  %p = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %five), direction=LT
}

%inner_body (p.1: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p.1 = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) parameter(0)
  %v = f32[8]{0:T(128)S(1)} get-tuple-element(%p.1), index=1
  %moved = f32[8]{0} collective-permute(%v), channel_id=3, source_target_pairs={{0,1},{1,0}}
  ROOT %both = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) tuple(%i, %moved)
}

%bound (q: s32[]) -> pred[] {
  %three = s32[] constant(3)
  %q = s32[] parameter(0)
  ROOT %below = pred[] compare(%q, %three), direction=LT
}

%outer_condition (p.2: (s32[], f32[8])) -> pred[] {
  %p.2 = (s32[], f32[8]{0}) parameter(0)
  %j = s32[] get-tuple-element(%p.2), index=0
  ROOT %fused = pred[] fusion(%j), kind=kLoop, calls=%bound
}

%outer_body (p.3: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p.3 = (s32[], f32[8]{0}) parameter(0)
  %w = bf16[16]{0} constant({...})
  %gathered = (bf16[16]{0}, bf16[64]{0}) all-gather-start(%w), channel_id=2, replica_groups={{0,1,2,3}}, dimensions={0}
  %done = bf16[64]{0} all-gather-done(%gathered)
  ROOT %inner = (s32[], f32[8]{0}) while(%p.3), condition=%inner_condition, body=%inner_body
}

%all-reduce-scatter.1 (r: f32[64]) -> f32[16] {
  %r = f32[64]{0} parameter(0)
  %whole = f32[64]{0} all-reduce(%r), channel_id=4, to_apply=%add
  ROOT %part = f32[16]{0} dynamic-slice(%whole, %zero), dynamic_slice_sizes={16}
}

%async_collective_fusion.1 (s: f32[2]) -> f32[4] {
  %s = f32[2]{0} parameter(0)
  ROOT %begun = f32[4]{0} all-gather(%s), channel_id=5, dimensions={0}
}

%async_collective_fusion.2 (t: f32[2]) -> f32[4] {
  %t = f32[2]{0} parameter(0)
  ROOT %ended = f32[4]{0} all-gather(%t), channel_id=5, dimensions={0}
}

ENTRY %main (param: f32[4,4]) -> f32[4,4] {
  %param = f32[4,4]{1,0:T(8,128)} parameter(0)
  %flags = pred[3]{0} constant({1, 0, 1})
  %start = (s32[], f32[8]{0}) tuple(%param, %flags)
  %loop = (s32[], f32[8]{0}) while(%start), condition=%outer_condition, body=%outer_body
  %reduced = (f32[4,4]{1,0:T(8,128)S(1)}, /*index=1*/pred[3]{0}) all-reduce(%param, %flags), channel_id=1, to_apply=%add
  %scattered = f32[16]{0} fusion(%param), kind=kCustom, calls=%all-reduce-scatter.1
  %first = f32[2]{0} fusion(%param), kind=kCustom, calls=%async_collective_fusion.1
  %second = f32[2]{0} fusion(%param), kind=kCustom, calls=%async_collective_fusion.2
  ROOT %out = f32[4,4]{1,0:T(8,128)} get-tuple-element(%reduced), index=0
}
"""


def test_collectives_are_counted_as_often_as_they_run():
    sent = collectives(PROGRAM)
    assert sent.counts == {"all-reduce": 1, "all-gather": 4, "collective-permute": 15, "reduce-scatter": 1}
    assert sent.bytes == {
        "all-reduce": 4 * 4 * 4 + 3,
        "all-gather": 3 * 64 * 2 + 16,
        "collective-permute": 15 * 8 * 4,
        "reduce-scatter": 64 * 4,
    }
    assert sent.unknown_loops == 0


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    sent = collectives(PROGRAM.replace("%five = s32[]{:T(128)} constant(5)", "%five = s32[]{:T(128)} parameter(1)"))
    assert sent.counts["collective-permute"] == 3
    assert sent.unknown_loops == 1


def test_a_stated_length_of_a_loop_is_taken():
    stated = 'body=%outer_body, backend_config={"known_trip_count":{"n":"7"}}'
    assert collectives(PROGRAM.replace("body=%outer_body", stated)).counts["all-gather"] == 8


def test_a_program_for_one_device_sends_nothing():
    def scanned(x):
        return jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, length=3)[0]

    sent = collectives(jax.jit(scanned).lower(jnp.ones(4)).compile().as_text())
    assert sent.counts == {} and sent.unknown_loops == 0
