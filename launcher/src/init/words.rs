//! Keys, terms and methods in words that a newcomer knows.

use trainer::config::{Divergence, Images, Ramp, STUDENT, Target, Term, Trust};

/// The keys of a new configuration by section, in their order, each with what it means. What it may be is added from the manual.
pub(super) const SECTIONS: [(&str, &[(&str, &str)]); 11] = [
    (
        "",
        &[
            (
                "seed",
                "The seed of every random number: order of the images, random changes, first weights, starts of attacks.",
            ),
            ("epochs", "Passes over the training images."),
        ],
    ),
    ("batch", &[("size", "Images of a step, over all ranks together. The learning rate below is meant for 128.")]),
    (
        "data",
        &[
            ("train", "The container whose training images are used."),
            ("test", "The container whose test images are used. It may be the same file."),
            (
                "augment",
                "Random changes of training images: a crop after so many black pixels were added on each side, and whether half of the images are mirrored.",
            ),
        ],
    ),
    ("student", &[("architecture", "The network to train.")]),
    (
        "attack",
        &[
            ("kind", "The attack on training images: projected gradient ascent (pgd), or none."),
            ("replays", "How often each batch is trained on, in a row."),
            ("eps", "The largest change of a pixel, as a part of the range from black to white."),
            ("step", "The length of one step of the attack."),
            ("steps", "Steps of the attack. Each costs a forward and a backward pass of the student."),
            ("start", "Where the attack begins: at a random point, at the image itself, or a little beside it."),
            ("clamp_start", "Whether the beginning is cut back to valid pixels before the first step."),
            (
                "batch_norm",
                "What batch norm does during the attack: normalise by the batch and remember it (train_update), forget it (train_frozen), or normalise by its running statistics (eval).",
            ),
            (
                "natural_batch_norm",
                "What batch norm does in the pass on natural images that the attack compares with, if not the same.",
            ),
            (
                "towards",
                "What the attack moves the student's prediction away from: the label, or the prediction of a network.",
            ),
            (
                "divergence",
                "How far the student's prediction is from that target, if not by the Kullback-Leibler divergence.",
            ),
            (
                "lead",
                "The network whose loss the first step of the attack raises; the later steps raise the student's.",
            ),
            (
                "first_order",
                "Whether the logit of the label in that prediction follows the attacked image, by its gradient at the natural one.",
            ),
        ],
    ),
    (
        "batch_norm",
        &[
            (
                "across_ranks",
                "Whether batch norm measures the images of all ranks together, or those of each rank alone.",
            ),
            (
                "compat",
                "Whether terms of weight 0 are left out (lean) or move the running statistics as in the method's published code (reference).",
            ),
            ("fused", "Whether GPUs compute the statistics of all ranks by libtorch's fused kernels."),
        ],
    ),
    (
        "optimizer",
        &[
            ("lr", "The learning rate."),
            ("lr_policy", "How the learning rate changes over the run. Epochs count from 0."),
            ("momentum", "The momentum of SGD."),
            ("weight_decay", "How strongly weights are drawn to 0."),
        ],
    ),
    ("averages", &[("ema", "A moving average of the weights over steps, and what is left of it after each.")]),
    ("precision", &[("dtype", "What training computes in. On recent GPUs bfloat16 is faster.")]),
    (
        "evaluation",
        &[
            (
                "suite",
                "The attacks on the test images at the end of the run. AutoAttack is called autoattack and takes long.",
            ),
            (
                "selection",
                "The images that choose the best weights: some that are held out of training, the test images (as papers often do; the result is then optimistic), or none.",
            ),
            ("held_out", "The share of the training images that is held out."),
            ("every", "Epochs between two looks at these images."),
            ("eps", "The largest change of a pixel in an evaluation."),
            ("step", "The length of one step of an evaluation's attacks."),
        ],
    ),
    (
        "checkpoint",
        &[
            ("every", "Epochs between two checkpoints. A run that was stopped goes on from the newest one."),
            ("keep_last", "How many checkpoints are kept."),
        ],
    ),
];

