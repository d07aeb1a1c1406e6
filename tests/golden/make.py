"""Golden predictions: every model family, trained briefly from seed 0, must predict the same numbers to the last bit.

    python tests/golden/make.py                      write golden.json
    python tests/golden/make.py --check              compare with golden.json; exit 1 if anything differs
    python tests/golden/make.py --check --only vae   some cases alone

Floats are stored by their shortest exact representation. They are exact on one kind of processor and one version of
PyTorch, which golden.json names.
"""

# ruff: noqa: E402 -- numerical libraries read the number of threads when they are imported

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WORK = tempfile.TemporaryDirectory(prefix="golden-")
os.environ |= {"OMP_NUM_THREADS": "1", "LIKELY_CACHE": str(Path(WORK.name) / "cache")}

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

import likely
from likely import Classifier


def digests_of_folder(folder: Path) -> list[str]:
    """Return the digests of all tensors of a model folder, whatever their names, sorted."""
    tensors = load_file(next(folder.glob("*.safetensors")))
    return sorted(map(digest, tensors.values()))


# ---- Data -----------------------------------------------------------------------------------------------------------------

N_TRAIN = 1200
RAW = load_digits()
DIGITS, LABELS = (RAW.images * 255 / 16).round().astype(np.uint8), RAW.target
NOISE = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
# Nine test digits, one upside down, one inverted, one of noise.
IMAGES = np.stack([*DIGITS[N_TRAIN : N_TRAIN + 9], DIGITS[N_TRAIN + 10, ::-1], 255 - DIGITS[N_TRAIN + 11], NOISE])
MIRRORED = DIGITS[:N_TRAIN][LABELS[:N_TRAIN] == 2][:30, :, ::-1]  # a new class
MASK = np.ones((8, 8), bool)
MASK[2:5, 3:] = False


