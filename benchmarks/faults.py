"""Faults for the mutation check: small changes to the attack code, each of which some test must notice.

A fault replaces ``old`` by ``new`` in one file under src/walnut; ``old`` stands there exactly once.
``tests`` are those that are about the changed line; they run in the order given.
"""

from __future__ import annotations

from dataclasses import dataclass

CONTRACT = "tests/test_attacks_contract.py"
CONSTRAINTS = "tests/test_core_constraints.py"
DIRECTIONS = "tests/test_core_directions.py"
QUICK = "tests/test_core_quick.py"
DRAWS = "tests/test_core_draws.py"
OBJECTIVES = "tests/test_core_objectives.py"
PARTS = "tests/test_core_parts.py"
ROWS = "tests/test_core_rows.py"
APGD = "tests/test_attacks_apgd.py"
QUERY = "tests/test_attacks_query.py"
MINIMAL = "tests/test_attacks_minimal.py"
HOPPING = "tests/test_attacks_hopping.py"
ROBUSTNESS = "tests/test_evaluate_robustness.py"
ACCURACY = "tests/test_evaluate_accuracy.py"
LOOP = "tests/test_mutants_loop.py"
METHODS = "tests/test_mutants_methods.py"


@dataclass(frozen=True)
class Fault:
    """One change of one line of the attack code."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def in_tests(file: str, *names: str) -> tuple[str, ...]:
    """Return pytest's names of some tests of a file."""
    return tuple(f"{file}::{name}" for name in names)