/// What `[teachers.NAME]` means.
pub(super) const TEACHER: [(&str, &str); 2] = [
    ("checkpoint", "The run folder of the teacher, or a file of weights."),
    ("config", "The configuration that makes the teacher. If it is missing, it is trained first, by the same command."),
];

/// What `[learners.NAME]` means.
pub(super) const LEARNER: [(&str, &str); 4] = [
    ("architecture", "The network that learns beside the student; the student's own without it."),
    ("teacher", "The teacher whose network and weights it begins with."),
    ("from_epoch", "The epoch from which on it learns."),
    ("optimizer", "How it learns; as the student without it."),
];

/// What a method remembers, as keys of `[loss]`.
pub(super) const REMEMBERED: [(&str, &str); 4] = [
    (
        "class_weights",
        "Classes that survive fewer steps of the attack weigh more in the next epoch, within these bounds.",
    ),
    ("class_means", "How the mean prediction of each class is taken, epoch by epoch."),
    (
        "rectify",
        "Every label is mixed with the prediction of this network on the natural image; first and last temperature and weight.",
    ),
    (
        "balance",
        "The weights of these two terms follow how far each has come; at the milestones the rates fall to a tenth.",
    ),
];

/// The methods in a line each.
pub(super) fn method(preset: &str) -> &'static str {
    match preset {
        "st" => "Standard training on natural images",
        "at" => "Adversarial training (Madry et al., ICLR 2018)",
        "trades" => "TRADES (Zhang et al., ICML 2019)",
        "trades-ls" => "TRADES with smoothed labels (Gowal et al., 2020)",
        "mart" => "MART (Wang et al., ICLR 2020)",
        "ard" => "Adversarially robust distillation, ARD (Goldblum et al., AAAI 2020)",
        "ard-orig" => "ARD as its authors released it (Goldblum et al., AAAI 2020)",
        "akd2" => "AKD2, distillation from a robust and a standard teacher (Chen et al., ICLR 2021)",
        "akd2-orig" => "AKD2 as its authors released it (Chen et al., ICLR 2021)",
        "akd2-partial" => "AKD2 whose robust teacher counts by its trust (Zhu et al., ICLR 2022, Table 7)",
        "iad-1" => "Introspective adversarial distillation, IAD-I (Zhu et al., ICLR 2022)",
        "iad-1-down" => "IAD-I whose teacher counts by its trust, too (Zhu et al., ICLR 2022, Table 8)",
        "iad-2" => "Introspective adversarial distillation, IAD-II (Zhu et al., ICLR 2022)",
        "rslad" => "RSLAD, robust soft labels (Zi et al., ICCV 2021)",
        "adaad" => "AdaAD, adaptive adversarial distillation (Huang et al., CVPR 2023)",
        "igdm" => "IGDM on AdaAD, input gradients of the teacher (Lee et al., ICLR 2025)",
        "igdm-ard" => "IGDM on ARD (Lee et al., ICLR 2025)",
        "igdm-rslad" => "IGDM on RSLAD (Lee et al., ICLR 2025)",
        "ltd" => "Low temperature distillation, LTD (Chen and Lee, 2021)",
        "hat" => "HAT, helper images against too large margins (Rade and Moosavi-Dezfooli, ICLR 2022)",
        "dgad" => "DGAD, the teacher's mistakes corrected and distilled on natural images (Park and Min, ECCV 2024)",
        "nuat2-wa" => {
            "NuAT2-WA, two steps, the first by the student's moving average (Sriramanan et al., NeurIPS 2021)"
        }
        "score" => "SCORE, squared differences in place of divergences (Pang et al., ICML 2022)",
        "nuat" => "NuAT, single-step training with the nuclear norm (Sriramanan et al., NeurIPS 2021)",
        "dkl" => "DKL, the improved divergence IKL (Cui et al., NeurIPS 2024)",
        "gkl" => "GKL, the generalised divergence (Cui et al., 2025)",
        "saad" => "SAAD, images weighed by the teacher's uncertainty (Lee et al., TMLR 2026)",
        "saad-c" => "SAAD-C, SAAD with natural images where the teacher is sure (Lee et al., TMLR 2026)",
        "adr" => "ADR, labels mixed with a moving average of the student (Wu et al., ICLR 2024)",
        "adr-trades" => "ADR on TRADES (Wu et al., ICLR 2024)",
        "fair-ard" => "Fair-ARD, classes weighed by the attack steps that they survive (Yue et al., NeurIPS 2023)",
        "fair-iad" => "Fair-IAD, IAD-I with these weights (Yue et al., NeurIPS 2023)",
        "fair-rslad" => "Fair-RSLAD, RSLAD with these weights (Yue et al., NeurIPS 2023)",
        "fair-mtard" => "Fair-MTARD, MTARD with these weights (Yue et al., NeurIPS 2023)",
        "mtard" => "MTARD, a robust and a natural teacher in balance (Zhao et al., ECCV 2022)",
        "ciard" => "CIARD, two teachers of which one learns on, away from the other's mistakes (Lu et al., ICCV 2025)",
        "b-mtard" => "B-MTARD, MTARD with balanced temperatures (Zhao et al., TPAMI 2024)",
        "lbgat" => "LBGAT, guided by a natural network that learns along (Cui et al., ICCV 2021)",
        "peeraid" => "PeerAiD, taught by a peer that learns from the student's images (Jung et al., CVPR 2024)",
        _ => "A method of your own",
    }
}