def backbone() -> Path:
    """Write the folder of a tiny ResNet with random weights."""
    import transformers

    folder = Path(WORK.name) / "backbone"
    transformers.utils.logging.disable_progress_bar()
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.ResNetModel(config).save_pretrained(folder)
    settings = {"size": {"shortest_edge": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


# ---- Results --------------------------------------------------------------------------------------------------------------


def digest(tensor: torch.Tensor) -> str:
    """Return shape, dtype and the first digits of the SHA-256 of a tensor's bytes."""
    values = tensor.detach().cpu().contiguous().numpy()
    shape = "x".join(map(str, values.shape))
    return f"{shape}:{values.dtype}:{hashlib.sha256(values.tobytes()).hexdigest()[:12]}"


def total(digests: list[str]) -> str:
    """Return the SHA-256 of a list of digests."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return a list of objects as one list for each field, which is shorter."""
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}


def record(prediction: dict[str, Any]) -> dict[str, Any]:
    """Return a prediction's JSON without the model's id, which depends on the names of its tensors."""
    fields = dict(prediction)
    del fields["model"]
    return fields | {"classes": columns(fields["classes"]), "input": Path(fields["input"]).name}


def predictions(classifier: Classifier, images: Any, **options: Any) -> dict[str, list[Any]]:
    """Return every field of the predictions for some images."""
    found = classifier.classify(images, **options)
    return columns([record(each.model_dump(mode="json")) for each in found])


def tensors(classifier: Classifier, name: str) -> dict[str, Any]:
    """Return digests of the model's tensors, in the order of their definition, and of all others that are saved."""
    folder = Path(WORK.name) / "models" / name
    classifier.save(folder)
    own = [digest(tensor) for tensor in classifier.predictor_.model.state_dict().values()]
    others = sorted((Counter(digests_of_folder(folder)) - Counter(own)).elements())
    return {
        "model_sha256": total(own),
        "model_tensors": own,
        "calibration_sha256": total(others),
        "calibration_tensors": others,
    }


def results(classifier: Classifier, name: str, images: Any) -> dict[str, Any]:
    """Return what every trained model is compared by."""
    K = len(classifier.classes_)
    prior = torch.arange(1, K + 1, dtype=classifier.predictor_.log_prior.dtype)
    found = {
        "predictions": predictions(classifier, images),
        "predict_proba": classifier.predict_proba(images).tolist(),
        "prior": predictions(classifier, images[:5], log_prior=(prior / prior.sum()).log()),
        "tensors": tensors(classifier, name),
    }
    again = Classifier.load(Path(WORK.name) / "models" / name)
    found["is_same_when_loaded"] = predictions(again, images) == found["predictions"]
    return found


def generative(classifier: Classifier, images: Any) -> dict[str, Any]:
    """Return what generative models of pixels or vectors can do besides."""
    samples = classifier.sample(classifier.classes_[3], 2)
    return {"score_samples": classifier.score_samples(images).tolist(), "samples": samples.tolist()}


def extended(classifier: Classifier, name: str) -> dict[str, Any]:
    """Return the predictions of a model with one more class."""
    larger = classifier.extend("mirrored", MIRRORED)
    images = np.concatenate([IMAGES[:4], DIGITS[N_TRAIN:][LABELS[N_TRAIN:] == 2][:2, :, ::-1]])
    return {"predictions": predictions(larger, images), "tensors": tensors(larger, f"{name}-extended")}


def masked(classifier: Classifier) -> dict[str, Any]:
    """Return predictions from some pixels of the images."""
    return predictions(classifier, IMAGES[:5], mask=MASK)


def adapted(classifier: Classifier) -> dict[str, Any]:
    """Return the class prior estimated from images of which most are of four classes."""
    few = np.flatnonzero((LABELS[N_TRAIN:] < 4) | (np.arange(len(LABELS) - N_TRAIN) % 10 == 0))[:120]
    adaptation = classifier.adapt_prior(DIGITS[N_TRAIN:][few])
    found = adaptation.prior_estimate
    identifiability = found.identifiability
    return {
        **{key: getattr(found, key).tolist() for key in ("log_prior", "estimate", "low", "high")},
        **{key: getattr(found, key) for key in ("p_value", "shifted", "n_used")},
        "n_unknown": adaptation.n_unknown,
        "information_fraction": float(identifiability.information_fraction),
        "confused": [list(pair) for pair in identifiability.confused],
    }


def explained(classifier: Classifier, image: Any) -> dict[str, Any]:
    """Return the pixel attributions and the counterfactual of one image."""
    found = classifier.explain(image)
    attribution = found.attribution
    path = found.counterfactual_path
    return {
        "label": found.label,
        "against": found.against,
        "log_odds": found.log_odds,
        "attribution_sum": float(attribution.sum()),
        "attribution": digest(attribution),
        "log_posterior": found.log_posterior.tolist(),
        "path_probability": path.probability.tolist(),
        "path_images": digest(path.images),
        "flip": path.flip,
    }


# ---- Cases ----------------------------------------------------------------------------------------------------------------

TRAINING = {"epochs": 3, "threads": 1}


def trained(name: str, **options: Any) -> Classifier:
    """Train a family on the digits."""
    classifier = Classifier(name, training=TRAINING, random_state=0, **options)
    return classifier.fit(DIGITS[:N_TRAIN], LABELS[:N_TRAIN])


def gaussian() -> dict[str, Any]:
    """Train the Gaussian on pixels."""
    classifier = trained("gaussian")
    found = results(classifier, "gaussian", IMAGES) | generative(classifier, IMAGES)
    return found | {"extended": extended(classifier, "gaussian"), "masked": masked(classifier)}


def vae() -> dict[str, Any]:
    """Train the VAE on pixels."""
    classifier = trained("vae")
    found = results(classifier, "vae", IMAGES) | generative(classifier, IMAGES)
    found |= {"extended": extended(classifier, "vae"), "masked": masked(classifier)}
    return found | {
        "adapted": adapted(classifier),
        "explained": [explained(classifier, IMAGES[i]) for i in (0, 2, 3, 9)],
    }


def vaegan() -> dict[str, Any]:
    """Train the VAE-GAN on pixels."""
    classifier = trained("vaegan")
    return results(classifier, "vaegan", IMAGES) | generative(classifier, IMAGES)


def gan() -> dict[str, Any]:
    """Train the GAN on pixels."""
    classifier = trained("gan")
    return results(classifier, "gan", IMAGES) | generative(classifier, IMAGES)


def flow() -> dict[str, Any]:
    """Train the flow on pixels."""
    classifier = trained("flow")
    found = results(classifier, "flow", IMAGES) | generative(classifier, IMAGES)
    return found | {"extended": extended(classifier, "flow")}


def softmax() -> dict[str, Any]:
    """Train the softmax baseline on pixels."""
    return results(trained("softmax"), "softmax", IMAGES)


def gaussian_backbone() -> dict[str, Any]:
    """Fit the Gaussian to the features of a backbone."""
    classifier = trained("gaussian", features={"backbone": str(backbone())})
    return results(classifier, "backbone", IMAGES) | {"score_samples": classifier.score_samples(IMAGES).tolist()}


def gaussian_random_features() -> dict[str, Any]:
    """Fit the Gaussian to random convolutions."""
    classifier = trained("gaussian", features={"features": "random"})
    return results(classifier, "random", IMAGES) | {"score_samples": classifier.score_samples(IMAGES).tolist()}


def gaussian_vectors() -> dict[str, Any]:
    """Fit the Gaussian to flat vectors."""
    X = RAW.data.astype(np.float64)
    classifier = Classifier("gaussian", training=TRAINING, random_state=0).fit(X[:N_TRAIN], LABELS[:N_TRAIN])
    some = np.concatenate([X[N_TRAIN : N_TRAIN + 10], 16 * np.random.default_rng(1).random((2, 64))])
    return results(classifier, "vectors", some) | generative(classifier, some)


def command_line() -> dict[str, Any]:
    """Train a VAE-GAN and classify image files by the command line."""
    folder, files = Path(WORK.name) / "trained", []
    training = ["--model", "vaegan", "--epochs", "3", "--threads", "1", "--seed", "0"]
    run("likely", "train", "digits", *training, "--label-check-folds", "0", "--out", str(folder))
    for i in (0, 4, 11):
        files.append(Path(WORK.name) / f"{i}.png")
        Image.fromarray(IMAGES[i]).save(files[-1])
    lines = run("likely", "classify", str(folder), *map(str, files), "--format", "jsonl", "--threads", "1").splitlines()
    digests = digests_of_folder(folder)
    return {
        "predictions": columns([record(json.loads(line)) for line in lines]),
        "tensors": {"sha256": total(digests), "tensors": digests},
    }


def run(module: str, *words: str) -> str:
    """Return what a module prints, started as a program with the same code."""
    environment = os.environ | {"PYTHONPATH": str(Path(likely.__file__).parents[1])}
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, env=environment, cwd=WORK.name, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "gaussian": gaussian,
    "vae": vae,
    "vaegan": vaegan,
    "gan": gan,
    "flow": flow,
    "softmax": softmax,
    "gaussian-backbone": gaussian_backbone,
    "gaussian-random-features": gaussian_random_features,
    "gaussian-vectors": gaussian_vectors,
    "command-line": command_line,
}


