"""likely evaluate: robustness beside a softmax baseline."""

import json

from likely.evaluation import attacks


def test_generative_model_is_rejected_as_baseline(likely, models, photos):
    words = ("--attack", "--baseline", models / "gaussian")
    assert likely("evaluate", models / "vae", photos / "known", *words).code == 2


def test_extended_model_has_no_baseline(likely, models, photos, tmp_path):
    assert likely("extend", models / "gaussian", f"coat={photos / 'new'}", "--out", "larger").code == 0
    assert likely("evaluate", "larger", photos / "known", "--attack", "--baseline", "baseline").code == 2
    assert not (tmp_path / "baseline").exists()


def test_robustness_needs_a_baseline(likely, models, photos):
    for option in ("--corruptions", "--attack"):
        code, _, err = likely("evaluate", models / "vae", photos / "known", option)
        assert code == 2
        assert "--baseline" in err


def test_baseline_of_robustness_is_trained_once(likely, models, few, tmp_path, monkeypatch):
    monkeypatch.setattr(attacks, "N_STEPS", 5)
    asked = (
        "evaluate",
        models / "vae",
        few,
        "--baseline",
        "baseline",
        "--corruptions",
        "--attack",
        "--attack-samples",
        2,
    )
    code, out, err = likely(*asked, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [each["n"] for each in found["corruptions"]] == [found["n"]] * 2
    assert len(found["corruptions"][1]["rows"]) == 40
    assert {name.partition("@")[0] for name in found["attacks"]} == {"vae", "baseline"}
    written = (tmp_path / "baseline/model.safetensors").read_bytes()
    code, out, err = likely(*asked, "--report", "report.html")
    assert code == 0, err
    assert (tmp_path / "baseline/model.safetensors").read_bytes() == written
    assert "gradient" in out
    assert "jpeg" in out
    assert 'id="robustness"' in (tmp_path / "report.html").read_text()
