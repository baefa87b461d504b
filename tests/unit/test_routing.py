"""Every routing scheme, and what each of them promises."""

import math
from functools import partial

import pytest
import timm
import torch
from timm.layers import GluMlp, Mlp, SwiGLU, SwiGLUPacked

from ufo_large.models.extract import dense_trunk_state
from ufo_large.routing import ROUTERS, Route
from ufo_large.routing.base import routed_blocks
from ufo_large.routing.clone import clone_module
from ufo_large.routing.learned import OWN_PATH
from ufo_large.routing.mlps import hidden_size, resized, side_by_side, widened
from ufo_large.routing.token_topk import balance_loss, mutual_information
from ufo_large.structures import role_of
from ufo_large.testing.models import tiny_trunk
from ufo_large.testing.routing import TASKS, build, check_router, disturb, run

SCHEMES = {
    "shared": {},
    "task": {},
    "task in every block": {"blocks": (0, 1, 2, 3)},
    "task, attention only": {"parts": ("attention",)},
    "task, all parts": {"blocks": (0, 2, 3), "parts": ("mlp", "attention", "norms")},
    "task, one has its own": {"tasks": ("b",)},
    "task, one shares with nobody": {"tasks": ("a", "c"), "parts": ("mlp", "norms")},
    "learned": {},
    "learned in every block": {"blocks": (0, 1, 2, 3)},
    "learned, all parts": {"blocks": (0, 2, 3), "parts": ("norms", "attention", "mlp")},
    "residual": {},
    "residual in every block": {"blocks": (0, 1, 2, 3)},
    "residual, as wide": {"fraction": 1.0},
    "token_topk": {},
    "token_topk, all experts": {"num_experts": 3, "k": 3},
    "token_topk without losses": {"balance": 0.0, "mutual_information": 0.0},
}


def config(scheme: str, **options):
    name = scheme.split(",")[0].split(" ")[0]
    return ROUTERS[name].Config(**SCHEMES[scheme], **options)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_contract(scheme):
    check_router(config(scheme))


def test_default_blocks_are_every_second_of_the_later_half():
    assert routed_blocks(None, 12) == (7, 9, 11)
    assert routed_blocks(None, 6) == (3, 5)
    assert routed_blocks(None, 1) == (0,)
    assert routed_blocks((2, 0, 2), 3) == (0, 2)


