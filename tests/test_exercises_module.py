"""The machinery of exercises on small ones made here: what a student is told, what is remembered, what is listed."""

import json
import math
import re
import textwrap
import time

import pytest
import torch
from common_mistakes import detached, from_global_state, from_own_seed, restarted, then
from testing_tools import refused

from mmlearn import exercises, files
from mmlearn.exercises import (
    NOT_SOLVED,
    CheckFailed,
    agreement,
    attempt,
    by_hand,
    case,
    exercise_folders,
    expect,
    expect_boolean,
    expect_close,
    expect_constant,
    expect_finite_gradient,
    expect_log,
    expect_not,
    expect_number,
    expect_observed,
    expect_parts,
    expect_rows_differ,
    expect_seeded,
    expect_share,
    expect_tensor,
    expect_trains,
    expect_whole,
    expect_zero,
    experiment,
    folders,
    load_checks,
    load_part,
    observe,
    progress_file,
    solution,
    solved,
    steps,
    task,
    tasks,
)
from mmlearn.exercises.inputs import between, first_of, orthogonal, seeded, some_of, uniform, unit
from mmlearn.exercises.progress import remember


def double(x):
    return 2 * x


@task(double, difficulty=2, minutes=5)
def check_double(function):
    """Twice as much."""
    x = torch.randn(3)
    expect_close(function(x), 2 * x, "It doubles.", "multiply by 2.")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Progress of its own for each test."""
    monkeypatch.setenv("MMLEARN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def failure(check, *arguments, **named):
    with pytest.raises(CheckFailed) as caught:
        check(*arguments, **named)
    assert "\n" not in str(caught.value)
    return caught.value


# What goes wrong inside a student's function.


def stub(x):
    raise NotImplementedError


def forgets_to_return(x):
    2 * x


def crashes(x):
    raise RuntimeError("first line\nsecond line")


def crashes_silently(x):
    raise KeyError


def changes_its_argument(x):
    return x.mul_(2)


def returns_a_list(x):
    return (2 * x).tolist()


def right_shape_wrong_numbers(x):
    return 2 * x + 1e-3


def wrong_shape(x):
    return 2 * x[:2]


def not_finite(x):
    return 2 * x / 0


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        (stub, [NOT_SOLVED]),
        (crashes, ["RuntimeError: first line"]),
        (crashes_silently, ["KeyError", "no message"]),
        (changes_its_argument, ["arguments"]),
        (returns_a_list, ["tensor", "list"]),
        (right_shape_wrong_numbers, ["It doubles.", "multiply by 2."]),
        (wrong_shape, ["(2,)", "(3,)"]),
        (not_finite, ["finite"]),
        (lambda: None, ["TypeError"]),
    ],
)
def test_each_mistake_is_told_in_one_line(function, parts):
    told = failure(check_double, function)
    for fragment in parts:
        assert fragment in str(told)


def power(base, exponent):
    return base**exponent


@task(power, difficulty=1, minutes=5, example=by_hand(2.0, 3.0, gives=8.0))
def check_power(function):
    for base, exponent in ((2.0, 5.0), (3.0, 2.0)):
        expect_number(function(base, exponent), base**exponent, "It is a power.", "use **.")


def test_arguments_in_each_others_position_are_named():
    told = failure(check_power, lambda exponent, base: base**exponent)
    assert told.property.startswith("The arguments base and exponent have changed positions. It is a power.")
    assert "keep the order of the stub" in told.hint
    told = failure(check_power, lambda base, exponent: exponent**base)  # in the order of the stub
    assert told.property.startswith("The arguments base and exponent are used in each other's place. It is a power.")
    assert "see where you use each" in told.hint
    told = str(failure(check_power, lambda base, exponent: base * exponent))
    assert "changed positions" not in told
    assert "each other's place" not in told


def test_a_stub_that_is_called_is_named():
    def unsolved(x):
        raise NotImplementedError

    told = failure(check_double, lambda x: unsolved(x))
    assert told.property == "It calls unsolved, which is not solved yet."
    assert not told.answered
    lacking = lambda x: exec("raise NotImplementedError('no kernel for Int')")  # noqa: E731
    assert "It stops in line" in str(failure(check_double, lacking))  # what torch says of an operation that it lacks
    assert str(failure(check_double, torch.no_grad()(stub))) == NOT_SOLVED


def test_the_example_is_told_where_the_check_finds_nothing_else():
    only_two = lambda base, exponent: 9.0 if (base, exponent) == (2.0, 3.0) else base**exponent  # noqa: E731
    assert "The statement's own example must give 8; this gives 9." in str(failure(check_power, only_two))
    told = failure(check_power, lambda base, exponent: 0.0)
    assert told.property.startswith("It is a power.")
    assert "this gives 0" in told.by_hand.property


def test_examples_of_every_kind_of_result():
    pair = by_hand(torch.ones(2), gives=(torch.ones(2), torch.tensor([True, False])))
    pair(lambda x: (x, torch.tensor([True, False])))
    assert "must give [1.0, 1.0] and [True, False]" in str(failure(pair, lambda x: (x, torch.tensor([True, True]))))
    by_hand(gives={"a": 1 / 3})(lambda: {"a": 0.3333})
    assert "a: 0.3333; this gives a: 0.5" in str(failure(by_hand(gives={"a": 1 / 3}), lambda: {"a": 0.5}))
    chance = by_hand(seeded, gives=lambda got: got.shape == (2,), says="two numbers")
    chance(lambda generator: torch.rand(2, generator=generator))
    assert "must give two numbers" in str(failure(chance, lambda generator: torch.rand(3, generator=generator)))


@task(sum, difficulty=1, minutes=5)
def check_sum(function):
    expect_number(function([1, 2, 3]), 6, "It adds.", "+")


@pytest.mark.parametrize("change", ["numbers.pop()", "numbers.sort(reverse=True)", "numbers[0] = 5"])
def test_a_list_that_was_handed_in_stays_as_it_is(change):
    def edits(numbers):
        total = sum(numbers)
        exec(change, {"numbers": numbers})
        return total

    assert "must leave its arguments as they are" in str(failure(check_sum, edits))
    check_sum(sum)


def test_a_check_that_takes_long_says_so(monkeypatch, capsys):
    monkeypatch.setattr(exercises.checks, "SLOW", 0.01)

    def slow(x):
        time.sleep(0.2)
        return 2 * x

    attempt(check_double, slow)
    assert "double: this check has run for 0.01 seconds" in capsys.readouterr().out
    monkeypatch.setattr(exercises.checks, "SLOW", 10)
    attempt(check_double, double)
    time.sleep(0.05)
    assert capsys.readouterr().out == "✔  double: solved\n"


def test_an_endless_loop_says_how_to_interrupt_it_and_shows_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(exercises.checks, "SLOW", 0.05)

    def endless(x):
        time.sleep(0.3)
        raise KeyboardInterrupt  # what ■ raises, in the line that runs just then

    attempt(check_double, endless)
    out = capsys.readouterr().out
    assert "never ends? Interrupt it with ■ above" in out
    assert re.search(r"✘  double: interrupted in line \d+\.\n   Hint: does each loop come to an end", out)
    assert "Traceback" not in out


def test_a_copy_that_learns_is_named():
    def learns(function):
        leaf = torch.ones(2, requires_grad=True)
        expect(torch.autograd.grad(function(leaf).sum(), leaf)[0].any(), "It learns.", "no copy.")

    check_learns = task(double, difficulty=1, minutes=5)(learns)
    copied = failure(check_learns, lambda x: torch.nn.Parameter(2 * x))
    assert copied.property == "No gradient comes from its result to its inputs: it learns into a copy."
    with pytest.raises(CheckFailed, match="this is a copy, which no input can learn from"):
        expect_trains(lambda x: torch.nn.Parameter(2 * x), torch.ones(2), like=double)


def test_what_fails_later_is_no_longer_solved(capsys):
    attempt(check_double, double)
    attempt(check_double, stub)
    assert solved() == {"tests/double"}  # an unfilled stub is no answer
    attempt(check_double, wrong_shape)
    assert solved() == set()
    assert capsys.readouterr().out.endswith("It was solved before, and no longer is.\n")


# Experiments.


@experiment("rise", "fall")
def check_growth(observed):
    """Because it grows."""
    expect_observed(observed, [1.0, 2.0], [1.0, 1.0])
    return "rise"


@pytest.mark.parametrize(
    ("prediction", "observed", "says"),
    [
        (..., [1, 1], "…  growth: not solved yet"),
        ("up", [1, 2], "must be one of 'rise', 'fall'"),
        ("rise", [1, 1], "the line as it was"),
        ("rise", [1, 3], "not the numbers that this change gives"),
        ("rise", [1], "must hold 2 numbers"),
        ("rise", "text", "cannot be read"),
        ("rise", torch.tensor([1.0, 2.0]), "✔  growth: observed 'rise', as you predicted\n   Because it grows."),
        ("fall", [1, 2], "observed 'rise', and you predicted 'fall'"),
    ],
)
def test_an_experiment_reads_the_prediction_and_what_was_observed(prediction, observed, says, capsys):
    observe(check_growth, prediction, observed)
    out = capsys.readouterr().out
    assert says in out
    assert solved() == ({"tests/growth"} if "✔" in out else set())


def test_nothing_returned_is_no_success():
    assert "None" in str(failure(check_double, forgets_to_return))


def test_the_right_function_passes_and_the_check_returns_nothing():
    assert check_double(double) is None
    assert check_double(lambda x: x + x) is None


def test_inputs_are_fresh_and_the_global_state_stays():
    seen = []

    def keeps(x):
        seen.append(x)
        return 2 * x

    torch.manual_seed(5)
    state = torch.get_rng_state()
    for _ in range(3):
        check_double(keeps)
        assert torch.equal(torch.get_rng_state(), state)
    assert len({tuple(x.tolist()) for x in seen}) == 3


def test_an_interrupt_is_no_mistake():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_double(interrupted)


def test_a_task_knows_its_name_its_solution_and_what_it_asks():
    made = check_double.task
    assert (made.name, made.difficulty, made.minutes) == ("double", 2, 5)
    assert made.exercise == "tests"  # the folder of its file
    assert made.reference is double
    assert made.check is check_double
    assert check_double.__doc__ == "Twice as much."


# Expectations.


def test_a_failure_has_a_property_and_a_hint():
    told = CheckFailed("It sums to 1.", "softmax over the last axis.")
    assert (told.property, told.hint) == ("It sums to 1.", "softmax over the last axis.")
    assert str(told) == "It sums to 1. Hint: softmax over the last axis."
    assert str(CheckFailed("It sums to 1.")) == "It sums to 1."


@pytest.mark.parametrize(
    ("holds", "passes"), [(True, True), (torch.tensor(True), True), (False, False), (torch.tensor(0), False)]
)
def test_expect(holds, passes):
    if passes:
        expect(holds, "p", "h")
    else:
        assert str(failure(expect, holds, "It holds.", "look.")) == "It holds. Hint: look."


def test_close_is_close_to_its_tolerance():
    wanted = torch.tensor([1.0, 100.0])
    expect_close(wanted + torch.tensor([1e-6, 1e-4]), wanted, "p", "h")
    expect_close(wanted.double(), wanted, "p", "h")
    expect_close(wanted + 0.04, wanted, "p", "h", tolerance=0.05)
    for got in (wanted + 1e-3 * torch.tensor([1, 0]), -wanted, wanted + torch.tensor([0.0, 1e-2])):
        assert failure(expect_close, got, wanted, "Equal.", "h").property.startswith("Equal.")
    assert "finite" in str(failure(expect_close, torch.tensor([1.0, math.nan]), wanted, "Equal.", "h"))
    assert "tensor" in str(failure(expect_close, [1.0, 100.0], wanted, "Equal.", "h"))
    assert "(1, 2)" in str(failure(expect_close, wanted[None], wanted, "Equal.", "h"))


def test_a_number_may_be_plain_or_in_a_tensor():
    for got in (0.5, torch.tensor(0.5), 0.5 + 1e-7):
        expect_number(got, 0.5, "p", "h")
    assert "0.5" in str(failure(expect_number, 0.25, 0.5, "Half.", "h"))
    for got in (torch.tensor([0.5]), [0.5], "0.5", None):
        assert "one number" in str(failure(expect_number, got, 0.5, "Half.", "h"))
    for got in (math.nan, math.inf, torch.tensor(math.nan)):
        assert "finite" in str(failure(expect_number, got, 0.5, "Half.", "h"))


def test_a_tensor_comes_back_if_it_is_one():
    x = torch.zeros(2, 3)
    assert expect_tensor(x) is x
    assert expect_tensor(x, (2, 3)) is x
    assert "(3, 2)" in str(failure(expect_tensor, x, (3, 2)))
    assert "float" in str(failure(expect_tensor, 1.0))
    bad = torch.tensor([math.inf])
    assert "finite" in str(failure(expect_tensor, bad))
    assert expect_tensor(bad, finite=False) is bad


def test_a_case_is_told_before_what_fails_in_it():
    def check(words, property, hint="", answered=True):
        with case(words):
            raise CheckFailed(property, hint, answered=answered)

    told = failure(check, "With a mask", "it sums to 1.", "mask first.")
    assert (told.property, told.hint) == ("With a mask: it sums to 1.", "mask first.")
    assert str(failure(check, "With a mask", NOT_SOLVED, answered=False)) == NOT_SOLVED
    with case("fine"):
        pass


def test_booleans_and_whole_numbers_are_told_from_others():
    assert expect_boolean(torch.tensor([True]), (1,)).all()
    assert expect_whole(torch.tensor([2]), (1,)) == 2
    assert "boolean; this is torch.int64" in str(failure(expect_boolean, torch.tensor([1]), (1,)))
    for got in (torch.tensor([1.0]), torch.tensor([True])):
        assert "whole numbers" in str(failure(expect_whole, got, (1,)))
    assert "shape (2,)" in str(failure(expect_whole, torch.tensor([1]), (2,)))


def test_parts_are_named():
    assert expect_parts((1, 2), "text", "label") == (1, 2)
    told = failure(expect_parts, torch.zeros(2), "tokens", "mask", "position")
    assert str(told) == (
        "It must return tokens, mask and position; this is a Tensor. Hint: return tokens, mask, position"
    )
    assert "these are 3" in str(failure(expect_parts, (1, 2, 3), "text", "label"))


def test_a_known_mistake_is_recognised_among_several():
    got = torch.tensor([1.0, 2.0])
    expect_not(got, (torch.zeros(2), 2 * got), "p", "h")
    assert failure(expect_not, got, (torch.zeros(2), got + 1e-7), "Doubled.", "h").property == "Doubled."
    expect_not(torch.full((2,), math.nan), math.nan, "p", "h")
    assert failure(expect_not, got, got + 1e-3, "Near.", "h", tolerance=1e-2)


def test_the_cost_of_knowing_nothing():
    expect_log(torch.tensor(8.0).log(), 8, "c", "h")
    assert "must cost ln c = ln 8. Expected 2.079, got 1." in str(failure(expect_log, torch.tensor(1.0), 8, "c", "h"))


def test_a_share_may_be_off_as_far_as_chance_takes_it():
    hits = torch.arange(10_000) < 5_290
    expect_share(hits, 0.5, "p", "h")  # 6 standard deviations are 0.03
    assert "Expected about 50.0%, got 53.1%." in str(failure(expect_share, torch.arange(10_000) < 5_310, 0.5, "p", "h"))


def test_agreement_compares_tensors_numbers_and_the_losses_of_several_draws():
    same = agreement(torch.add, lambda x, y: x + y)
    same((torch.ones(3), torch.ones(3)), "p", "h")
    failure(agreement(torch.sub, torch.add), (torch.ones(3), torch.ones(3)), "p", "h")
    draws = [(torch.tensor(0.0), torch.tensor(0.0)), (torch.tensor(0.0), torch.tensor(1.0))]
    same(draws, "p", "h")
    assert (
        failure(agreement(torch.sub, torch.add), draws, "Added.", "h").property == "Added."
    )  # the first agrees by luck
    agreement(lambda x: torch.tensor(0.5), lambda x: 0.5)((None,), "p", "h")
    assert "Expected 0.5" in str(failure(agreement(lambda x: 0.4, lambda x: 0.5), (None,), "p", "h"))
    loose = agreement(lambda x: x + 1e-3, lambda x: x, tolerance=1e-2)
    loose((torch.ones(2),), "p", "h")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda x, y, scale: (x * y).sum().detach(), "flow from the result"),
        (lambda x, y, scale: torch.tensor(scale * (x * y).sum().item(), requires_grad=True), "this is a new number"),
        (lambda x, y, scale: scale * (x * y.detach()).sum(), "none comes to y"),
        (lambda x, y, scale: scale * (x * (y + y.detach()) / 2).sum(), "right as well as its value; that of y"),
        (lambda x, y, scale: scale * (x * y).sum() + 0 * (x - x).norm() * (x - x).abs().sqrt().sum(), "be finite"),
    ],
)
def test_a_gradient_must_reach_all_that_is_learned(wrong, told):
    def right(x, y, scale):
        return scale * (x * y).sum()

    given, like = (torch.randn(3), torch.randn(3)), {"fixed": (2.0,), "like": right}
    expect_trains(right, *given, **like)
    expect_trains(lambda x, y, scale: (scale * y) @ x, *given, **like)
    assert told in str(failure(expect_trains, wrong, *given, **like))


def test_the_gradient_of_many_numbers_is_compared_entry_by_entry():
    x = torch.randn(4)
    expect_trains(torch.sin, x, like=torch.sin)
    shuffled = lambda x: x.sin() + x.cos() - x.cos().detach()  # noqa: E731
    assert "right as well" in str(failure(expect_trains, shuffled, x, like=torch.sin))


def test_every_part_and_every_tensor_of_a_list_is_learned_from():
    def right(x, others):
        return x + others[0], torch.tensor(True), x * others[1]

    given = torch.randn(3), [torch.randn(3), torch.randn(3)]
    expect_trains(right, *given, like=right)
    deaf = lambda x, others: (x + others[0], torch.tensor(True), x * others[1].detach())  # noqa: E731
    assert "none comes to others[1]" in str(failure(expect_trains, deaf, *given, like=right))
    cut = lambda x, others: (right(x, others)[0].detach(), *right(x, others)[1:])  # noqa: E731
    assert "flow from the result" in str(failure(expect_trains, cut, *given, like=right))
    same = lambda x: x  # noqa: E731
    expect_trains(same, torch.randn(2), like=same)  # what comes back as it was is no new number


def test_an_input_without_a_gradient_in_the_library_needs_none():
    right = lambda x, scale: (x * 0 * scale).sum()  # noqa: E731
    expect_trains(lambda x, scale: 0 * x.sum(), torch.randn(3), torch.tensor(2.0), like=right)


def test_a_finite_gradient():
    expect_finite_gradient(torch.linalg.vector_norm, torch.zeros(3))
    assert "must be finite" in str(failure(expect_finite_gradient, lambda x: x.square().sum().sqrt(), torch.zeros(3)))
    assert "must flow" in str(failure(expect_finite_gradient, lambda x: x.detach(), torch.zeros(3)))


def test_a_constant_has_no_gradient():
    x = torch.ones(2, requires_grad=True)
    expect_constant(x.detach())
    assert "must have no gradient" in str(failure(expect_constant, 2 * x))


def test_nothing_to_learn_costs_0_that_can_be_trained():
    x, nothing = torch.randn(3), torch.zeros(3, dtype=torch.bool)
    expect_zero(lambda x, m: x[m].sum(), x, nothing)
    assert "must be finite" in str(failure(expect_zero, lambda x, m: x[m].mean(), x, nothing))
    assert "The 0 must have a graph" in str(failure(expect_zero, lambda x, m: torch.tensor(0.0), x, nothing))
    assert "The loss must be 0" in str(failure(expect_zero, lambda x, m: x.sum() + 9, x, nothing))
    assert "of this 0 must be 0" in str(failure(expect_zero, lambda x, m: x.sum() - x.sum().detach(), x, nothing))


def test_chance_comes_from_the_seed():
    def draw(generator):
        return torch.randint(3, (2,), generator=generator)  # so few results that two seeds may agree

    for _ in range(20):
        expect_seeded(lambda seed: draw(seeded(seed)))
    expect_seeded(lambda seed: (torch.zeros(2), draw(seeded(seed))))  # of several parts one is drawn
    state = from_global_state(lambda generator: torch.rand(9, generator=generator))
    assert "The same seed must give the same" in str(failure(expect_seeded, lambda seed: state(seeded(seed))))
    for own in (from_own_seed(draw), lambda generator: torch.zeros(2)):
        assert "Another seed must" in str(failure(expect_seeded, lambda seed: own(generator=seeded(seed))))  # noqa: B023


def test_a_generator_goes_on_from_call_to_call_and_rows_draw_for_themselves():
    def draw(generator):
        return torch.rand(4, 3, generator=generator)

    expect_seeded(draw)
    again = restarted(draw)
    assert "Two calls on one generator must draw differently" in str(failure(expect_seeded, lambda seed: again(seed)))
    expect_rows_differ(draw)
    one = lambda generator: torch.rand(1, 3, generator=generator).expand(4, 3)  # noqa: E731
    assert "Each clip must draw for itself" in str(failure(expect_rows_differ, one, "clip"))
    expect_rows_differ(lambda generator: torch.zeros(4, 3))  # no chance at all, which expect_seeded tells


def test_mistakes_made_of_right_answers():
    assert then(torch.add, lambda y: -y)(1, torch.ones(())) == -2
    assert not detached(torch.exp)(torch.ones(2, requires_grad=True)).requires_grad


def test_inputs_are_of_the_kind_that_they_say_and_new_each_time():
    assert not torch.equal(unit(4, 3), unit(4, 3))
    torch.testing.assert_close(unit(2, 4, 3).norm(dim=-1), torch.ones(2, 4))
    frames = orthogonal(2, 5)
    torch.testing.assert_close(frames @ frames.mT, torch.eye(5).expand(2, 5, 5))
    assert {between(2, 4) for _ in range(200)} == {2, 3, 4}
    assert all(0.5 <= uniform(0.5, 0.7) <= 0.7 for _ in range(50))
    assert some_of(3, 7, real=2).sum(1).tolist() == [2, 2, 2]
    assert some_of(3, 7, real=[0, 3, 7]).sum(1).tolist() == [0, 3, 7]
    assert some_of(9, real=4).sum() == 4
    assert first_of(3, [1, 3, 0]).tolist() == [[True, False, False], [True, True, True], [False, False, False]]


# In a notebook.


def test_attempt_tells_and_remembers_only_what_is_solved(capsys, home):
    attempt(check_double, stub)
    attempt(check_double, wrong_shape)
    assert solved() == set()
    assert not progress_file().exists()
    attempt(check_double, double)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"…  double: {NOT_SOLVED}"
    assert lines[1].startswith("✘  double: ")
    assert lines[-1] == "✔  double: solved"
    assert "Traceback" not in "".join(lines)
    assert progress_file() == home / "progress.json"
    assert solved() == {"tests/double"}


def test_progress_grows_and_is_never_lost(home):
    for name in ("b/two", "a/one", "b/two"):
        remember(name)
    assert json.loads(progress_file().read_text()) == ["a/one", "b/two"]
    attempt(check_double, stub)  # what fails now was solved all the same
    assert solved() == {"a/one", "b/two"}
    assert [path.name for path in home.iterdir()] == ["progress.json"]  # nothing half-written


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"5", b"\xff\xfe\x00", b'["a/one"', b"[[1]]", b"[1]", b'{"a/one": 1}']
)
def test_a_damaged_progress_file_counts_as_empty_and_is_written_anew(home, content, capsys):
    home.mkdir()
    progress_file().write_bytes(content)
    assert solved() == set() or content == b'{"a/one": 1}'
    attempt(check_double, double)
    assert "tests/double" in solved()
    assert capsys.readouterr().out == "✔  double: solved\n"


def test_an_interrupted_write_leaves_the_old_progress(home, monkeypatch, capsys):
    remember("a/one")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    attempt(check_double, double)
    out = capsys.readouterr().out
    assert "✔  double: solved" in out
    assert "progress was not saved" in out
    assert "No space left" in out
    assert solved() == {"a/one"}
    assert [path.name for path in progress_file().parent.iterdir()] == ["progress.json"]


def test_progress_lies_in_the_home_folder_unless_told_otherwise(monkeypatch, tmp_path):
    for value in (None, ""):
        monkeypatch.delenv("MMLEARN_HOME") if value is None else monkeypatch.setenv("MMLEARN_HOME", value)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert progress_file() == tmp_path / ".mmlearn" / "progress.json"
        monkeypatch.setenv("MMLEARN_HOME", "x")


# The list.


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package with one exercise of two tasks."""
    path = tmp_path / "package" / "exercises" / "05_small"
    path.mkdir(parents=True)
    (path / "checks.py").write_text(
        textwrap.dedent('''
        import torch
        from mmlearn.exercises import expect, task

        HELPER = 5

        @task(torch.sin, difficulty=1, minutes=3)
        def check_sine(function):
            """The sine."""
            expect(function(torch.zeros(())) == 0, "sin 0 is 0.", "hint")

        @task(torch.cos, difficulty=4, minutes=10)
        def check_cosine(function):
            expect(function(torch.zeros(())) == 1, "cos 0 is 1.", "hint")
        ''')
    )
    (path / "mistakes.py").write_text("MISTAKES = {'sine': {'cosine': (lambda x: x + 1, 'sin 0')}}")
    monkeypatch.setattr(folders, "PACKAGE", tmp_path / "package" / "mmlearn")
    return path


