"""How pocket experts are made: training that can resume, evaluation, and no work when nothing changed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cluster.pocket.expert_folder import EXPERTS
from cluster.pocket.generate import accuracy_by_kind, greedy_answers, load_expert
from cluster.pocket.questions import Question, questions
from cluster.pocket.recipe import RECIPES
from cluster.pocket.train_experts import main, make_experts
from cluster.pocket.training import Training, grown, train

TINY = replace(
    RECIPES["arithmetic"], name="tiny", tasks=("arithmetic",), layers=2, hidden=32, ffn=32, steps=4, batch=4,
    warmup=2,
)  # fmt: skip


def weights(run: Training) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in run.model.parameters()]


def test_a_run_that_resumes_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, first = Training(TINY), Training(TINY)
    for _ in range(4):
        whole.advance()
    for _ in range(2):
        first.advance()
    first.save(tmp_path)

    resumed = Training.resume(TINY, tmp_path)
    for _ in range(2):
        resumed.advance()

    assert resumed.step == whole.step == 4
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(whole), strict=True))


def test_the_state_of_another_recipe_is_not_resumed(tmp_path: Path) -> None:
    run = Training(TINY)
    run.advance()
    run.save(tmp_path)

    assert Training.resume(replace(TINY, seed=99), tmp_path).step == 0


def test_training_reports_every_step(tmp_path: Path) -> None:
    steps: list[int] = []

    train(TINY, tmp_path, save_every=100, on_step=lambda step, loss: steps.append(step))

    assert steps == [1, 2, 3, 4]


def test_new_layers_do_not_change_the_function() -> None:
    recipe = replace(TINY, layers=4, grow_at=2, grow_by=2)
    small = Training(recipe).model.eval()

    large = grown(small, recipe).eval()

    tokens = torch.arange(10).unsqueeze(0)
    assert (small.config.num_hidden_layers, large.config.num_hidden_layers) == (2, 4)
    with torch.inference_mode():
        assert torch.allclose(small(tokens).logits, large(tokens).logits, atol=1e-5)


def test_a_specialist_answers_greedily_and_is_evaluated() -> None:
    model = load_expert(EXPERTS / "arithmetic")
    held_out = questions("heldout", n=40, seed=3, tasks=("arithmetic",))

    accuracy = accuracy_by_kind(model, held_out)

    assert accuracy.keys() == {"arithmetic", "add", "subtract"}
    assert accuracy["arithmetic"] > 0.8
    assert greedy_answers(model, []) == []
    wrong = [Question(q.task, q.kind, q.split, q.query, "no number") for q in held_out]
    assert accuracy_by_kind(model, wrong)["add"] == 0.0


def test_experts_that_are_up_to_date_are_not_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_experts(RECIPES.values(), experts=EXPERTS, runs=tmp_path) == []
    assert capsys.readouterr().out.count("up to date") == len(RECIPES)


def test_a_wrong_number_of_threads_is_a_usage_error() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--threads", "0"])