@pytest.mark.parametrize(
    ("scheme", "options", "message"),
    [
        ("task", {"blocks": (1, 4)}, r"\[4\].*blocks 0 to 3.*router.blocks=none .*half: 3\), .*blocks=2,3$"),
        ("shared", {"blocks": (1,)}, "have no effect"),
        ("shared", {"parts": ("attention",)}, "have no effect"),
        ("task", {"parts": ("mpl",)}, "Did you mean 'mlp'"),
        ("task", {"parts": ()}, "name some of mlp, attention, norms"),
        ("learned", {"parts": ("norms", "norms")}, "each once"),
        ("task", {"tasks": ("d",)}, "router.tasks names 'd', which is no task of this model.* a, b, c"),
        ("token_topk", {"parts": ("mlp", "attention")}, "use parts=mlp, or the scheme task or learned"),
        ("learned", {"decide_at": 0.0}, "decide_at=0.0"),
        ("learned", {"end_temperature": 0.0}, "must be positive"),
        ("learned", {"choice_rate": 0.0}, "choice_rate=0.0: must be positive"),
        ("token_topk", {"k": 1}, "no gradient"),
        ("token_topk", {"k": 5}, "2 to num_experts=4"),
        ("token_topk", {"balance": -1.0}, "must be 0"),
        ("residual", {"parts": ("mlp", "norms")}, "use parts=mlp, or the scheme task or learned"),
        ("residual", {"fraction": 0.0}, "fraction=0.0"),
        ("residual", {"fraction": 1.5}, "fraction=1.5"),
    ],
)
def test_options_that_cannot_work_are_refused(scheme, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_trunk(router=ROUTERS[scheme].Config(**options)).build(TASKS)


def test_offload_is_refused_where_it_would_lose_losses():
    with pytest.raises(ValueError, match="loses the auxiliary losses"):
        tiny_trunk("token_topk", checkpointing="offload").build(TASKS)


def calls(trunk) -> dict[str, int]:
    """Count forward calls of every path of every bank."""
    counts: dict[str, int] = {}
    for place, bank in trunk.banks().items():
        for name, path in [("shared", bank.shared), *bank.experts.items()]:
            key = f"{place}/{name}"
            counts[key] = 0
            path.register_forward_hook(lambda *_, key=key: counts.__setitem__(key, counts[key] + 1))
    return counts


class TestLearned:
    def prefer(self, trunk, task: str, logit: float) -> None:
        for bank in trunk.banks().values():
            bank.choices[task].logits_2.data = torch.tensor([0.0, logit])

    def test_both_paths_are_computed_until_decided_and_one_from_then_on(self):
        trunk = build(config("learned"))
        self.prefer(trunk, "a", 3.0)
        counts = calls(trunk)
        run(trunk, "a")
        assert counts == {k: int(k.endswith(("/shared", "/a"))) for k in counts}
        trunk.route.progress = 0.6
        counts.update(dict.fromkeys(counts, 0))
        run(trunk, "a")
        assert {k for k, n in counts.items() if n} == {k for k in counts if k.endswith("/a")}

    def test_prediction_computes_the_likelier_path_alone(self):
        trunk = build(config("learned")).eval()
        self.prefer(trunk, "a", 3.0)
        counts = calls(trunk)
        run(trunk, "a")
        run(trunk, "b")
        assert {k.split("/")[1] for k, n in counts.items() if n} == {"a", "shared"}

    def test_a_decision_outlives_the_logits_and_a_reload(self):
        trunk = build(config("learned"))
        self.prefer(trunk, "a", 3.0)
        trunk.route.progress = 1.0
        expected = run(disturb(trunk), "a")
        trunk.route.progress = 0.1  # a longer run, or one that starts from these weights
        self.prefer(trunk, "a", -3.0)
        assert all(map(torch.equal, run(trunk, "a"), expected))
        other = build(config("learned")).eval()
        run(other, "a")
        other.load_state_dict(trunk.state_dict())
        assert all(map(torch.equal, run(other, "a"), expected))

    def test_the_gradient_of_a_choice_is_that_of_the_soft_mixture(self):
        """Straight-through: d loss / d share_i = <d loss / d output, path_i>, checked by hand."""
        trunk = disturb(build(config("learned", start_temperature=1.0, end_temperature=1.0)))
        bank = trunk.banks()["blocks.3.mlp"]
        x = torch.randn(2, 5, 48)
        upstream = torch.randn(2, 5, 48)
        trunk.route.begin("a", training=True)
        bank(x).backward(upstream)
        with torch.no_grad():
            paths = torch.stack([(upstream * bank.shared(x)).sum(), (upstream * bank.experts["a"](x)).sum()])
            logits = bank.choices["a"].logits_2.clone()
        logits.requires_grad_()
        shares = (logits + bank._noise()).softmax(0)
        (expected,) = torch.autograd.grad(shares @ paths, logits)
        torch.testing.assert_close(bank.choices["a"].logits_2.grad, expected, atol=1e-4, rtol=1e-4)

    def test_draws_follow_the_shares_and_the_state_resumes(self):
        trunk = disturb(build(config("learned", blocks=(3,))))
        trunk.route.draws = 10
        state, expected = trunk.route.state_dict(), [run(trunk, "a")[0] for _ in range(6)]
        assert len({e.sum().item() for e in expected}) == 2  # both paths were drawn
        other = disturb(build(config("learned", blocks=(3,))))
        other.route.load_state_dict(state)
        assert all(torch.equal(run(other, "a")[0], e) for e in expected)


class TestResidual:
    def test_before_training_it_is_the_shared_model_bitwise(self):
        shared, trunk = build(config("shared")), build(config("residual in every block"))
        for training in (True, False):
            for task in TASKS:
                pairs = zip(run(shared.train(training), task), run(trunk.train(training), task), strict=True)
                assert all(torch.equal(a, b) for a, b in pairs)

    def test_the_shared_parameters_learn_from_every_task_as_without_experts(self):
        shared, trunk = build(config("shared")), build(config("residual in every block"))
        for task in TASKS:
            for model in (shared, trunk):
                model.zero_grad()
                sum(x.square().mean() for x in run(model, task)).backward()
            found = {n.replace(".shared.", "."): p.grad for n, p in trunk.named_parameters()}
            for name, parameter in shared.named_parameters():
                assert torch.equal(found[name], parameter.grad), name
            own = [p.grad for n, p in trunk.named_parameters() if f".experts.{task}.fc2" in n]
            assert len(own) == 8 and all(grad.abs().sum() > 0 for grad in own)

    def test_an_expert_is_a_fraction_of_the_shared_mlp(self):
        """Width 48, 192 hidden units; at least one is left."""
        for fraction, hidden in ((0.25, 48), (0.1, 19), (1.0, 192), (0.001, 1)):
            bank = build(config("residual", fraction=fraction)).banks()["blocks.3.mlp"]
            assert bank.experts["a"].fc1.weight.shape == (hidden, 48)
            assert bank.shared.fc1.weight.shape == (192, 48)

    def test_the_log_tells_how_much_of_the_output_is_the_experts(self):
        trunk = build(config("residual"))
        run(trunk, "a")
        assert trunk.route.statistics["own_part"] == 0
        for bank in trunk.banks().values():
            bank.experts["a"] = bank.shared
        run(trunk, "a")
        assert trunk.route.statistics["own_part"] == 0.5

    @pytest.mark.parametrize("drawn", ["fc1.weight", "fc2.weight", "fc1.bias", "fc2.bias"])
    def test_streamed_values_are_those_of_a_new_expert(self, drawn):
        """Zero where the constructor gives zero, else of one standard deviation (within 5 %)."""
        bank = build(config("residual", fraction=1.0)).banks()["blocks.3.mlp"]
        made = bank.experts["a"].get_parameter(drawn)
        value = bank.fresh(f"experts.a.{drawn}", made.shape, torch.Generator().manual_seed(0))
        assert value.shape == made.shape
        assert value.std().item() == pytest.approx(made.std().item(), rel=0.05)
        assert bool(value.any()) == (drawn == "fc1.weight")

    def test_an_mlp_that_it_cannot_narrow_is_refused(self):
        router = config("residual").build(TASKS, Route(), depth=4)
        with pytest.raises(ValueError, match="blocks.3.mlp is a Linear; use router=task or learned"):
            router.bank("blocks.3.mlp", torch.nn.Linear(2, 2))


MLPS = {
    "plain": partial(Mlp, 6, 10),
    "without biases": partial(Mlp, 6, 10, bias=False),
    "another output width": partial(Mlp, 6, 10, out_features=4, act_layer=torch.nn.ReLU),
    "GLU": partial(GluMlp, 6, 20),
    "packed SwiGLU": partial(SwiGLUPacked, 6, 20),
    "SwiGLU": partial(SwiGLU, 6, 10, bias=(False, True)),
}


@pytest.mark.parametrize("kind", MLPS)
def test_two_mlps_side_by_side_are_one(kind):
    """In float64; measured 2e-15."""
    mlp = MLPS[kind]().double()
    other = resized(mlp, 3)
    assert (hidden_size(mlp), hidden_size(other), type(other)) == (10, 3, type(mlp))
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    both = side_by_side(mlp, other)
    assert hidden_size(both) == 13
    torch.testing.assert_close(both(x), mlp(x) + other(x), atol=1e-14, rtol=0)
    wide = widened(mlp, 12)
    assert hidden_size(wide) == 12
    torch.testing.assert_close(wide(x), mlp(x), atol=1e-14, rtol=0)


def test_mlps_that_normalise_their_units_are_not_one():
    mlp = SwiGLU(6, 10, norm_layer=partial(torch.nn.LayerNorm, eps=0.1))
    other = resized(mlp, 3)
    assert other.norm.normalized_shape == (3,) and other.norm.eps == 0.1
    with pytest.raises(ValueError, match="normalise their hidden units together"):
        side_by_side(mlp, other)


def test_a_network_of_normalised_mlps_is_not_cut_out():
    options = {"name": "eva02_large_patch14_224", "patch_size": 14, "img_size": 42}
    trunk = tiny_trunk("residual", **options).build(TASKS)
    with pytest.raises(ValueError, match="task 'a', blocks.3.mlp: .*normalise.*save the whole model"):
        dense_trunk_state(trunk, "a")


class TestTokenTopK:
    def test_output_is_the_weighted_sum_of_the_chosen_experts(self):
        """Against a dense loop over tokens."""
        trunk = disturb(build(config("token_topk")))
        bank = trunk.banks()["blocks.3.mlp"]
        x = torch.randn(2, 5, 48)
        trunk.route.begin("b", training=False)
        with torch.no_grad():
            ours = bank(x)
            for image in range(2):
                for token in range(5):
                    shares = bank.gates["b"](x[image, token]).softmax(0)
                    best = shares.argsort(descending=True)[:2]
                    outputs = torch.stack([bank.experts[str(int(e))](x[image, token]) for e in best])
                    expected = (shares[best] / shares[best].sum()) @ outputs
                    torch.testing.assert_close(ours[image, token], expected, atol=1e-5, rtol=0)

    def test_an_expert_without_tokens_still_runs(self):
        trunk = build(config("token_topk"))
        for bank in trunk.banks().values():
            gate = bank.gates["a"].weight.data
            gate.zero_()
            bank.register_forward_pre_hook(lambda _, args: (args[0].abs(),))
            gate[:2] = 1.0  # inputs are positive, so experts 0 and 1 win everywhere
        sum(x.sum() for x in run(trunk, "a")).backward()
        expert = trunk.banks()["blocks.3.mlp"].experts["3"]
        assert expert.fc1.weight.grad is not None and not expert.fc1.weight.grad.any()

    def test_losses_by_hand(self):
        even, crowded = torch.full((4,), 0.25), torch.tensor([1.0, 0, 0, 0])
        assert balance_loss(even, even) == 1
        assert balance_loss(crowded, crowded) == 4
        assert mutual_information(torch.stack([even, even])) == 0
        apart = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
        assert mutual_information(apart) == pytest.approx(math.log(2))

    @pytest.mark.parametrize("seen_before", [False, True])
    def test_a_pass_that_is_not_finite_leaves_nothing_in_memory(self, seen_before):
        """Its step is skipped; what other tasks remember of it would never be finite again."""
        trunk = build(config("token_topk"))
        if seen_before:
            run(trunk, "a")
        with torch.no_grad():
            for bank in trunk.banks().values():
                bank.gates["a"].weight[0, 0] = torch.nan
        run(trunk, "a")
        run(trunk, "b")
        assert any(key.endswith("/a") for key in trunk.route.memory)
        assert all(value.isfinite().all() for value in trunk.route.memory.values())
        assert trunk.route.losses["mutual_information"].isfinite()

    def test_losses_add_up_over_blocks_and_only_in_training(self):
        trunk = build(config("token_topk", blocks=(0, 1)))
        run(trunk, "a")
        assert trunk.route.losses["balance"].item() == pytest.approx(0.01, rel=0.05)
        assert trunk.route.losses["mutual_information"].item() == 0  # one task so far
        run(trunk.eval(), "a")
        assert not trunk.route.losses

    def test_tasks_that_differ_lower_the_information_loss(self):
        trunk = disturb(build(config("token_topk")), seed=5)
        for task in TASKS:
            run(trunk, task)
        assert trunk.route.losses["mutual_information"].item() < 0
        state = trunk.route.state_dict()
        expected = run(trunk, "a"), trunk.route.losses["mutual_information"]
        other = disturb(build(config("token_topk")), seed=5)
        other.route.load_state_dict(state)
        run(other, "a")
        assert torch.equal(other.route.losses["mutual_information"], expected[1])

    def test_recomputation_reports_nothing_twice(self):
        trunk = tiny_trunk("token_topk", checkpointing="full").build(TASKS)
        pooled, _ = run(trunk, "a")
        before = dict(trunk.route.losses), dict(trunk.route._pending)
        (pooled.sum() + sum(trunk.route.losses.values())).backward()
        assert all(trunk.route.losses[k] is v for k, v in before[0].items())
        assert all(trunk.route._pending[k] is v for k, v in before[1].items())

    def test_experts_are_shared_and_gates_belong_to_their_task(self):
        for name, parameter in build(config("token_topk")).named_parameters():
            expected = name.split(".gates.")[1].split(".")[0] if ".gates." in name else None
            assert role_of(parameter).task == expected


def test_a_clone_shares_neither_parameters_nor_hooks():
    mlp = build(config("shared")).vit.blocks[0].mlp
    twin = clone_module(mlp)
    mlp.register_forward_hook(lambda *_: pytest.fail("called"))
    mlp.act.register_forward_hook(lambda *_: pytest.fail("called"))
    twin(torch.randn(1, 48))
    assert all(
        a is not b and torch.equal(a, b) for a, b in zip(mlp.parameters(), twin.parameters(), strict=True)
    )


def test_a_clone_keeps_buffers_and_what_a_layer_holds_beside_its_children():
    """EVA's attention has biases and a buffer of its own; a batch norm counts."""
    norm = torch.nn.BatchNorm2d(2)
    norm(torch.randn(4, 2, 3, 3))
    attention = timm.create_model("eva_giant_patch14_224", depth=1, embed_dim=48, num_heads=3).blocks[0].attn
    for module in (norm, attention):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter)
        twin = clone_module(module)
        assert list(twin.state_dict()) == list(module.state_dict())
        assert all(map(torch.equal, twin.state_dict().values(), module.state_dict().values()))
        assert all(a is not b for a, b in zip(module.buffers(), twin.buffers(), strict=True))
    x = torch.randn(1, 5, 48)
    assert torch.equal(attention(x), twin(x))