def test_the_tasks_of_a_folder_in_order(folder):
    found = tasks(folder)
    assert [(one.exercise, one.name, one.difficulty, one.minutes) for one in found] == [
        ("05_small", "sine", 1, 3),
        ("05_small", "cosine", 4, 10),
    ]
    for one in found:
        one.check(one.reference)
    assert "cos 0 is 1" in str(failure(found[1].check, found[0].reference))
    attempt(found[0].check, found[0].reference)
    assert solved() == {"05_small/sine"}


def test_an_exercise_of_several_files_is_one(folder):
    (folder / "checks_more.py").write_text(
        "import torch\nfrom mmlearn.exercises import task\nHELPER = 6\n"
        "@task(torch.tan, difficulty=1, minutes=3)\ndef check_tangent(function): pass\n"
    )
    (folder / "mistakes_more.py").write_text("MISTAKES = {'tangent': {}}")
    assert [(one.exercise, one.name) for one in tasks(folder)] == [
        ("05_small", "sine"), ("05_small", "cosine"), ("05_small", "tangent")
    ]  # fmt: skip
    assert list(load_part(folder, "mistakes").MISTAKES) == ["sine", "tangent"]
    checks = load_checks("05_small")
    assert checks.check_sine.task.name == "sine"
    assert checks.check_tangent.task.reference is torch.tan


