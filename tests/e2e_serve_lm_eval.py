"""lm-eval, unchanged, against `atom serve`: local-completions with the model's own tokenizer on tasks of this test. Its
log-likelihoods are those that `atom eval ppl` finds for the same tokens, however requests are batched."""

import json
import os
import subprocess
import sys

import pytest

from atom_cli import run_json
from serve_fixture import DOCS, MODEL, SHAREGPT, Server, packed_real_model

pytestmark = pytest.mark.skipif(not MODEL or not SHAREGPT, reason="ATOM_TEST_MODEL or ATOM_TEST_SHAREGPT is not set")

QUESTIONS = [
    ("The capital of France is", [" Paris", " London", " a river", " blue cheese"], 0),
    ("Water freezes at a temperature of", [" 0 degrees Celsius", " 70 degrees Celsius", " a thousand years", " Monday"], 0),
    ("A dog is a kind of", [" fish", " animal", " number", " colour of the sky at night"], 1),
    ("Two plus two is", [" seven", " a house", " four", " forty thousand and three"], 2),
    ("The sun rises in the", [" west", " north", " kitchen", " east"], 3),
    ("She opened her umbrella because it was", [" raining", " Tuesday's", " seventeen", " delicious"], 0),
    ("Bread is made of", [" flour and water", " glass and steel", " music", " clouds"], 0),
    ("The opposite of hot is", [" warm soup", " cold", " hat", " hotter than before"], 1),
]

CHOICE_TASK = """
task: atom_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/choice.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""

ROLLING_TASK = """
task: atom_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/rolling.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{page}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: byte_perplexity}}, {{metric: bits_per_byte}}]
"""


def pages():
    """Paragraphs of this repository's documents, 30 to 150 words each."""
    text = "\n\n".join((DOCS / name).read_text() for name in ("numerics.md", "architecture.md"))
    found = [p for p in text.split("\n\n") if 30 <= len(p.split()) <= 150 and "|" not in p and p == p.strip()]
    return found[:6]


@pytest.fixture(scope="module", name="model")
def fixture_model():
    return packed_real_model()[0]


@pytest.fixture(scope="module", name="server")
def fixture_server(model):
    with Server(model, "--check-blocks") as server:
        yield server


@pytest.fixture(scope="module", name="evaluate")
def fixture_evaluate(model, server, tmp_path_factory):
    """evaluate(batch_size, concurrent): {task: its logged samples} of the lm-eval command."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "choice.jsonl").write_text("\n".join(json.dumps({"question": q, "choices": c, "answer": a}) for q, c, a in QUESTIONS))
    (folder / "rolling.jsonl").write_text("\n".join(json.dumps({"page": page}) for page in pages()))
    (folder / "choice.yaml").write_text(CHOICE_TASK.format(folder=folder))
    (folder / "rolling.yaml").write_text(ROLLING_TASK.format(folder=folder))
    cache = tmp_path_factory.mktemp("cache")
    done = {}

    def evaluate(batch_size, concurrent):
        if (batch_size, concurrent) in done:
            return done[batch_size, concurrent]
        out = tmp_path_factory.mktemp("out")
        arguments = {"model": server.model, "base_url": server.url + "/v1/completions", "tokenizer_backend": "huggingface",
                     "tokenizer": model, "num_concurrent": concurrent, "max_retries": 1, "max_length": 2048}
        command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions",
                   "--model_args", ",".join(f"{k}={v}" for k, v in arguments.items()), "--tasks", "atom_choice,atom_rolling",
                   "--include_path", folder, "--batch_size", batch_size, "--output_path", out, "--log_samples"]
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(cache), "NO_PROXY": "*", "no_proxy": "*",
               "TOKENIZERS_PARALLELISM": "false"}
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env, timeout=600, check=False)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-6000:]
        samples = {}
        for task in ("atom_choice", "atom_rolling"):
            (file,) = out.rglob(f"samples_{task}_*.jsonl")
            samples[task] = sorted((json.loads(line) for line in file.read_text().splitlines()), key=lambda s: s["doc_id"])
        (file,) = out.rglob("results_*.json")
        samples["results"] = json.loads(file.read_text())["results"]
        done[batch_size, concurrent] = samples
        return samples

    return evaluate


def log_likelihood(model, text, folder):
    """(log-likelihood of all tokens of a text but its first, tokens) by `atom eval ppl`."""
    (folder / "text.txt").write_text(text)
    tokens = len(run_json("tokenize", model, "--text", folder / "text.txt")["ids"])
    result = run_json("eval", "ppl", model, "--text", folder / "text.txt", "--window", tokens, "--windows", "1", timeout=300)
    assert result["tokens"] == tokens
    return -result["mean_nll"] * (tokens - 1), tokens


def first_number(value):
    """Samples are logged as [[["-1.5", "False"]], ...], numbers as text."""
    while isinstance(value, (list, tuple)):
        value = value[0]
    return float(value)


def prefix_token(model):
    """What lm-eval puts in front of a text whose first token is to be predicted too."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(model))
    return tokenizer.bos_token or tokenizer.eos_token


def test_rolling_log_likelihoods_are_those_of_eval_ppl(model, evaluate, tmp_path):
    samples = evaluate(1, 1)["atom_rolling"]
    assert len(samples) == len(pages()) >= 4
    for sample, page in zip(samples, pages()):
        expected, tokens = log_likelihood(model, prefix_token(model) + page, tmp_path)
        assert tokens > 40
        assert first_number(sample["resps"]) == pytest.approx(expected, rel=1e-3)


def test_choices_are_those_of_eval_ppl(model, evaluate, tmp_path):
    """log p(choice | question) = log p(question, choice) - log p(question), of tokens behind the first."""
    samples = evaluate(1, 1)["atom_choice"]
    assert len(samples) == len(QUESTIONS)
    for sample, (question, choices, _) in list(zip(samples, QUESTIONS))[:3]:
        alone, tokens = log_likelihood(model, question, tmp_path)
        for choice, found in zip(choices, sample["resps"]):
            both, all_tokens = log_likelihood(model, question + choice, tmp_path)
            # A sum over a few tokens, as the difference of two sums: 1e-3 a token.
            assert first_number(found) == pytest.approx(both - alone, rel=1e-3, abs=1e-3 * (all_tokens - tokens))


def test_the_model_knows_some_answers(evaluate):
    assert evaluate(1, 1)["results"]["atom_choice"]["acc,none"] >= 0.6


@pytest.mark.parametrize("batch_size, concurrent", [(8, 1), (8, 8)])
def test_batching_changes_nothing(evaluate, server, batch_size, concurrent):
    before = server.metrics()
    alone, batched = evaluate(1, 1), evaluate(batch_size, concurrent)
    assert server.metrics()["atom_prompt_tokens_total"] > before["atom_prompt_tokens_total"]
    for task in ("atom_choice", "atom_rolling"):
        assert [s["resps"] for s in batched[task]] == [s["resps"] for s in alone[task]]
    server.assert_idle()