fn images(images: Images) -> &'static str {
    match images {
        Images::Natural => "natural",
        Images::Adversarial => "adversarial",
        Images::Mirrored => "mirrored",
        Images::Helper => "helper",
    }
}

/// What a term of the loss does.
pub(super) fn term(term: &Term) -> String {
    let mut sentences = vec![subject(term)];
    if term.weight == 0.0 {
        sentences.push(
            "Its weight is 0: its pass only moves the running statistics of batch norm, as in the published code"
                .into(),
        );
    }
    if term.temperature != 1.0 {
        sentences.push(format!("Both predictions are softened by the temperature {}", term.temperature));
    }
    if let Some(temperature) = term.target_temperature {
        sentences.push(format!("The target alone is softened by the temperature {temperature}"));
    }
    match term.divergence {
        Divergence::Kl => {}
        Divergence::MeanSquare | Divergence::Square => {
            sentences.push("Probabilities are compared by their squared differences".into());
        }
        Divergence::JensenShannon => {
            sentences.push("Both predictions are compared with the mean of the two (Jensen-Shannon)".into());
        }
        Divergence::LogitSquare => sentences.push("Logits are compared by their squared differences".into()),
        Divergence::LogitGaps => {
            sentences.push("The gaps between the logits of two classes are compared, for all pairs; pairs of classes that images of this label are often taken for count more".into());
        }
        Divergence::Nuclear => {
            sentences.push("Differences of logits are compared over the whole batch, by their nuclear norm".into());
        }
    }
    if term.slack > 0.0 {
        sentences.push(format!("Differences up to {} count for nothing", term.slack));
    }
    if let Some(other) = &term.times {
        sentences.push(format!("The term {other} is multiplied by this one before it is added"));
    }
    if term.hard {
        sentences.push("The target's most probable class is taken as the label".into());
    }
    if term.swap_label {
        sentences.push("Where the target is wrong, its largest logit and that of the label change places".into());
    }
    if let Some(only) = &term.only {
        let right = if only.right { "correctly" } else { "wrongly" };
        let kind = images(only.images);
        sentences.push(format!("Only images count whose {kind} form the teacher {} classifies {right}", only.teacher));
        if only.normalized {
            sentences.push("The term is their mean".into());
        }
    }
    if term.follows() {
        let others = term.magnitude_of.join(" and ");
        sentences.push(format!("A power of ten brings it to the order of magnitude of the least of {others}"));
    }
    if let Some(one) = &term.uncertainty {
        let (more, teacher) = (if one.complement { "less" } else { "more" }, &one.teacher);
        sentences.push(format!("An image counts the more, the {more} uncertain the teacher {teacher} is"));
    }
    sentences.extend(term.trust.as_ref().map(trust));
    if term.sample_weight.is_some() {
        sentences.push("An image counts the more, the less sure the student is of its label".into());
    }
    match term.ramp {
        Some(Ramp::Linear) => sentences.push("The weight grows with every epoch".into()),
        Some(Ramp::Hold(epochs)) => {
            sentences.push(format!("The weight grows from 0 with every epoch, and stays in the last {epochs}"));
        }
        None => {}
    }
    if term.in_attack {
        sentences.push(
            "The attack raises it too: in every second step of training, or in its first step where a network leads it"
                .into(),
        );
    }
    if term.from_epoch > 0 {
        sentences.push(format!("The term begins in epoch {}", term.from_epoch));
    }
    format!("{}: {}.", term.name, sentences.join(". "))
}

