//! Golden numbers of other people's code: every case is used by a test.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::checkout;

/// The cases of golden_recipe.json, each with a file whose tests compare with it.
const OF_RECIPES: [(&str, &str); 15] = [
    ("mart", "trainer/src/method/loss/tests/later.rs"),
    ("dkl_v1", "trainer/src/method/loss/tests/distillation.rs"),
    ("gkl_v2", "trainer/src/method/loss/tests/distillation.rs"),
    ("dkl_class_mean", "trainer/src/method/memory/tests.rs"),
    ("trades_ls", "trainer/src/method/loss/tests/later.rs"),
    ("score_lse", "trainer/src/method/loss/tests/later.rs"),
    ("js_consistency", "trainer/src/method/loss/tests/later.rs"),
    ("awp", "trainer/src/step/tests/weight_perturbation.rs"),
    ("grad_align", "trainer/src/step/gradient_alignment/tests.rs"),
    ("single_step", "trainer/src/method/attack/n_fgsm.rs"),
    ("nuat", "trainer/src/method/loss/tests/later.rs"),
    ("ema", "trainer/src/run/averages.rs"),
    ("one_cycle", "trainer/src/step/learning_rate.rs"),
    ("cutmix", "trainer/src/step/batch.rs"),
    ("augment", "datasets/src/batches/augment/idbh/tests.rs"),
];

/// The same of golden_distillation.json.
const OF_DISTILLATION: [(&str, &str); 30] = [
    ("igdm_adaad_epoch50_alpha20", LATER),
    ("igdm_adaad_epoch200_alpha1", LATER),
    ("igdm_rslad_supplement", LATER),
    ("saad_gamma1_beta0", DISTILLATION),
    ("saad_gamma1_beta0.2", DISTILLATION),
    ("saad_gamma2_beta0.5", DISTILLATION),
    ("fair_class_weights", "trainer/src/method/memory/tests.rs"),
    ("fair_iad_epoch10", DISTILLATION),
    ("fair_iad_epoch70", DISTILLATION),
    ("fair_ard", DISTILLATION),
    ("adr_pgd_step0", DISTILLATION),
    ("adr_pgd_step37", DISTILLATION),
    ("adr_trades_step37", DISTILLATION),
    ("mtard_step1", REMEMBERING),
    ("mtard_step2", REMEMBERING),
    ("b_mtard_step1", REMEMBERING),
    ("b_mtard_step2", REMEMBERING),
    ("peeraid_T5", DISTILLATION),
    ("peeraid_T1", DISTILLATION),
    ("lbgat_beta0", DISTILLATION),
    ("lbgat_beta6", DISTILLATION),
    ("hat_kl", DISTILLATION),
    ("dgad_resnet18_bs4", DISTILLATION),
    ("dgad_resnet18_bs8", DISTILLATION),
    ("dgad_mobilenetV2_bs4", "trainer/src/step/remembering/tests/product.rs"),
    ("ciard", "trainer/src/step/remembering/tests/ciard.rs"),
    ("adaad_cifar10_branch", DISTILLATION),
    ("attack_saad", DISTILLATION),
    ("attack_adaad", DISTILLATION),
    ("attack_rslad", DISTILLATION),
];

const LATER: &str = "trainer/src/method/loss/tests/later.rs";
const DISTILLATION: &str = "trainer/src/method/loss/tests/distillation.rs";
const REMEMBERING: &str = "trainer/src/step/remembering/tests.rs";

fn fixture(name: &str) -> Result<Value> {
    let file = checkout().join("tests/fixtures").join(name);
    Ok(serde_json::from_str(&fs::read_to_string(&file).with_context(|| file.display().to_string())?)?)
}

#[test]
fn every_golden_case_is_used_by_a_test() -> Result<()> {
    let recipes = fixture("golden_recipe.json")?;
    let recipes = recipes.as_object().context("cases by name")?.keys().filter(|name| *name != "note");
    let distillation = fixture("golden_distillation.json")?;
    let distillation = distillation["cases"].as_array().context("a list of cases")?;
    let distillation = distillation.iter().filter_map(|case| case["name"].as_str());
    let listed = OF_RECIPES.iter().chain(&OF_DISTILLATION);
    for name in recipes.map(String::as_str).chain(distillation) {
        let (_, test) =
            listed.clone().find(|(listed, _)| *listed == name).with_context(|| format!("no test of {name}"))?;
        let text = fs::read_to_string(checkout().join(test)).with_context(|| test.to_string())?;
        let used = text.contains(&format!("\"{name}\"")) && text.contains("#[test]");
        ensure!(used, "{test} does not use the golden case {name}");
    }
    Ok(())
}
