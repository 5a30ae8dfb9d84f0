"""The parts of a training step."""

from tdt_jax.profiling.hlo import Operation
from tdt_jax.profiling.step_parts import part_of


def test_operations_belong_to_parts():
    def part(stack, scope=""):
        return part_of(Operation("fusion", scope, stack, 1, 1))

    assert part("loss/Encoder.__call__/Block.__call__/RelativeAttention.__call__") == "attention"
    assert part("Block.__call__/FeedForward.__call__/dropout") == "dropout"
    assert part("", "jit(train_step)/jit(_loss)/recursion/while/body/add") == "loss, recursion"
    assert part("train_step/apply_updates") == "optimiser"
    assert part("train_step") == "elsewhere"