fn subject(term: &Term) -> String {
    let less = |minus: Images| format!(", less that on {} images,", images(minus));
    let minus = term.minus.map_or(String::new(), less);
    let whose = match term.network.as_str() {
        STUDENT => "the student's prediction".to_string(),
        learner => format!("the prediction of {learner}, which learns beside the student,"),
    };
    let drawn = if term.weight < 0.0 { "driven away from" } else { "drawn to" };
    let of = format!("{whose} on {} images{minus} is {drawn}", images(term.of));
    match &term.towards {
        Target::Label if term.smoothing > 0.0 => {
            format!("{of} the label, {} of which is spread over all classes", term.smoothing)
        }
        Target::Label => format!("{of} the label"),
        Target::BoostedLabel => format!("{of} the label and away from the most probable other class"),
        Target::Prediction(target) => {
            let whose = if target.network == term.network {
                "its own".to_string()
            } else if target.network == STUDENT {
                "the student's".to_string()
            } else {
                format!("that of {}", target.network)
            };
            format!("{of} {whose} on {} images{}", images(target.images), minus.trim_end_matches(','))
        }
    }
}

fn trust(trust: &Trust) -> String {
    let Trust { teacher, exponent, inverted, from_epoch } = trust;
    let factor = if *inverted {
        "1 - alpha, the more the less the teacher can be trusted"
    } else {
        "alpha, the trust in the teacher"
    };
    let from = if *from_epoch > 0 { format!(" from epoch {from_epoch} on") } else { String::new() };
    format!("Each image counts by {factor}{from}, with alpha = P_{teacher}(label on the adversarial image)^{exponent}")
}

#[cfg(test)]
mod tests {
    use trainer::config::{keys, preset_names};

    use super::*;

    #[test]
    fn every_key_with_words_is_one_of_the_manual_and_every_preset_has_a_line() {
        let known: Vec<String> = keys().into_iter().map(|key| key.path).collect();
        let dotted =
            |section: &str, key: &str| if section.is_empty() { key.to_string() } else { format!("{section}.{key}") };
        let own = SECTIONS.iter().flat_map(|(section, keys)| keys.iter().map(move |(key, _)| dotted(section, key)));
        let remembered = REMEMBERED.iter().map(|(key, _)| dotted("loss", key));
        let teachers = TEACHER.iter().map(|(key, _)| dotted("teachers.NAME", key));
        // An optimizer has keys of its own.
        let learners = LEARNER.iter().filter(|(key, _)| *key != "optimizer");
        let learners = learners.map(|(key, _)| dotted("learners.NAME", key));
        for key in own.chain(teachers).chain(learners).chain(remembered) {
            assert!(known.contains(&key), "{key}");
        }
        for preset in preset_names() {
            assert_ne!(method(preset), method("none"), "{preset}");
        }
    }
}
