"""Launches of a GPU program, from XLA's dump of a small one that was compiled for an H100."""

from pathlib import Path

import pytest

from tdt_jax.profiling import hlo, launches

# The program, with CUDA graphs as XLA makes them by default:
#
# def program(x, w, n):                             # [64, 64], [64, 64], []
#     def inner(x, _):
#         return jnp.tanh(x @ w), None
#
#     def body(state):
#         i, x = state
#         x, _ = jax.lax.scan(inner, x, None, length=3)
#         emit = lambda: jnp.sin(jnp.cos(jnp.sin(x @ w) @ w) @ w)
#         return i + 1, jax.lax.cond(x.sum() > 0, emit, lambda: x)
#
#     x = jnp.sin(x) @ w
#     for _ in range(3):
#         x = jnp.cos(x @ w)
#     _, x = jax.lax.while_loop(lambda state: state[0] < n, body, (0, x))
#     return jax.nn.softmax(x @ w)
DUMP = Path(__file__).parent / "launches"
SEQUENCE, METADATA = (
    (DUMP / f"{name}.txt").read_text(encoding="utf-8") for name in ("sequence", "metadata")
)
LOOPS = {
    "while.15": hlo.Loop("jit(program)/while", 10, False),
    "while.7": hlo.Loop("jit(program)/while/body/while", 3, True),
}


def test_thunks_of_a_program():
    graph, loop, product, softmax = launches.parse(SEQUENCE, METADATA)
    assert [thunk.kind for thunk in graph.parts[""]].count("kCublasLtMatmul") == 4
    assert list(loop.parts) == ["condition", "body"]
    inner, conditional = loop.parts["body"][2], loop.parts["body"][5]
    assert [len(part) for part in inner.parts.values()] == [1, 3]
    assert {name: len(part) for name, part in conditional.parts.items()} == {
        "false_branch": 6,
        "true_branch": 1,
    }
    assert (loop.name, inner.name, softmax.name) == ("while.15", "while.7", "triton_softmax.2")
    assert not product.parts


def test_launches_of_a_program():
    total, loops = launches.count(launches.parse(SEQUENCE, METADATA), LOOPS)
    # A scan of 3 x 3, 5 around it, a branch of 1 or 6, and the condition: all of them by the host,
    # which waits for the predicates of the loop and of the conditional.
    turn = launches.Launches(fewest=16, most=21, in_graphs=0, by_host=21, waits=2)
    assert loops == [
        launches.Loop("jit(program)/while", 10, False, turn),
        launches.Loop("jit(program)/while/body/while", 3, True, launches.Launches(3, 3, 0, 3, 0)),
    ]
    # A graph of 9, ten iterations, the condition once more, and two at the end.
    assert total == launches.Launches(9 + 160 + 3, 9 + 210 + 3, 9, 1 + 210 + 3, 21)


def test_a_loop_in_a_graph_does_not_wait_for_the_host():
    graph = SEQUENCE.replace("\n", "\n    ").rstrip(" ")
    thunks = launches.parse(f"000: kCommandBuffer [source | sink]\n    {graph}", METADATA)
    total, (turn, _) = launches.count(thunks, LOOPS)
    assert turn.launches == launches.Launches(16, 21, 21, 0, 0)
    assert total == launches.Launches(172, 222, 222, 1, 0)


def test_a_folder_with_the_thunks_of_two_programs_is_an_error(tmp_path):
    for name in ("a.thunk_sequence.txt", "a.thunk_metadata.txt", "b.thunk_sequence.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="thunks of 2 programs"):
        launches.read_dump(tmp_path)