# ---- Comparison -----------------------------------------------------------------------------------------------------------


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the field of each value in a JSON document, without its position in lists."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from leaves(inner, path)
    else:
        yield path, value


def by_field(case: dict[str, Any]) -> dict[str, list[Any]]:
    """Return all values of each field."""
    found: dict[str, list[Any]] = {}
    for path, value in leaves(case):
        found.setdefault(path, []).append(value)
    return found


def difference(before: list[Any], after: list[Any]) -> str | None:
    """Describe how the values of a field differ; None if they are identical."""
    if repr(before) == repr(after):
        return None
    if len(before) != len(after):
        return f"{len(before)} values before, {len(after)} now"
    if sorted(map(repr, before)) == sorted(map(repr, after)):
        return "the same values in another order"
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if repr(a) != repr(b)]
    if all(isinstance(value, int | float) for pair in pairs for value in pair):
        scales = [(abs(a - b), max(abs(a), abs(b))) for a, b in pairs if math.isfinite(a - b)]
        largest = max((size / scale for size, scale in scales if scale), default=0.0)
        return f"largest relative difference {largest:.1e} ({len(pairs)} of {len(before)} values)"
    return f"{len(pairs)} of {len(before)} values differ, first {pairs[0][0]!r} -> {pairs[0][1]!r}"


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    """Return the fields that differ, and how."""
    a, b = by_field(before), by_field(after)
    found = {path: difference(a.get(path, []), b.get(path, [])) for path in {**a, **b}}
    return {path: sentence for path, sentence in found.items() if sentence is not None}


# ---- Program --------------------------------------------------------------------------------------------------------------

GOLDEN = Path(__file__).with_name("golden.json")


def environment() -> dict[str, str]:
    """Return what the last bits depend on besides the code."""
    return {"torch": torch.__version__, "cpu_capability": torch.backends.cpu.get_cpu_capability()}


def write(cases: dict[str, Any]) -> None:
    """Write golden.json, a case a line."""
    document = {"environment": environment(), **cases}
    lines = [f"{json.dumps(name)}:{json.dumps(case, separators=(',', ':'))}" for name, case in document.items()]
    GOLDEN.write_text("{" + ",\n".join(lines) + "}\n")


def main() -> int:
    """Make or check the golden predictions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with golden.json instead of writing it")
    parser.add_argument("--only", metavar="CASE[,CASE]", help=f"some of {', '.join(CASES)}")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(CASES)
    if unknown := set(chosen) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    torch.set_num_threads(1)
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    print(f"likely: {Path(likely.__file__).parent}")
    if options.check and golden.get("environment") != environment():
        print(f"golden.json is of {golden.get('environment')}, this is {environment()}")
    n_failed = 0
    for name in chosen:
        start = time.perf_counter()
        try:
            case = json.loads(json.dumps(CASES[name]()))
            found = differences(golden.get(name, {}), case) if options.check else {}
            outcome = "DIFFERENT" if found else "identical" if options.check else "written"
            golden[name] = case
        except Exception:  # the other cases are of interest as well
            found, outcome = {"error": traceback.format_exc()}, "FAILED"
        n_failed += bool(found)
        print(f"{name:26}{outcome:12}{time.perf_counter() - start:6.1f} s", flush=True)
        for path, sentence in found.items():
            print(f"    {path}: {sentence}", flush=True)
    if not options.check:
        write({each: golden[each] for each in CASES if each in golden})
    return int(n_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