def test_a_written_out_answer_and_its_steps(folder):
    (folder / "solutions.py").write_text(
        "import torch\n\n\ndef helper(x):\n    return x\n\n\ndef sine(x):\n    # First\n    # this.\n"
        "    x = helper(x)\n    # Then that.\n    return torch.sin(x)\n\n\ndef cosine(x):\n    return torch.cos(x)\n"
    )
    assert steps("05_small", "sine") == ["First this.", "Then that."]
    assert solution("05_small", "sine").startswith("def helper(x):\n    return x\n\n\ndef sine(x):\n    # First\n")
    assert "cosine" not in solution("05_small", "sine")
    with pytest.raises(ValueError, match="no written answer to tangent of 05_small"):
        solution("05_small", "tangent")


def test_folders_in_order_with_a_letter_behind_the_number(folder):
    for name in ("13b_more", "13a_hearing", "no_exercise"):
        (folder.parent / name).mkdir()
        (folder.parent / name / "checks.py").write_text("")
    assert [path.name for path in exercise_folders()] == ["05_small", "13a_hearing", "13b_more"]


def test_parts_of_a_folder_are_loaded_fresh(folder):
    assert set(load_part(folder, "mistakes").MISTAKES) == {"sine"}
    assert load_checks("05_small").HELPER == 5
    assert exercises.exercises_folder() == folder.parent


def test_an_unknown_exercise_is_answered_with_the_nearest(folder):
    refused("no exercise '05_smal'; did you mean '05_small'", load_checks, "05_smal")


def test_without_exercises_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "PACKAGE", tmp_path / "mmlearn")
    with pytest.raises(FileNotFoundError, match="No exercises came with this installation"):
        exercises.exercises_folder()
