"""The trainer's shortcut changes no number: outputs, gradients and recorded maps are the plain transformer's."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from testing_tools import Listed, close, fit, pairs, refused, seeded, shaken
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmlearn.evaluation import count_flops
from mmlearn.layers import Attention, BERTEncoderConfig, Transformer, TransformerConfig, record_attention
from mmlearn.layers.language import MaskedLanguageHead
from mmlearn.models.contrastive.clip import CLIP, CLIPConfig
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training import speed
from mmlearn.training.speed import FastTransformer, backward_in_chunks, encode_in_chunks, recompute_blocks, speed_up

B, N, D = 4, 6, 24
POSITIONS = [0, -1, [0, 4, 5, 2], [[0, 1], [4, 0], [5, 2], [2, 1]]]


@pytest.fixture(autouse=True, params=["short", "long"])
def length(request, monkeypatch):
    """These sequences are short; with the other limit they count as long, and take the fused kernel."""
    if request.param == "long":
        monkeypatch.setattr(speed, "LONG", (0, 0))


def results(model, x, position, *inputs, **more):
    """What is read, and its gradients with respect to tokens, context and weights."""
    if not isinstance(position, int):
        position = torch.tensor(position)[: len(x)]
    output = model.read(x, position, *inputs, **more)
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    leaves = [x, *(y for y in more.values() if torch.is_tensor(y) and y.requires_grad), *model.parameters()]
    return output, *torch.autograd.grad((output * weight).sum(), leaves, allow_unused=True)


def assert_same(model, x, position, *inputs, **more):
    expected = results(model, x, position, *inputs, **more)
    with speed_up(model):
        got = results(model, x, position, *inputs, **more)
    for one, other in zip(got, expected, strict=True):
        close(one, other)


def tokens(b=B):
    torch.manual_seed(0)
    return torch.randn(b, N, D, requires_grad=True)


@pytest.mark.parametrize("b", [1, B])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("mask", ["none", "padding", "holes and a row without tokens", "by query"])
@pytest.mark.parametrize("position", POSITIONS)
def test_outputs_and_gradients_are_equal(position, mask, causal, norm_first, b):
    x, model = tokens(b), Transformer(TransformerConfig(D, 3, 2, norm_first=norm_first))
    real = {
        "none": None,
        "padding": torch.arange(N) < torch.tensor([6, 5, 3, 1])[:b, None],
        "holes and a row without tokens": torch.rand(b, N) < torch.tensor([0.5, 0.7, 0, 0.5])[:b, None],
        "by query": torch.rand(b, N, N) < 0.7,
    }[mask]
    assert_same(model, x, position, real, causal)


@pytest.mark.parametrize("context_blocks", [None, (0, 2), (1,)])
@pytest.mark.parametrize("mask", [None, (4, 5), (4, N, 5)])
@pytest.mark.parametrize("position", POSITIONS)
def test_with_a_context(position, mask, context_blocks):
    x, context = tokens(), torch.randn(B, 5, 7, requires_grad=True)
    model = Transformer(TransformerConfig(D, 3, 2), context_width=7, context_blocks=context_blocks)
    mask = None if mask is None else torch.rand(mask) < 0.6
    assert_same(model, x, position, causal=True, context=context, context_mask=mask)
    assert_same(model, x, position)  # and without it


def test_with_relative_and_rotary_positions():
    x, model = tokens(), Transformer(TransformerConfig(D, 3, 2))
    assert_same(model, x, 0, bias=torch.randn(1, 2, N, N), rotary=torch.randn(N, 6))
    for mask in (torch.rand(B, N) < 0.7, torch.rand(B, N, N) < 0.7):
        assert_same(model, x, 0, mask, bias=torch.randn(1, 2, N, N, requires_grad=True))


def test_weights_are_dropped_in_training_alone():
    x, model = tokens(), Transformer(TransformerConfig(D, 2, 2, dropout=0.0, attention_dropout=0.3))
    with speed_up(model):
        assert not torch.equal(model(x), model(x))
        assert torch.equal(model.eval()(x), model(x))


def test_less_is_computed():
    model, rows = Transformer(TransformerConfig(D, 3, 2)), []
    last, expand = model.blocks[-1], model.blocks[-1].mlp.expand.forward
    last.mlp.expand.forward = lambda x: rows.append(x.shape[1]) or expand(x)
    with speed_up(model):
        model.read(tokens(), 0)
        model.read(tokens(), torch.zeros(B, 2, dtype=torch.long))
        model(tokens())
    model.read(tokens(), 0)
    assert rows == [1, 2, N, N]


def test_whoever_watches_the_last_block_sees_all_of_it():
    x, model = tokens(), Transformer(TransformerConfig(D, 2, 2))
    with record_attention(model) as plain:
        model.read(x, 0)
    with speed_up(model), record_attention(model) as fast:
        model.read(x, 0)
    assert [weights.shape for weights in fast.values()] == [(B, 2, N, N)] * 2
    for name, weights in plain.items():
        close(fast[name], weights)
    seen = []
    model.blocks[1].mlp.register_forward_hook(lambda _, __, output: seen.append(output.shape))
    with speed_up(model):
        model.read(x, 0)
    assert seen == [(B, N, D)]


def test_dropout_in_training_and_its_absence_in_evaluation():
    x, model = tokens(), Transformer(TransformerConfig(D, 2, 2, dropout=0.3))
    with speed_up(model):
        assert not torch.equal(model.read(x, 0), model.read(x, 0))
    assert_same(model.eval(), x, 0)


def test_it_is_undone_also_after_an_error_and_leaves_subclasses_alone():
    class Own(Transformer):
        pass

    model = nn.ModuleList([Transformer(TransformerConfig(D, 1, 2)), Own(TransformerConfig(D, 1, 2))])
    names = list(model.state_dict())
    with pytest.raises(RuntimeError, match="on purpose"), speed_up(model) as fast:  # noqa: PT012
        assert [type(module) for module in fast] == [FastTransformer, Own]
        assert list(model.state_dict()) == names
        raise RuntimeError("on purpose")
    assert [type(module) for module in model] == [Transformer, Own]


def test_the_trainer_uses_it_and_hands_back_the_plain_model():
    model, batch = CLIP(CLIPConfig.tiny()), pairs(4)
    before, during = model.loss(batch)["itc"], []
    note = lambda *_: during.append(type(model.text_encoder.transformer))  # noqa: E731
    rows = Listed([{name: values[i] for name, values in batch.items()} for i in range(4)])
    collate = torch.utils.data.default_collate
    history = fit(model, rows, collate, steps=1, batch_size=4, on_step=note, progress=False)
    assert during == [FastTransformer]
    assert type(model.text_encoder.transformer) is Transformer
    assert history[0]["itc"] == pytest.approx(before.item(), abs=1e-5)


def test_long_sequences_take_the_fused_kernel(monkeypatch):
    taken = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *x, **more: taken.append(1) or kernel(*x, **more))
    model = Transformer(TransformerConfig(D, 2, 2))
    for limit, expected in ((N * N + 1, 0), (N * N, 2)):
        monkeypatch.setattr(speed, "LONG", (limit, limit))
        with speed_up(model):
            model(tokens())
        assert len(taken) == expected
    with speed_up(model), record_attention(model):
        model(tokens())
    model(tokens())
    assert len(taken) == 2
    for learns, expected in ((False, 4), (True, 4)):  # on a CPU the kernel has no gradient of a bias
        with speed_up(model):
            model(tokens(), bias=torch.randn(1, 2, N, N, requires_grad=learns))
        assert len(taken) == expected


def test_with_several_threads_sequences_are_long_later(monkeypatch):
    taken = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *x, **more: taken.append(1) or kernel(*x, **more))
    monkeypatch.setattr(speed, "LONG", (N * N, N * N + 1))
    layer, found = Attention(D, 2), []
    with speed_up(layer):
        for threads, expected in ((1, [1]), (2, [1])):
            monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            found.append(layer(tokens()))
            assert taken == expected
    close(*found)


@pytest.mark.parametrize("bias", [None, torch.linspace(-9, 9, 2 * N * N).view(1, 2, N, N)])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("real", [[6, 5, 3, 1], [6, 0, 3, 1]])  # of the second a row has no key
def test_short_sequences_give_the_same_bits(monkeypatch, real, causal, bias):
    monkeypatch.setattr(speed, "LONG", (N * N + 1,) * 2)
    mask, filled = torch.arange(N) < torch.tensor(real)[:, None], []
    fill = torch.Tensor.masked_fill
    monkeypatch.setattr(torch.Tensor, "masked_fill", lambda x, *more: filled.append(x.shape) or fill(x, *more))
    layer, x = Attention(D, 2), tokens()
    found = []
    for quick in (False, True):
        filled.clear()
        with speed_up(layer) if quick else nullcontext():
            output = layer(x, None, mask, causal, bias)
        found.append([output, *torch.autograd.grad(output.pow(2).sum(), [x, *layer.parameters()])])
        assert ((B, 2, N, N) in filled) == (not quick or min(real) == 0)  # scores are filled, or not
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("mask", [None, torch.tensor([[1, 1, 0], [0, 0, 0]]).bool()])
def test_one_query_takes_the_fused_kernel_where_no_gradient_is_kept(monkeypatch, mask):
    taken = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *x, **more: taken.append(1) or kernel(*x, **more))
    monkeypatch.setattr(speed, "LONG", (N * N,) * 2)
    layer = Attention(D, 2)
    query, context = torch.randn(2, 1, D), torch.randn(2, 3, D)
    expected = layer(query, context, mask)
    with speed_up(layer):
        close(layer(query, context, mask), expected)
        assert not taken
        with torch.no_grad():
            close(layer(query, context, mask), expected)  # a row may attend nothing
            assert taken == [1]
            layer(query.expand(2, 2, D), context, mask)
    assert taken == [1]


# Rows without a gradient.


@pytest.fixture
def large(monkeypatch):
    """Matrices of these tests count as large."""
    monkeypatch.setattr(speed, "LARGE", 1)


EMPTY_ROWS = {"none": [], "some": [1, 4, 5, 7], "all": list(range(8)), "all but one": [0, 1, 2, 4, 5, 6, 7]}


def backward(say, x, learned, gradient):
    """What is said of x, and the gradients of x, where it wants one, and of what learns."""
    said = say(x)
    return said, *torch.autograd.grad(said, [*([x] if x.requires_grad else []), *learned], gradient)


def assert_equal_backward(model, say, x, learned, gradient):
    expected = backward(say, x, learned, gradient)
    with speed_up(model):
        got = backward(say, x, learned, gradient)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("given", ["all", "x of data", "no bias", "frozen", "all but bias frozen"])
@pytest.mark.parametrize("empty", EMPTY_ROWS)
@pytest.mark.parametrize("share", [0, speed.SHARE])
def test_rows_without_a_gradient_change_nothing(monkeypatch, share, empty, given):
    monkeypatch.setattr(speed, "SHARE", share)
    layer = nn.Linear(40, 60, bias=given != "no bias").double()
    learned = [p for name, p in layer.named_parameters() if name == "bias" or "frozen" not in given]
    layer.weight.requires_grad_("frozen" not in given)
    x = torch.randn(2, 4, 40, dtype=torch.float64, requires_grad=given not in ("x of data", "all but bias frozen"))
    gradient = torch.randn(2, 4, 60, dtype=torch.float64)
    gradient[0, 3, :50] = 0  # begins like an empty row
    gradient.view(8, 60)[EMPTY_ROWS[empty]] = 0
    pieces = lambda x: x, lambda x: x.transpose(0, 1), lambda x: x[:, 0], lambda x: x[1, 2], lambda x: x[:0]
    for piece in pieces:
        assert_equal_backward(layer, lambda x, piece=piece: layer(piece(x)), x, learned, piece(gradient))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("frozen", [False, True])
def test_a_language_head_is_the_plain_one(frozen):
    head = shaken(MaskedLanguageHead(BERTEncoderConfig(40, 1, 2, vocab_size=60)).double())
    table = nn.Parameter(torch.randn(60, 40, dtype=torch.float64), requires_grad=not frozen)
    x, gradient = torch.randn(2, 4, 40, dtype=torch.float64, requires_grad=True), torch.randn(2, 4, 60).double()
    gradient[:, 2:] = 0
    learned = [*head.parameters(), *([] if frozen else [table])]
    assert_equal_backward(head, lambda x: head(x, table), x, learned, gradient)


@pytest.mark.usefixtures("large")
def test_rows_without_a_gradient_are_not_multiplied():
    x, layer = torch.randn(2, 4, 256, requires_grad=True), nn.Linear(256, 128)
    head = MaskedLanguageHead(BERTEncoderConfig(256, 1, 2, vocab_size=300))
    table = nn.Parameter(torch.randn(300, 256))
    for model, say, products in (
        (layer, layer, [(128, 256)]),
        (head, lambda x: head(x, table), [(256, 256), (300, 256)]),
    ):
        costs = []
        for quick in (False, True):
            with speed_up(model) if quick else nullcontext():
                output = say(x)[0, 1:]  # 3 rows of 8
                costs.append(count_flops(lambda output=output: output.sum().backward()))
        one_row = sum(2 * 2 * a * b for a, b in products)  # the gradients of rows and of the matrix
        assert costs == [8 * one_row, 3 * one_row]


@torch.no_grad()
def test_a_row_is_empty_where_every_number_is_0():
    gradient = torch.zeros(100, 256)
    gradient[1, 200] = -1e-30
    gradient[2, 7:9] = torch.tensor([1, -1])  # their sum is 0
    gradient[3, 9] = torch.nan
    gradient[4, 3] = 1
    assert speed._rows_with_gradient(gradient).tolist() == [1, 2, 3, 4]


@torch.no_grad()
def test_few_rows_without_a_gradient_are_not_worth_a_copy():
    gradient = torch.randn(100, 256)
    gradient[:8] = 0
    gradient[8:50, :200] = 0  # these begin like empty rows
    assert speed._rows_with_gradient(gradient) is None
    gradient[8] = 0
    assert speed._rows_with_gradient(gradient).tolist() == list(range(9, 100))


@pytest.mark.usefixtures("large")
def test_nan_is_not_taken_for_zero():
    layer, gradient = nn.Linear(40, 60), torch.zeros(8, 60)
    gradient[2, 5] = torch.nan
    with speed_up(layer):
        layer(torch.randn(8, 40)).backward(gradient)
    assert layer.bias.grad[5].isnan()
    assert layer.weight.grad[5].isnan().all()


@pytest.mark.usefixtures("large")
def test_gradients_of_gradients():
    """A row whose gradient is 0 has a second one that is not."""
    layer = nn.Linear(3, 5).double()
    inputs = torch.randn(6, 3, dtype=torch.float64, requires_grad=True), *layer.parameters()
    empty = torch.zeros(6, 5, dtype=torch.float64)
    empty[4:] = torch.randn(2, 5, dtype=torch.float64)
    with speed_up(layer):
        say = lambda x, weight, bias: speed.fast_linear(x, weight, bias)  # noqa: E731
        assert torch.autograd.gradgradcheck(say, inputs, empty.requires_grad_())


@pytest.mark.usefixtures("large")
def test_what_a_layer_says_can_be_changed_in_place():
    layer = nn.Linear(40, 60)
    with speed_up(layer):
        said = layer(torch.randn(2, 4, 40))
        said += 1
        said.relu_().sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.usefixtures("large")
def test_of_frozen_layers_the_input_is_not_kept():
    layer, kept = nn.Linear(40, 60).requires_grad_(False), []
    with speed_up(layer), torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        layer(torch.randn(8, 40, requires_grad=True))
        layer.weight.requires_grad_()
        layer(torch.randn(8, 40))
    assert kept == [(60, 40), (8, 40)]


@pytest.mark.usefixtures("large")
def test_padding_with_blocks_computed_again_and_in_chunks():
    recipe = find_recipe("clip")
    torch.manual_seed(0)
    system, batch = recipe.make(recipe.tiny()).train(), next(recipe.examples(recipe.tiny(), 8))
    batch["mask"][:, 3:] = False
    whole = gradients(system, batch, None)
    with speed_up(system), recompute_blocks(system):
        quick = gradients(system, batch, 3)
    for key, value in whole.items():
        close(quick[key], value, 1e-6 * max(1, value.abs().max().item()))


def test_rows_are_looked_at_only_where_that_is_possible(monkeypatch):
    """Not in a plan, whose tensors have no values, not in half precision, not where no gradient is kept.

    Nor where a matrix is small.
    """
    monkeypatch.setattr(speed, "LARGE", 128)
    layer, x = nn.Linear(256, 128), torch.randn(8, 256)

    def by_rows(x):
        said = layer(x).grad_fn
        return said is not None and "LinearByRows" in str(said.next_functions)

    with speed_up(layer):
        assert by_rows(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert not by_rows(x)
        with torch.no_grad():
            assert not by_rows(x)
        monkeypatch.setattr(speed, "LARGE", 129)
        assert not by_rows(x)
    with speed_up(layer):
        assert type(layer) is nn.Linear
    monkeypatch.setattr(speed, "LARGE", 128)
    with FakeTensorMode(), speed_up(nn.Linear(256, 128)) as layer:
        assert not by_rows(torch.empty(8, 256))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_blocks_computed_again_change_nothing(dropout):
    model = Transformer(TransformerConfig(D, 3, 2, dropout=dropout)).train()
    found = []
    for again in (False, True):
        x = tokens()
        torch.manual_seed(1)
        with recompute_blocks(model) if again else nullcontext():
            found.append(results(model, x, 0, None, True))
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)
    assert all("forward" not in vars(block) for block in model.blocks)


def test_the_trainer_computes_blocks_again_where_it_is_asked_to():
    weights, batch = [], pairs(4)
    rows = Listed([{name: values[i] for name, values in batch.items()} for i in range(4)])
    for recompute in (False, True):
        torch.manual_seed(0)
        model, calls = CLIP(CLIPConfig.tiny()), []
        model.text_encoder.transformer.blocks[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        collate = torch.utils.data.default_collate
        fit(model, rows, collate, steps=2, batch_size=4, recompute=recompute, progress=False)
        weights.append(model.state_dict())
        assert len(calls) == (4 if recompute else 2)
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def gradients(system, batch, chunk):
    """Of the loss with respect to every weight that learns."""
    system.zero_grad()
    with encode_in_chunks(system, chunk) if chunk else nullcontext():
        sum(system.loss(batch).values()).backward()
    return {name: value.grad for name, value in system.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("name", ["clip", "siglip", "filip", "lit", "vse", "image-bind"])
@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
def test_gradients_in_chunks_are_those_of_the_whole_batch(name, chunk):
    recipe = find_recipe(name)
    torch.manual_seed(0)
    system, batch = recipe.make(recipe.tiny()).train(), next(recipe.examples(recipe.tiny(), 8))
    whole, chunks = gradients(system, batch, None), gradients(system, batch, chunk)
    assert whole.keys() == chunks.keys()
    assert len(whole) >= 7
    for key, value in whole.items():
        close(chunks[key], value, 1e-6 * max(1, value.abs().max().item()))
    assert not any(key.startswith("encode_") or key == "loss" for key in vars(system))


def test_towers_read_no_more_than_a_chunk_and_keep_little():
    recipe, sizes, kept = find_recipe("clip"), [], []
    system, batch = recipe.make(recipe.tiny()).train(), next(recipe.examples(recipe.tiny(), 8))
    system.image_encoder.transformer.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    for chunk in (None, 3):
        found = {}

        def keep(x, found=found):
            found[x.data_ptr()] = x.nbytes
            return x

        chunks = encode_in_chunks(system, chunk) if chunk else nullcontext()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), chunks:
            loss = sum(system.loss(batch).values())
            kept.append(sum(found.values()))
            loss.backward()
    assert kept[1] < kept[0] / 2
    assert max(sizes[1:]) == 3


def test_the_trainer_reads_in_chunks_and_refuses_what_it_is_not_for():
    weights = []
    for chunk in (None, 2):
        weights.append(trained("clip", chunk=chunk))
    for name, value in weights[0].items():
        close(weights[1][name], value)
    refused("The loss of GPT2 asks no tower for embeddings: leave chunks out", trained, "gpt2", chunk=2)


def trained(name, **options):
    """The weights after two steps."""
    recipe = find_recipe(name)
    torch.manual_seed(0)
    system, batch = recipe.make(recipe.tiny()), next(recipe.examples(recipe.tiny(), 4))
    rows = Listed([{key: values[i] for key, values in batch.items()} for i in range(4)])
    collate = torch.utils.data.default_collate
    fit(system, rows, collate, steps=2, batch_size=4, progress=False, **options)
    return system.state_dict()


def test_chunks_that_would_change_what_is_learned_are_refused():
    recipe = find_recipe("clip")
    system = recipe.make(recipe.tiny())
    with pytest.raises(RuntimeError, match="on purpose"), speed.save_memory(system, True, 2):
        raise RuntimeError("on purpose")
    assert not any("loss" in vars(part) or "forward" in vars(part) for part in system.modules())
    refused("at least one row, got 0", encode_in_chunks(system, 0).__enter__)
    recipe = find_recipe("clap")
    with encode_in_chunks(recipe.make(recipe.tiny()).eval(), 4):
        pass  # what was counted before is the same for each chunk
    refused("CLAP normalises over the batch", encode_in_chunks(recipe.make(recipe.tiny()).train(), 4).__enter__)
    recipe = find_recipe("vatt")  # drops tokens
    system, batch = recipe.make(recipe.tiny()).eval(), next(recipe.examples(recipe.tiny(), 4))
    heard = batch["waveform"], batch["waveform_mask"]
    with encode_in_chunks(system, 2):
        assert system.encode_audio(*heard, None).shape[0] == 4
        refused("VATT draws within its towers, and chunks would", system.encode_audio, *heard, seeded())


@pytest.mark.parametrize("size", [1, 3, 7, 20])
def test_backward_in_chunks_is_that_of_all_rows(size):
    """Gradients are added to what is there, of the encoder and of what the loss learns, and one chunk is kept."""
    x, target, rows = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64), []
    encoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    learned = [*encoder.parameters(), scale]

    def loss(embedding):
        return F.cross_entropy(scale * embedding @ target.T, torch.arange(7))

    def encode(chunk):
        rows.append((len(chunk), torch.is_grad_enabled()))
        return encoder(chunk)

    wanted = loss(encoder(x))
    gradients = torch.autograd.grad(wanted, learned)
    for parameter in learned:
        parameter.grad = torch.ones_like(parameter)
    got = backward_in_chunks(encode, loss, x, size)
    torch.testing.assert_close(got, wanted.detach(), atol=1e-12, rtol=1e-12)
    for parameter, gradient in zip(learned, gradients):
        torch.testing.assert_close(parameter.grad, 1 + gradient, atol=1e-12, rtol=1e-12)
    once = [len(chunk) for chunk in x.split(size)]
    assert rows == [(n, False) for n in once] + [(n, True) for n in once]