FAULTS = (
    # -- the loop
    Fault(
        "step downhill", "core/ascend.py",
        "torch.addcmul(z, step, size.to(z.dtype))",
        "torch.addcmul(z, step, -size.to(z.dtype))",
        in_tests(CONTRACT, "test_fgsm_on_a_linear_network_is_the_best_any_linf_perturbation_can_do"),
    ),
    Fault(
        "no random start", "core/ascend.py",
        "drawn = self.constraint.sample(z, draws)", "drawn = z",
        (LOOP,),
    ),
    Fault(
        "step size does not fall", "core/ascend.py",
        "self.step_size * self.decay(progress).reshape(",
        "self.step_size * torch.ones_like(progress).reshape(",
        (LOOP,),
    ),
    Fault(
        "restarts ignored", "core/rows.py",
        "first = rows.index[(rows.restart == 0) & ~done]", "first = rows.index[:0]",
        (LOOP, *in_tests(CONTRACT, "test_more_steps_restarts_and_radius_never_hurt_much")),
    ),
    Fault(
        "restarts beyond the lanes ignored", "core/rows.py",
        "again = (rows.restart + self.lanes < self.won[rows.index % self.n])",
        "again = (rows.restart < 0)",
        in_tests(ROWS, "test_restarts_side_by_side_give_the_answers_of_one_after_the_other"),
    ),
    Fault(
        "lanes that are all the first restart", "core/rows.py",
        "self._enter(index, index // self.n)", "self._enter(index, index // self.n // self.lanes)",
        in_tests(ROWS, "test_after_another_attack_all_restarts_go_side_by_side_at_once"),
    ),
    Fault(
        "the last lane wins", "core/rows.py",
        "at), late).argmin(0)", "at), -1).argmax(0)",
        in_tests(ROWS, "test_restarts_side_by_side_give_the_answers_of_one_after_the_other"),
    ),
    Fault(
        "one step too many", "core/rows.py",
        "ended = batch.step >= self.run.steps", "ended = batch.step > self.run.steps",
        in_tests(ROWS, "test_a_run_without_success_costs_one_pass_per_step_and_one_to_check"),
    ),
    Fault(
        "success not asked again", "core/rows.py",
        "self.success[rows] = self.run.criterion(logits, self.y[rows])",
        "self.success[rows] = self.success[rows]",
        (LOOP,),
    ),
    Fault(
        "last point in place of the best", "core/rows.py",
        "higher = (success == batch.best_success) & (values > batch.best_value)",
        "higher = success == batch.best_success",
        in_tests(ROWS, "test_a_failed_example_returns_its_strongest_attempt"),
    ),
    Fault(
        "a success is given up for a higher value", "core/rows.py",
        "better = better & (higher | (success > batch.best_success))",
        "better = better & (values > batch.best_value)",
        (LOOP,),
    ),
    Fault(
        "rows do not leave when they are decided", "core/rows.py",
        "batch.decided = batch.decided | success", "batch.decided = batch.decided",
        in_tests(ROWS, "test_an_example_fooled_at_once_leaves_at_once"),
    ),
    Fault(
        "labels shuffled when rows leave", "core/rows.py",
        "batch, values = batch.take(stay), values[stay]",
        "batch, values = batch.take(stay), values[stay]; batch.y = batch.y.roll(1)",
        (LOOP,),
    ),
    Fault(
        "forward passes counted per batch", "core/queried.py",
        "self.forward += len(x)", "self.forward += 1",
        in_tests(ROWS, "test_passes_are_counted_exactly"),
    ),
    Fault(
        "the network stays in eval mode", "core/frozen.py",
        "m.training = mode", "m.training = False",
        in_tests(CONTRACT, "test_a_network_in_train_mode_is_attacked_in_eval_mode_with_a_word"),
    ),
    Fault(
        "all rows draw the same", "core/draws.py",
        "start = _mix(self.keys ^ _mixed(", "start = _mix(self.keys[:1].expand_as(self.keys) ^ _mixed(",
        (DRAWS,),
    ),
    # -- constraints
    Fault(
        "L1 projection by rescaling", "core/constraints.py",
        "projected = delta.sign() * (size - shrink).clamp_min(0)",
        "projected = delta * (self.eps / size.sum(1, keepdim=True).clamp_min(1e-30))",
        (CONSTRAINTS,),
    ),
    Fault(
        "L2 ball of double radius", "core/constraints.py",
        "return x0 + delta * (self.eps / length.clamp_min(1e-30)).clamp_max(1.0)",
        "return x0 + delta * (2 * self.eps / length.clamp_min(1e-30)).clamp_max(1.0)",
        (CONSTRAINTS,),
    ),
    Fault(
        "L∞ ball bounded on one side", "core/constraints.py",
        "(x - x0).clamp_(-self.eps, self.eps).add_(x0)", "(x - x0).clamp_(max=self.eps).add_(x0)",
        (CONSTRAINTS,),
    ),
    Fault(
        "nothing keeps inputs below the upper end of the box", "core/constraints.py",
        "return x.clamp(self.lower, self.upper)", "return x.clamp(min=self.lower)",
        (CONSTRAINTS,),
    ),
    Fault(
        "attacks without the box", "attacks/common.py",
        "return intersection((*inside, norm(eps), box(*bounds)))", "return norm(eps)",
        in_tests(CONTRACT, "test_the_contract_on_images"),
    ),
    # -- directions, gradients, objectives
    Fault(
        "sign flipped", "core/directions.py",
        "return grad.sign(), state", "return -grad.sign(), state",
        (DIRECTIONS,),
    ),
    Fault(
        "momentum not accumulated", "core/directions.py",
        "m = self.decay * state + grad / size", "m = 0 * state + grad / size",
        (DIRECTIONS,),
    ),
    Fault(
        "momentum never forgets", "core/directions.py",
        "m = self.decay * state + grad / size", "m = state + grad / size",
        (DIRECTIONS,),
    ),
    Fault(
        "mean in place of sum before autograd", "core/gradients.py",
        "torch.autograd.grad(values.sum(), x, retain_graph=again, allow_unused=True)",
        "torch.autograd.grad(values.mean(), x, retain_graph=again, allow_unused=True)",
        in_tests(PARTS, "test_plain_gradient_agrees_with_finite_differences"),
    ),
    Fault(
        "EOT keeps the last draw only", "core/gradients.py",
        "total, values = total + grad, values + v", "total, values = grad * self.samples, values + v",
        in_tests(PARTS, "test_averaging_over_noise_nears_the_smoothed_gradient"),
    ),
    Fault(
        "targeted attacks walk away", "core/objectives.py",
        "return -self.objective(model, x, y)", "return self.objective(model, x, y)",
        in_tests(CONTRACT, "test_a_targeted_attack_moves_towards_its_target"),
    ),
    Fault(
        "the margin's rival may be the true class", "core/objectives.py",
        'rest = logits.scatter(1, y[:, None], float("-inf")).amax(1)', "rest = logits.amax(1)",
        (OBJECTIVES,),
    ),
    Fault(
        "DLR divides by the wrong gap", "core/dlr.py",
        "logits.topk(3, dim=1).values[:, 2]", "logits.topk(3, dim=1).values[:, 1]",
        (METHODS,),
    ),
    Fault(
        "targeted DLR divides by the wrong gap", "core/dlr.py",
        "largest[:, 2:].mean(1)", "largest[:, 1:].mean(1)",
        (METHODS,),
    ),
    # -- Auto-PGD and transfer
    Fault(
        "APGD never halves its step", "core/adaptive.py",
        "size=torch.where(cut, state.size / 2, state.size),", "size=state.size,",
        (METHODS, *in_tests(APGD, "test_apgd_on_a_linear_network_reaches_the_closed_form")),
    ),
    Fault(
        "APGD does not go back to its best point", "core/adaptive.py",
        "z=_choose(cut, state.best_z, state.z),", "z=state.z,",
        (METHODS, *in_tests(APGD, "test_apgd_on_a_linear_network_reaches_the_closed_form")),
    ),
    Fault(
        "APGD-T tries the same class in every round", "attacks/apgd.py",
        "order[rows, turn]], 1)", "order[rows, 0]], 1)",
        (METHODS,),
    ),
    Fault(
        "the tuned variance has the wrong sign", "attacks/transferable.py",
        "around / self.samples - grad if", "grad - around / self.samples if",
        (METHODS, *in_tests(APGD, "test_a_tuned_gradient_transfers_no_worse_than_momentum")),
    ),
    # -- queries
    Fault(
        "Square accepts what is worse", "core/search.py",
        "accept = values > best_value", "accept = values >= values",
        (METHODS, *in_tests(QUERY, "test_square_on_a_linear_network_comes_to_the_closed_form")),
    ),
    Fault(
        "Square's window never shrinks", "attacks/square.py",
        "share = share * 0.5 ** sum(", "share = share * 1.0 ** sum(",
        in_tests(QUERY, "test_the_window_falls_as_in_autoattack"),
    ),
    Fault(
        "finite differences twice too long", "core/estimators.py",
        "(value(x + sigma * u) - value(x - sigma * u)) / (2 * sigma)",
        "(value(x + sigma * u) - value(x - sigma * u)) / sigma",
        in_tests(QUERY, "test_finite_differences_come_to_the_gradient"),
    ),
    Fault(
        "BPDA answers as the twin", "core/estimators.py",
        "return _Through.apply(real.to(soft.dtype), soft)", "return soft",
        in_tests(QUERY, "test_straight_through_answers_as_the_network_and_differentiates_the_twin"),
    ),
    Fault(
        "BPDA's gradient is of another function", "core/estimators.py",
        "return None, grads[0]", "return None, grads[0].flip(1)",
        in_tests(QUERY, "test_straight_through_answers_as_the_network_and_differentiates_the_twin"),
    ),
    Fault(
        "HopSkipJump without its last bisection", "attacks/decision.py",
        "x = bisect(oracle, x0, x, rows, self.halvings(d), self.norm)", "x = x.clone()",
        in_tests(QUERY, "test_the_nearest_example_of_a_linear_network"),
    ),
    Fault(
        "Boundary takes points that do not fool", "attacks/decision.py",
        "better = oracle(nearer, rows) & (distance(nearer, x0, l2) < length)",
        "better = oracle(nearer, rows) | (distance(nearer, x0, l2) < length)",
        in_tests(QUERY, "test_the_nearest_example_of_a_linear_network"),
    ),
    # -- minimal perturbations
    Fault(
        "FMN's ball does not close in", "attacks/fmn.py",
        "return torch.where(fooled, torch.minimum(kept, near) * (1 - gamma), outside)",
        "return torch.where(fooled, torch.minimum(kept, outside), outside)",
        (METHODS, *in_tests(MINIMAL, "test_on_a_linear_network_the_norm_is_the_closed_form")),
    ),
    Fault(
        "DDN's radius moves the wrong way", "attacks/ddn.py",
        "torch.where(fooled, kept * (1 - self.gamma), kept * (1 + self.gamma))",
        "torch.where(fooled, kept * (1 + self.gamma), kept * (1 - self.gamma))",
        (METHODS, *in_tests(MINIMAL, "test_on_a_linear_network_the_norm_is_the_closed_form")),
    ),
    Fault(
        "C&W's bounds change places", "attacks/carlini_wagner.py",
        "low, high = torch.where(hit, low, c), torch.where(hit, c, high)",
        "low, high = torch.where(hit, c, low), torch.where(hit, high, c)",
        (METHODS, *in_tests(MINIMAL, "test_on_a_linear_network_the_norm_is_the_closed_form")),
    ),
    Fault(
        "DeepFool goes to the farthest class", "attacks/deepfool.py",
        "turn = away.argsort(dim=1, stable=True)",
        "turn = away.argsort(dim=1, stable=True, descending=True)",
        in_tests(MINIMAL, "test_on_a_linear_network_the_norm_is_the_closed_form"),
    ),
    Fault(
        "JSMA takes the worst pair", "attacks/jsma.py",
        "best = int(score.argmax())", "best = int(score.argmin())",
        in_tests(MINIMAL, "test_jsma_takes_the_best_pair"),
    ),
    Fault(
        "refining keeps points that do not fool", "attacks/minimal.py",
        "self.x[part[fools]] = x[fools]", "self.x[part] = x",
        in_tests(MINIMAL, "test_the_contract_on_images"),
    ),
    # -- counting
    Fault(
        "what was wrong already counts as robust", "evaluate/accuracy.py",
        "robust=Share.of(before & after),", "robust=Share.of(after),",
        in_tests(
            ACCURACY, "test_wrong_examples_never_count_as_robust_even_if_an_attack_mends_them"
        ),
    ),
    Fault(
        "transfer table transposed", "evaluate/transfer.py",
        "accuracy=tuple(rows),", "accuracy=tuple(zip(*rows, strict=True)),",
        in_tests(ACCURACY, "test_the_transfer_table_is_what_its_cells_say"),
    ),
    # -- one attack after another, and the verdict
    Fault(
        "hops from where the climb ended", "attacks/hopping.py",
        "self._hop(top, x0, draws)", "self._hop(state.z, x0, draws)",
        in_tests(HOPPING, "test_a_hop_that_leads_down_is_taken_back"),
    ),
    Fault(
        "a hop moves every entry", "attacks/hopping.py",
        "(lot < self.attack.share)", "(lot < 1)",
        in_tests(HOPPING, "test_a_hop_moves_a_share_of_the_entries_to_the_ends_of_the_ball"),
    ),
    Fault(
        "the second attack begins at the example", "attacks/relay.py",
        "y[rows], begin[rows])", "y[rows], x[rows])",
        in_tests(HOPPING, "test_hops_are_taken_from_where_another_attack_ended"),
    ),
    Fault(
        "the first attack's passes are forgotten", "attacks/relay.py",
        "found.forward[rows] + more.forward", "more.forward",
        in_tests(HOPPING, "test_square_goes_on_where_another_attack_ended"),
    ),
    Fault(
        "a success outside the ball counts", "evaluate/cascade.py",
        "success = found.success & inside", "success = found.success",
        in_tests(ROBUSTNESS, "test_exact_on_a_linear_network"),
    ),
    Fault(
        "the lower margin is kept as hope", "evaluate/survey.py",
        "(hope > self.hope[rows])", "(hope < self.hope[rows])",
        in_tests(ROBUSTNESS, "test_stages_begin_where_those_before_came_nearest"),
    ),
    Fault(
        "the first convolution's gradient forgets the padding", "core/quick.py",
        "weight.shape[2:], 1, ctx.padding, ctx.stride)", "weight.shape[2:], 1, 0, ctx.stride)",
        (QUICK,),
    ),
    Fault(
        "no gradient becomes a gradient of zero", "core/quick.py",
        "ctx.set_materialize_grads(False)", "ctx.set_materialize_grads(True)",
        (QUICK,),
    ),
)  # fmt: skip