def test_statistics_are_scalars_averaged_over_blocks():
    for scheme, keys in {"learned": {"own_path", "entropy"}, "token_topk": {"entropy", "load_0"}}.items():
        trunk = build(config(scheme))
        run(trunk, "a")
        assert keys <= set(trunk.route.statistics)
        assert all(v.ndim == 0 and not v.requires_grad for v in trunk.route.statistics.values())
    route = Route()
    route.begin("a", training=True)
    for value in (1.0, 2.0, 6.0):
        route.observe("x", torch.tensor(value))
    assert route.statistics["x"] == 3.0


def test_a_decided_choice_is_still_reported():
    """One of two tasks in one block prefers its own path: that is its load, without entropy."""
    trunk = tiny_trunk(ROUTERS["learned"].Config(blocks=(2,), decide_at=0.5)).build(("a", "b")).train()
    trunk.route.progress = 0.6
    bank = trunk.banks()["blocks.2.mlp"]
    with torch.no_grad():
        bank.choices["a"].logits_2[OWN_PATH] = 3.0
    seen = {}
    for task in ("a", "b"):
        trunk(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.tensor([[32, 32]]), task)
        seen[task] = {name: float(value) for name, value in trunk.route.statistics.items()}
    own, shared = "path/blocks.2.mlp/own", "path/blocks.2.mlp/shared"
    assert seen == {
        "a": {"own_path": 1.0, shared: 0.0, own: 1.0, "entropy": 0.0},
        "b": {"own_path": 0.0, shared: 1.0, own: 0.0, "entropy": 0.0},
    }


def test_the_shares_of_a_banks_experts_add_up():
    trunk = build(config("token_topk"))
    run(trunk, "a")
    banks = {name.split("/")[1] for name in trunk.route.statistics if name.startswith("path/")}
    assert banks == set(trunk.banks())
    for bank in banks:
        shares = [v for name, v in trunk.route.statistics.items() if name.startswith(f"path/{bank}/")]
        assert float(sum(shares)) == pytest.approx(1.0)
